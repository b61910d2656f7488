"""`ParallelFlow`: the normalizing flow of one scale, conditioned on positions."""

from math import expm1, log

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from idif.methods.msflow.layers import ChannelNorm, Permutation, conv3x3, sum_per_sample
from idif.methods.msflow.position import position_code

SOFT_CLAMP = 1.9
"""Largest magnitude of a log-scale."""
SUBNET_SCALE = 0.1
"""Factor of a subnet's output, which starts a block near the identity."""
SOFTPLUS_SCALE, SOFTPLUS_BETA = 0.1, 0.5
"""The global scale is 0.1 softplus(g) with sharpness 0.5, as in FrEIA 0.2."""


class AffineBlock(nn.Module):
    """One block: affine coupling of two halves, global affine, fixed permutation."""

    def __init__(self, channels: int, position_channels: int, seed: int, place: str) -> None:
        super().__init__()
        half = channels // 2
        width = half + position_channels
        self.subnet = nn.Sequential(
            conv3x3(width, width), ChannelNorm(width), nn.ReLU(), conv3x3(width, 2 * half)
        )
        one = log(expm1(SOFTPLUS_BETA / SOFTPLUS_SCALE)) / SOFTPLUS_BETA
        self.raw_scale = nn.Parameter(torch.full((channels, 1, 1), one))
        self.offset = nn.Parameter(torch.zeros(channels, 1, 1))
        self.permutation = Permutation(channels, seed, place)

    def forward(self, x: Tensor, code: Tensor) -> tuple[Tensor, Tensor]:
        """The block's output [N,C,h,w] and the log-determinant of its Jacobian [N].

        Args:
            x: [N,C,h,w].
            code: [P,h,w], the position code.
        """
        kept, changed = x.chunk(2, dim=1)
        log_scale, shift = self._affine(kept, code)
        scale = self._global_scale()
        coupled = torch.cat([kept, changed * log_scale.exp() + shift], dim=1)
        log_det = sum_per_sample(log_scale) + x.shape[2] * x.shape[3] * scale.log().sum()
        output: Tensor = self.permutation(coupled * scale + self.offset)
        return output, log_det

    def inverse(self, y: Tensor, code: Tensor) -> Tensor:
        """The input of `forward` whose output is ``y``."""
        kept, changed = ((self.permutation.inverse(y) - self.offset) / self._global_scale()).chunk(2, dim=1)
        log_scale, shift = self._affine(kept, code)
        return torch.cat([kept, (changed - shift) * (-log_scale).exp()], dim=1)

    def _affine(self, kept: Tensor, code: Tensor) -> tuple[Tensor, Tensor]:
        """Log-scale and shift of the other half, in the type of ``kept`` whatever the subnet's precision."""
        condition = torch.cat([kept, code.expand(len(kept), -1, -1, -1)], dim=1)
        raw, shift = (self.subnet(condition).to(kept.dtype) * SUBNET_SCALE).chunk(2, dim=1)
        return SOFT_CLAMP * raw.tanh(), shift

    def _global_scale(self) -> Tensor:
        """[C,1,1], above zero."""
        return SOFTPLUS_SCALE * F.softplus(self.raw_scale, SOFTPLUS_BETA)


class ParallelFlow(nn.Module):
    """A chain of `AffineBlock` on the features of one scale."""

    def __init__(self, channels: int, blocks: int, position_channels: int, seed: int, place: str) -> None:
        """``blocks`` blocks; ``seed`` and ``place`` determine their permutations."""
        super().__init__()
        self.position_channels = position_channels
        self.blocks = nn.ModuleList(
            AffineBlock(channels, position_channels, seed, f"{place}.{number}") for number in range(blocks)
        )

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Latents [N,C,h,w] of ``x`` [N,C,h,w], and the log-determinant [N]."""
        code = position_code(self.position_channels, x.shape[2], x.shape[3], x)
        total = x.new_zeros(len(x))
        for block in self.blocks:
            x, log_det = block(x, code)
            total = total + log_det
        return x, total

    def inverse(self, z: Tensor) -> Tensor:
        """The input whose latents are ``z``."""
        code = position_code(self.position_channels, z.shape[2], z.shape[3], z)
        for block in reversed(self.blocks):
            assert isinstance(block, AffineBlock)
            z = block.inverse(z, code)
        return z
