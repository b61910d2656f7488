"""Position codes of a grid of tokens; N = h * w in row-major order."""

import math

import torch
from torch import Tensor, nn

BASE = 10_000.0
"""Ratio of the longest to the shortest wavelength of the sine code."""


class LearnedPosition(nn.Module):
    """A table for columns and one for rows, half of the channels each."""

    def __init__(self, grid: tuple[int, int], width: int) -> None:
        super().__init__()
        self.rows = nn.Parameter(torch.rand(grid[0], width // 2))
        self.columns = nn.Parameter(torch.rand(grid[1], width // 2))

    def forward(self) -> Tensor:
        """[N,width]: the column's half, then the row's."""
        h, w = len(self.rows), len(self.columns)
        columns = self.columns[None].expand(h, -1, -1)
        rows = self.rows[:, None].expand(-1, w, -1)
        return torch.cat([columns, rows], dim=2).flatten(0, 1)


class SinePosition(nn.Module):
    """Sines and cosines of the row, then of the column, each scaled to 2 pi at the end of the grid."""

    code: Tensor

    def __init__(self, grid: tuple[int, int], width: int) -> None:
        super().__init__()
        rows, columns = (_waves(count, width // 2) for count in grid)
        code = torch.cat(
            [rows[:, None].expand(-1, grid[1], -1), columns[None].expand(grid[0], -1, -1)], dim=2
        )
        self.register_buffer("code", code.flatten(0, 1), persistent=False)

    def forward(self) -> Tensor:
        """[N,width]."""
        return self.code


def _waves(count: int, channels: int) -> Tensor:
    """[count,channels]: sines on even channels and cosines on odd ones, wavelengths up to `BASE`."""
    # the authors' small number avoids a division by zero; kept for equal codes
    angle = torch.arange(1, count + 1, dtype=torch.float32) / (count + 1e-6) * (2 * math.pi)
    pair = torch.arange(channels // 2, dtype=torch.float32)
    phase = angle[:, None] / BASE ** (2 * pair / channels)
    return torch.stack([phase.sin(), phase.cos()], dim=2).flatten(1)
