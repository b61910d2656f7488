"""Compact storage: features as uint8, with one float16 scale for each sample and channel."""

import torch
from torch import Tensor

LEVELS = 255
LARGEST_SCALE = 256.75
"""The next float16 up, times 255, would no longer be finite."""


def quantize(features: Tensor) -> tuple[Tensor, Tensor]:
    """Round features to 256 levels from zero to the largest of their sample and channel.

    The scale is rounded to float16 first and the levels are counted in it, so its rounding adds no error of
    its own: a feature is off by half a scale at most, and by float16's rounding of the product.

    Args:
        features: [B,V,C,h,w], finite in float16 and nowhere negative (a ReLU's output).

    Returns:
        Levels uint8 [B,V,C,h,w] and scales float16 [B,C], on the same device.
    """
    top = features.float().amax(dim=(1, 3, 4))
    scales = (top / LEVELS).half()
    # among the smallest float16 numbers rounding down could lose a third: there the next one up is taken
    up = (scales.view(torch.int16) + 1).view(torch.float16)
    scales = torch.where(scales.float() * (LEVELS + 0.5) < top, up, scales).clamp_max(LARGEST_SCALE)
    steps = torch.where(scales > 0, scales, 1).float()[:, None, :, None, None]
    levels = (features.float() / steps).round_().clamp_(0, LEVELS)
    return levels.to(torch.uint8), scales


def dequantize(levels: Tensor, scales: Tensor) -> Tensor:
    """The features that `quantize` kept: float16 [B,V,C,h,w].

    A level has 8 bits and a scale 11, so the product is exact before it is rounded once: every device gives
    the same bits.
    """
    return levels.half().mul_(scales[:, None, :, None, None])
