"""Layers that the parallel flows and the fusion flow share."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from idif.randomness import numpy_rng


class ChannelNorm(nn.LayerNorm):
    """Layer normalization over the channels of each position of [N,C,h,w]."""

    def forward(self, input: Tensor) -> Tensor:
        """[N,C,h,w], normalized."""
        return super().forward(input.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class Permutation(nn.Module):
    """A fixed permutation of channels, kept in the checkpoint."""

    order: Tensor
    """int64 [C]: input channel of each output channel."""

    def __init__(self, channels: int, seed: int, place: str) -> None:
        """The permutation that ``seed`` gives for ``place``, a name that is unique in the model."""
        super().__init__()
        order = numpy_rng("msflow permutation", seed, place).permutation(channels)
        self.register_buffer("order", torch.from_numpy(order).to(torch.int64))

    def forward(self, x: Tensor) -> Tensor:
        """The channels of [N,C,h,w] in the new order."""
        return x[:, self.order]

    def inverse(self, x: Tensor) -> Tensor:
        """Undo `forward`."""
        return x[:, self.order.argsort()]


def conv3x3(inputs: int, outputs: int) -> nn.Conv2d:
    """A 3x3 convolution that keeps height and width, padded with zeros."""
    return nn.Conv2d(inputs, outputs, 3, padding=1)


def resize(x: Tensor, size: tuple[int, int]) -> Tensor:
    """[N,C,h,w] resized bilinearly to ``size``; corner positions coincide."""
    return F.interpolate(x, size, mode="bilinear", align_corners=True)


def sum_per_sample(x: Tensor) -> Tensor:
    """[N,...] -> [N]."""
    return x.flatten(1).sum(dim=1)
