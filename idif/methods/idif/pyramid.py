"""The spatial pyramid of DeSTSeg's segmentation head."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class SpatialPyramid(nn.Module):
    """Dilated 3x3 convolutions and the mean of the image, fused by a 3x3 convolution: [N,C,h,w] to the same.

    torchvision's ASPP, that of DeepLabv3, has a 1x1 convolution beside the dilated ones, fuses by 1x1 and
    drops half of the result while training.
    """

    def __init__(self, channels: int, rates: Sequence[int]) -> None:
        """A new pyramid.

        Args:
            channels: C.
            rates: dilations of the convolutions.
        """
        super().__init__()
        self.pooled = _convolution(channels, channels, 1)
        self.dilated = nn.ModuleList(_convolution(channels, channels, 3, rate) for rate in rates)
        self.fuse = _convolution((1 + len(rates)) * channels, channels, 3)

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        mean = self.pooled(F.adaptive_avg_pool2d(x, 1)).expand(-1, -1, *x.shape[-2:])
        fused: Tensor = self.fuse(torch.cat([mean, *(branch(x) for branch in self.dilated)], dim=1))
        return fused


def _convolution(before: int, after: int, kernel: int, rate: int = 1) -> nn.Sequential:
    padding = rate * (kernel // 2)
    return nn.Sequential(
        nn.Conv2d(before, after, kernel, padding=padding, dilation=rate, bias=False),
        nn.BatchNorm2d(after),
        nn.ReLU(inplace=True),
    )
