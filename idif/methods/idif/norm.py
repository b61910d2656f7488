"""The normalization layers of the student, by the config's ``norm``."""

from collections.abc import Callable
from typing import Literal

from torch import nn

Norm = Literal["batch", "group"]

CHANNELS_PER_GROUP = 16


def norm_layer(norm: Norm, views: int = 1) -> Callable[[int], nn.Module]:
    """Factory of normalization layers: channels -> module.

    With ``views`` > 1 the channels are those of V views concatenated, and statistics are per view.
    """
    if norm == "batch":
        return nn.BatchNorm2d

    def group_norm(channels: int) -> nn.Module:
        per_view = channels // views
        return nn.GroupNorm(views * max(1, per_view // CHANNELS_PER_GROUP), channels)

    return group_norm
