"""`FusionFlow`: one invertible coupling over the latents of all scales."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from idif.methods.msflow.layers import ChannelNorm, Permutation, conv3x3, resize, sum_per_sample

CLAMP = 1.9
"""Log-scales are 0.636 * 1.9 * atan(s / 1.9): 1.9 at most, 0.636 being about 2 / pi."""
ATAN_FACTOR = 0.636
LIMIT = 1e6
"""Outputs are clamped to this magnitude."""


class FusionSubnet(nn.Module):
    """Scales and shifts of one half of every scale, computed from the other halves of all scales."""

    def __init__(self, halves: Sequence[int]) -> None:
        """``halves``: channels of each scale's half."""
        super().__init__()
        self.halves = tuple(halves)
        total = sum(halves)
        width = max(1, total // 4)
        self.mix = nn.Sequential(
            conv3x3(total, width), ChannelNorm(width), nn.ReLU(), conv3x3(width, total), nn.ReLU()
        )
        self.heads = nn.ModuleList(conv3x3(half, 2 * half) for half in halves)

    def forward(self, halves: Sequence[Tensor]) -> list[tuple[Tensor, Tensor]]:
        """(log-scale, shift) of each scale, like its half in shape and type, whatever the precision inside.

        Args:
            halves: [N,C/2,h,w] of each scale.
        """
        coarsest = min(((x.shape[2], x.shape[3]) for x in halves), key=lambda size: size[0] * size[1])
        pooled = torch.cat([F.adaptive_avg_pool2d(x, coarsest) for x in halves], dim=1)
        mixed = self.mix(pooled).split(self.halves, dim=1)
        answer = []
        for x, joint, head in zip(halves, mixed, self.heads, strict=True):
            raw, shift = head(x + resize(joint, (x.shape[2], x.shape[3]))).to(x.dtype).chunk(2, dim=1)
            answer.append((ATAN_FACTOR * CLAMP * torch.atan(raw / CLAMP), shift))
        return answer


class FusionFlow(nn.Module):
    """A fixed permutation of each scale, then a coupling in both directions: each half changes the other."""

    def __init__(self, channels: Sequence[int], seed: int) -> None:
        """``channels`` of each scale; ``seed`` determines the permutations."""
        super().__init__()
        self.permutations = nn.ModuleList(
            Permutation(count, seed, f"fusion.{number}") for number, count in enumerate(channels)
        )
        halves = [count // 2 for count in channels]
        self.from_second, self.from_first = FusionSubnet(halves), FusionSubnet(halves)

    def forward(self, latents: Sequence[Tensor]) -> tuple[list[Tensor], Tensor]:
        """Fused latents [N,C,h,w] of each scale, and the log-determinant [N] of the whole."""
        permuted = [permute(x) for permute, x in zip(self.permutations, latents, strict=True)]
        first, second = _halves(permuted)
        first, log_det = _apply(first, self.from_second(second))
        second, other = _apply(second, self.from_first(first))
        fused = [torch.cat(pair, dim=1) for pair in zip(first, second, strict=True)]
        return fused, log_det + other

    def inverse(self, fused: Sequence[Tensor]) -> list[Tensor]:
        """The latents whose output of `forward` is ``fused``; exact within ±`LIMIT`."""
        first, second = _halves(fused)
        second = _undo(second, self.from_first(first))
        first = _undo(first, self.from_second(second))
        latents = []
        for permutation, one, two in zip(self.permutations, first, second, strict=True):
            assert isinstance(permutation, Permutation)
            latents.append(permutation.inverse(torch.cat([one, two], dim=1)))
        return latents


def _halves(scales: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
    pairs = [x.chunk(2, dim=1) for x in scales]
    return [first for first, _ in pairs], [second for _, second in pairs]


def _apply(halves: Sequence[Tensor], affine: Sequence[tuple[Tensor, Tensor]]) -> tuple[list[Tensor], Tensor]:
    """The scaled and shifted halves, and the log-determinant [N]."""
    changed = [
        (x * log_scale.exp() + shift).clamp(-LIMIT, LIMIT)
        for x, (log_scale, shift) in zip(halves, affine, strict=True)
    ]
    return changed, torch.stack([sum_per_sample(log_scale) for log_scale, _ in affine]).sum(dim=0)


def _undo(halves: Sequence[Tensor], affine: Sequence[tuple[Tensor, Tensor]]) -> list[Tensor]:
    return [(y - shift) * (-log_scale).exp() for y, (log_scale, shift) in zip(halves, affine, strict=True)]
