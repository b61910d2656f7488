"""Cosine distance between teacher and student: the distillation loss (Eq. 1) and the anomaly maps."""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from idif.methods.view_mean import mean_over_kept

SHORTEST = 1e-6
"""Lower bound of a feature's length, so that the distance of a zero feature is defined: 1."""


def cosine_distance(student: Tensor, teacher: Tensor) -> Tensor:
    """1 - cosine over channels, in float32: two [B,V,C,h,w] -> [B,V,h,w] in 0..2 up to rounding.

    Computed as a . b / (|a| |b|), without the normalized features that ``F.cosine_similarity`` saves for the
    gradient. The teacher gets the student's memory layout: mixed layouts take twice as long on a CPU.
    """
    student = student.float()
    laid_out = torch.empty_like(student).copy_(teacher)
    a, b = (torch.linalg.vector_norm(f, dim=2).clamp_min(SHORTEST) for f in (student, laid_out))
    cosine: Tensor = (student * laid_out).sum(dim=2) / (a * b)
    return 1 - cosine


def distillation_loss(student: dict[str, Tensor], teacher: dict[str, Tensor], view_mask: Tensor) -> Tensor:
    """Eq. 1: mean over positions, mean over the kept views, sum over the scales. A scalar.

    The paper sums over all views; here dropped views do not contribute to the loss.
    """
    total = torch.zeros((), device=view_mask.device)
    for name, features in student.items():
        per_view = cosine_distance(features, teacher[name]).mean(dim=(2, 3))
        total = total + mean_over_kept(per_view, view_mask)
    return total


def combine_maps(
    student: dict[str, Tensor],
    teacher: dict[str, Tensor],
    view_mask: Tensor,
    size: tuple[int, int],
    how: Literal["mean", "product"],
) -> Tensor:
    """Anomaly maps float32 [B,V,H,W] with (H, W) = ``size``: zero on dropped views.

    Each scale's distance is upsampled bilinearly; scales are combined by their mean, or by their
    product as DeSTSeg does.
    """
    maps = [
        F.interpolate(cosine_distance(f, teacher[name]), size=size, mode="bilinear", align_corners=False)
        for name, f in student.items()
    ]
    stacked = torch.stack(maps)
    combined = stacked.mean(dim=0) if how == "mean" else stacked.prod(dim=0)
    return combined * view_mask[:, :, None, None]
