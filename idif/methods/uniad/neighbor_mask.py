"""The neighbor mask: a token must be reconstructed from tokens that are not its neighbors."""

import torch
from torch import Tensor

from idif.errors import ConfigError


def neighbors(grid: tuple[int, int], size: tuple[int, int]) -> Tensor:
    """Which keys lie in each query's neighborhood, the query's own position among them.

    Args:
        grid: rows and columns of the tokens.
        size: rows and columns of the neighborhood, odd.

    Returns:
        bool [N,N] for N tokens in row-major order: query, key.

    Raises:
        ConfigError: the neighborhood of a token is the whole grid, so that its attention would have no keys.
    """
    near_row, near_column = (_near(count, side) for count, side in zip(grid, size, strict=True))
    near = near_row[:, None, :, None] & near_column[None, :, None, :]
    near = near.flatten(2).flatten(0, 1)
    if near.all(dim=1).any():
        raise ConfigError(
            f"method.neighbor_mask.size: {list(size)} covers the whole grid of {grid[0]}x{grid[1]} tokens "
            "around one of them, which would have no keys; expected a smaller neighborhood, or larger images"
        )
    return near


def _near(count: int, side: int) -> Tensor:
    """bool [count,count]: whether two places are at most ``side // 2`` apart."""
    place = torch.arange(count)
    return (place[:, None] - place).abs() <= side // 2
