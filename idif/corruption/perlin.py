"""Thresholded Perlin noise: the shapes of synthetic defects, batched and determined by seeds.

Gradient noise as in DRAEM and DeSTSeg (``rand_perlin_2d_np``). Only elementwise arithmetic and gathers are
used, with sines from a precomputed table, so that an item's mask does not depend on its batch.
"""

import math

import numpy as np
import torch
from torch import Tensor

from idif.corruption.streams import Stream
from idif.randomness import integers

MAX_EXPONENT = 5
"""Cells along an axis are 2^k with k drawn from 0..5."""

THRESHOLD = 0.5

_SIDE = 2**MAX_EXPONENT + 1
"""Lattice points along an axis at the highest frequency; lower frequencies use the first of them."""

_DIRECTIONS = 2**14
"""Number of directions of gradients and rotations, 0.022 degrees apart."""

_CHUNK_BYTES = 2**21
"""Bytes of one intermediate on the CPU, small enough for its cache: the computation is memory-bound."""


def _direction_table() -> Tensor:
    """float32 [2,_DIRECTIONS]: cosine and sine of each direction, from -pi upwards."""
    angles = (np.arange(_DIRECTIONS) / _DIRECTIONS * 2 - 1) * np.pi
    return torch.from_numpy(np.stack([np.cos(angles), np.sin(angles)]).astype(np.float32))


_TABLE = _direction_table()


def perlin_masks(seeds: Tensor, size: int) -> Tensor:
    """Masks of Perlin noise above `THRESHOLD`; some are empty, as in DeSTSeg.

    Each item draws 2^k cells per axis with k in 0..5, a gradient per lattice point, and an angle within
    +-90 degrees by which the field is rotated about its center. Pixels from outside the field are normal.

    Args:
        seeds: int64 [N].
        size: height and width in pixels.

    Returns:
        bool [N,size,size], true where anomalous, on the device of ``seeds``.
    """
    items = max(1, _CHUNK_BYTES // (4 * size * size)) if seeds.device.type == "cpu" else max(1, len(seeds))
    cells = 2 ** integers(seeds, Stream.PERLIN_FREQUENCY, 2, MAX_EXPONENT + 1)
    # a quarter to three quarters of the table is -90 to +90 degrees
    turn = integers(seeds, Stream.PERLIN_ANGLE, 1, _DIRECTIONS // 2 + 1) + _DIRECTIONS // 4
    gradient = integers(seeds, Stream.PERLIN_GRADIENT, _SIDE * _SIDE, _DIRECTIONS)
    table = _TABLE.to(seeds.device)
    masks = torch.empty(len(seeds), size, size, dtype=torch.bool, device=seeds.device)
    for start in range(0, len(seeds), items):
        part = slice(start, start + items)
        y, x, inside = _rotated_positions(table[:, turn[part, 0]], size)
        noise = perlin_noise(table[:, gradient[part]], cells[part], y, x, size)
        masks[part] = (noise > THRESHOLD) & inside
    return masks


def _rotated_positions(direction: Tensor, size: int) -> tuple[Tensor, Tensor, Tensor]:
    """Source position of each pixel when the field is rotated about its center.

    Args:
        direction: float32 [2,n], cosine and sine of the angle.

    Returns:
        y and x in pixels, float32 [n,size,size], clamped to the field, and bool [n,size,size]: whether it
        lies inside.
    """
    center = (size - 1) / 2
    offset = torch.arange(size, dtype=torch.float32, device=direction.device) - center
    cos, sin = direction[0, :, None], direction[1, :, None]
    y = ((offset * cos)[:, :, None] + (offset * sin)[:, None, :]) + center
    x = ((offset * cos)[:, None, :] - (offset * sin)[:, :, None]) + center
    clamped_y, clamped_x = y.clamp(0, size - 1), x.clamp(0, size - 1)
    return clamped_y, clamped_x, (clamped_y == y) & (clamped_x == x)


def perlin_noise(gradients: Tensor, cells: Tensor, y: Tensor, x: Tensor, size: int) -> Tensor:
    """Gradient noise with the fade 6t^5 - 15t^4 + 10t^3, times sqrt(2); zero at every lattice point.

    Args:
        gradients: float32 [2,n,33*33], the y and x component at each lattice point.
        cells: int64 [n,2], cells along y and x.
        y: float32 [n,H,W], positions in pixels 0..size-1.
        x: float32 [n,H,W].
        size: pixels along the field's axis.

    Returns:
        float32 [n,H,W], about -1..1.
    """
    # by a tensor: dividing by a number multiplies by its reciprocal on CUDA, which rounds differently
    per_pixel = cells / torch.full_like(cells, size)
    v, u = y * per_pixel[:, 0, None, None], x * per_pixel[:, 1, None, None]
    row, column = v.floor(), u.floor()
    v, u = v - row, u - column
    item = torch.arange(len(cells), device=y.device)[:, None, None] * (_SIDE * _SIDE)
    corner = row.to(torch.int64) * _SIDE + column.to(torch.int64) + item
    flat_y, flat_x = gradients[0].reshape(-1), gradients[1].reshape(-1)

    def slope(down: int, right: int) -> Tensor:
        """Dot product of the gradient at one corner of each pixel's cell with the offset from that corner."""
        at = (corner + (down * _SIDE + right)).reshape(-1)
        along_y = flat_y.index_select(0, at).view_as(v) * (v - down)
        return along_y + flat_x.index_select(0, at).view_as(u) * (u - right)

    fade_v, fade_u = _fade(v), _fade(u)
    left, right = slope(0, 0), slope(0, 1)
    top = left + fade_u * (right - left)
    left, right = slope(1, 0), slope(1, 1)
    bottom = left + fade_u * (right - left)
    return (top + fade_v * (bottom - top)) * math.sqrt(2)


def _fade(t: Tensor) -> Tensor:
    return t * t * t * (t * (t * 6 - 15) + 10)
