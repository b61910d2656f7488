"""Necks: layers without parameters between an encoder's taps and the arrays that a store keeps."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from idif.data.arrays import ArraySpec, feature_map
from idif.encoders.options import NeckName

Maps = Mapping[str, Tensor]
"""{tap: float32 [N,C,h,w]}, shallow to deep."""


@dataclass(frozen=True)
class Neck:
    """A function of an encoder's taps, and the specs of its results."""

    arrays: Callable[[Sequence[ArraySpec]], tuple[ArraySpec, ...]]
    """Specs of the taps -> specs of the results."""
    apply: Callable[[Maps], dict[str, Tensor]]
    """Taps -> results."""


def _aligned_arrays(taps: Sequence[ArraySpec]) -> tuple[ArraySpec, ...]:
    channels = sum(tap.shape[0] for tap in taps)
    side = min(tap.shape[-1] for tap in taps)
    signed = any(tap.signed for tap in taps)
    return (feature_map("aligned", channels, side, taps[0].origin, signed=signed),)


def _align(maps: Maps) -> dict[str, Tensor]:
    """All taps at the coarsest grid, corner on corner, one after the other: {aligned: [N,sum of C,h,w]}."""
    taps = list(maps.values())
    size = min((tap.shape[-2:] for tap in taps), key=lambda shape: shape[0] * shape[1])
    resized = [
        tap
        if tap.shape[-2:] == size
        else F.interpolate(tap, size=tuple(size), mode="bilinear", align_corners=True)
        for tap in taps
    ]
    return {"aligned": torch.cat(resized, dim=1)}


def _pooled_arrays(taps: Sequence[ArraySpec]) -> tuple[ArraySpec, ...]:
    return tuple(
        feature_map(f"p{number}", tap.shape[0], (tap.shape[-1] + 1) // 2, tap.origin, signed=tap.signed)
        for number, tap in enumerate(taps, start=1)
    )


def _average_pool(maps: Maps) -> dict[str, Tensor]:
    """3x3 averages at stride 2, padding counted: {p1, p2, ...: [N,C,ceil(h/2),ceil(w/2)]}."""
    return {f"p{n}": F.avg_pool2d(tap, 3, 2, 1) for n, tap in enumerate(maps.values(), start=1)}


def _max_pool(maps: Maps) -> dict[str, Tensor]:
    """3x3 maxima at stride 2: {p1, p2, ...: [N,C,ceil(h/2),ceil(w/2)]}."""
    return {f"p{n}": F.max_pool2d(tap, 3, 2, 1) for n, tap in enumerate(maps.values(), start=1)}


NECKS: dict[NeckName, Neck] = {
    "none": Neck(tuple, dict),
    "aligned": Neck(_aligned_arrays, _align),
    "average-pool": Neck(_pooled_arrays, _average_pool),
    "max-pool": Neck(_pooled_arrays, _max_pool),
}
"""Name in configs and stores -> neck."""
