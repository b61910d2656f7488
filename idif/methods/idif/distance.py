"""Cosine distance between teacher and student: the distillation loss (Eq. 1) and the anomaly maps."""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor


def cosine_distance(student: Tensor, teacher: Tensor) -> Tensor:
    """1 - cosine over channels, in float32: two [B,V,C,h,w] -> [B,V,h,w] in 0..2."""
    return 1 - F.cosine_similarity(student.float(), teacher.float(), dim=2, eps=1e-6)


def distillation_loss(student: dict[str, Tensor], teacher: dict[str, Tensor], view_mask: Tensor) -> Tensor:
    """Eq. 1: mean over positions, mean over the kept views, sum over the scales. A scalar.

    The paper's sum runs over all views; dropped views leave the loss here.
    """
    total = torch.zeros((), device=view_mask.device)
    for name, features in student.items():
        per_view = cosine_distance(features, teacher[name]).mean(dim=(2, 3))
        total = total + (per_view * view_mask).sum() / view_mask.sum()
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
