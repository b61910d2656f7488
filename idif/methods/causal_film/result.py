"""The result: stills of the finished weld -> one vector of each sample."""

from typing import Literal

import torch
from torch import Tensor, nn

from idif.methods.causal_film.config import CausalFiLMConfig, PoolingConfig

SMALLEST = 1e-6
"""Features are raised to this value before their power is taken."""


class GeM(nn.Module):
    """Generalized mean over tokens with a learned exponent of at least 1: [P,N,C] -> [P,C], in float32."""

    def __init__(self, exponent: float) -> None:
        super().__init__()
        self.exponent = nn.Parameter(torch.tensor(exponent))

    def forward(self, tokens: Tensor) -> Tensor:
        """Tokens of any floating type."""
        power = self.exponent.float().clamp(min=1.0)
        mean = tokens.float().clamp(min=SMALLEST).pow(power).mean(dim=-2)
        return mean.pow(1 / power)


class Pooling(nn.Module):
    """One of a still's vectors with a norm of its own: [P,N,C] or [P,C] -> [P,C]."""

    def __init__(self, config: PoolingConfig, channels: int, exponent: float) -> None:
        super().__init__()
        self.config = config
        self.gem = GeM(exponent) if config.pool == "gem" else None
        self.norm = nn.LayerNorm(channels)

    def forward(self, features: Tensor) -> Tensor:
        """The pooled and normalized vectors of stills."""
        tokens = features[:, self.config.skip :] if self.config.pool != "none" else features
        if self.gem is not None:
            tokens = self.gem(tokens)
        elif self.config.pool == "mean":
            tokens = tokens.mean(dim=1)
        normalized: Tensor = self.norm(tokens)
        return normalized


class ResultEncoder(nn.Module):
    """Stills -> one vector of each still: poolings, a gate on their channels, and a projection."""

    def __init__(self, config: CausalFiLMConfig, channels: tuple[int, ...]) -> None:
        """For poolings of so many ``channels`` each."""
        super().__init__()
        poolings = [
            Pooling(pooling, size, config.gem_exponent)
            for pooling, size in zip(config.poolings, channels, strict=True)
        ]
        self.arrays = tuple(pooling.array for pooling in config.poolings)
        self.poolings = nn.ModuleList(poolings)
        size, width = sum(channels), config.width
        self.gate = nn.Sequential(
            nn.Linear(size, size // 4), nn.SiLU(), nn.Linear(size // 4, size), nn.Sigmoid()
        )
        self.project = nn.Sequential(
            nn.Linear(size, width), nn.LayerNorm(width), nn.SiLU(), nn.Linear(width, width)
        )

    def forward(self, arrays: dict[str, Tensor], view_mask: Tensor) -> Tensor:
        """Vectors float32 [B,V,D], zero for absent views.

        Args:
            arrays: {array: [B,V,...]} of the poolings.
            view_mask: bool [B,V].
        """
        pooled = zip(self.poolings, self.arrays, strict=True)
        joined = torch.cat([pooling(arrays[name][view_mask].float()) for pooling, name in pooled], dim=1)
        stills = self.project(joined * self.gate(joined)).float()
        views: Tensor = stills.new_zeros(*view_mask.shape, stills.shape[1])
        views[view_mask] = stills
        return views


def over_views(views: Tensor, view_mask: Tensor, rule: Literal["max", "mean"]) -> Tensor:
    """Vectors [B,V,D] of views -> [B,D] of samples, zero for samples without views."""
    if rule == "mean":
        total: Tensor = (views * view_mask[..., None]).sum(dim=1)
        return total / view_mask.sum(dim=1, keepdim=True).clamp(min=1)
    best = views.masked_fill(~view_mask[..., None], -torch.inf).amax(dim=1)
    return torch.where(view_mask.any(dim=1, keepdim=True), best, 0.0)
