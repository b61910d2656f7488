"""Distances of a predicted and an actual result, and how far results are from all being equal."""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

ROUNDING = 1e-10
"""Variance, as a share of the mean squared length, that counts as none."""


def cosine_distance(one: Tensor, other: Tensor) -> Tensor:
    """1 - cosine of vectors [B,D] -> [B]."""
    return 1 - F.cosine_similarity(one, other, dim=1)


def gram_distance(one: Tensor, other: Tensor, reduction: Literal["sum", "mean"] = "sum") -> Tensor:
    """Squared distance of the Gram matrices z zᵀ / D of two vectors [B,D] -> [B], without forming them.

    The squared Frobenius norm of z zᵀ - p pᵀ is |z|⁴ + |p|⁴ - 2 (z·p)², and with s = z + p, d = z - p equal
    to (|s|² |d|² + (s·d)²) / 2, where nothing cancels for nearly equal vectors.

    Args:
        one: z.
        other: p.
        reduction: sum or mean over the D x D entries.
    """
    total, difference = one + other, one - other
    lengths = total.square().sum(dim=1) * difference.square().sum(dim=1)
    size = one.shape[1]
    squared = (lengths + (total * difference).sum(dim=1).square()) / 2 / size**2
    return squared / size**2 if reduction == "mean" else squared


def largest_half(difference: Tensor) -> Tensor:
    """Mean of the larger half of the absolute values of vectors [B,D] -> [B]."""
    size = difference.shape[1]
    return difference.abs().topk(max(1, size // 2), dim=1).values.mean(dim=1)


def mean_over(values: Tensor, chosen: Tensor) -> Tensor:
    """Mean of ``values`` [B] over ``chosen`` bool [B]; 0 if none is."""
    return (values * chosen).sum() / chosen.sum().clamp(min=1)


@torch.no_grad()
def rank_and_spread(vectors: Tensor) -> tuple[Tensor, Tensor]:
    """Effective rank and relative spread of vectors [B,D]: 1 and 0 if all are equal.

    The rank is the exponential of the entropy of the normalized eigenvalues of their covariance (Roy and
    Vetterli, 2007), at most B - 1; the spread is their root mean square distance to their mean, divided by
    the root mean square of their length.
    """
    if len(vectors) == 0:
        return vectors.new_ones(()), vectors.new_zeros(())
    exact = vectors.double()
    centered = exact - exact.mean(dim=0)
    values = torch.linalg.eigvalsh(centered @ centered.T).clamp(min=0)
    tiny, length = torch.finfo(torch.float64).tiny, exact.square().sum()
    # below this, what differs is the rounding of equal vectors
    shares = values / values.sum().clamp(min=tiny).maximum(ROUNDING * length)
    rank = torch.exp(-(shares * shares.clamp(min=tiny).log()).sum())
    spread = (centered.square().sum() / length.clamp(min=tiny)).sqrt()
    return rank.float(), spread.float()
