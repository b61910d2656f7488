"""View-wise dropout: view masks while training."""

from typing import Literal

import torch
from torch import Tensor

from idif.randomness import uniform

STREAM = 6
"""Random stream of the views' seeds used for dropout."""


def drop_views(present: Tensor, seeds: Tensor, probability: float, per: Literal["sample", "step"]) -> Tensor:
    """View-wise dropout: each present view is dropped with ``probability``, never a sample's last.

    Args:
        present: bool [B,V].
        seeds: int64 [B,V], one for each view; with ``per: step`` the first sample's seeds are used for all.
        probability: probability that a view is dropped.
        per: whether each sample or each step draws a mask.

    Returns:
        bool [B,V], a subset of ``present``. A sample that would lose all its views keeps the one whose
        random number was closest to being kept.
    """
    if probability == 0:
        return present
    chance = uniform(seeds, STREAM, 1)[..., 0]
    if per == "step":
        chance = chance[:1].expand_as(chance)
    kept = present & (chance >= probability)
    best = torch.where(present, chance, -1.0).argmax(dim=1, keepdim=True)
    rescued = torch.zeros_like(present).scatter(1, best, True) & present
    return torch.where(kept.any(dim=1, keepdim=True), kept, rescued)
