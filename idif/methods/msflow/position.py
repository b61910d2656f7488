"""The fixed position code that conditions the parallel flows."""

import math

import torch
from torch import Tensor

PERIOD = 10000.0
"""Longest wavelength of the code, in units of 2 pi positions."""


def position_code(channels: int, height: int, width: int, like: Tensor) -> Tensor:
    """Sines and cosines of column and row, at wavelengths in geometric progression.

    Args:
        channels: a multiple of 4: the first half encodes the column, the second the row; in each half sines
            and cosines alternate.
        like: gives device and type.

    Returns:
        [channels,height,width].
    """
    half = channels // 2
    steps = torch.arange(0, half, 2, device=like.device, dtype=like.dtype)
    frequencies = torch.exp(steps * (-math.log(PERIOD) / half))

    def along(positions: int) -> Tensor:
        """[half,positions]."""
        angles = frequencies[:, None] * torch.arange(positions, device=like.device, dtype=like.dtype)
        return torch.stack([angles.sin(), angles.cos()], dim=1).flatten(0, 1)

    columns = along(width)[:, None, :].expand(half, height, width)
    rows = along(height)[:, :, None].expand(half, height, width)
    return torch.cat([columns, rows])
