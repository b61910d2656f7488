"""Compact storage: features as integer levels, uint8 or int8, times float16 scales.

An array has one scale per sample (and variant) and position along its scaled axis: the axis ``channel``, or
else the last of its own axes. An array without own axes has one scale per sample (and variant).
"""

from collections.abc import Collection

import torch
from torch import Tensor

from cache.format.layout import scaled_axes
from idif.data.arrays import ArraySpec

UNSIGNED_LEVELS = 255
SIGNED_LEVELS = 127
LARGEST_SCALE = {UNSIGNED_LEVELS: 256.75, SIGNED_LEVELS: 515.5}
"""Largest scale whose product with the number of levels is finite in float16."""


def quantize(features: Tensor, array: ArraySpec) -> tuple[Tensor, Tensor]:
    """Round features to levels counted from zero to the largest magnitude under the same scale.

    The levels are computed with the scale already rounded to float16, so this rounding adds no error: the
    error of a feature is at most half a scale, plus float16's rounding of the product.

    Args:
        features: [B,...] of ``array``, finite in float16, and not negative for an unsigned array.

    Returns:
        Levels [B,...], uint8 in 0..255 or int8 in -127..127, and scales float16 [B,...] over `scaled_axes`,
        on the same device.
    """
    largest = SIGNED_LEVELS if array.signed else UNSIGNED_LEVELS
    scaled = {0, *(1 + axis for axis in scaled_axes(array))}
    reduced = [axis for axis in range(features.ndim) if axis not in scaled]
    magnitudes = features.float().abs() if array.signed else features.float()
    top = magnitudes.amax(dim=reduced) if reduced else magnitudes
    scales = (top / largest).half()
    # for the smallest float16 numbers rounding down could lose a third, so these are rounded up
    up = (scales.view(torch.int16) + 1).view(torch.float16)
    scales = torch.where(scales.float() * (largest + 0.5) < top, up, scales).clamp_max(LARGEST_SCALE[largest])
    steps = _spread(torch.where(scales > 0, scales, 1).float(), features.shape, scaled)
    levels = (features.float() / steps).round_().clamp_(-largest if array.signed else 0, largest)
    return levels.to(torch.int8 if array.signed else torch.uint8), scales


def dequantize(levels: Tensor, scales: Tensor, axes: Collection[int]) -> Tensor:
    """Inverse of `quantize`: features float16, of the levels' shape.

    A level has 8 bits and a scale 11, so the product is exact before a single rounding: all devices give
    the same bits.

    Args:
        axes: the axes of ``levels`` that ``scales`` also has, in the same order: 0 and the scaled ones.
    """
    return levels.half().mul_(_spread(scales, levels.shape, axes))


def _spread(scales: Tensor, shape: torch.Size, axes: Collection[int]) -> Tensor:
    """View of the scales that broadcasts to the given shape."""
    return scales.reshape([size if axis in axes else 1 for axis, size in enumerate(shape)])
