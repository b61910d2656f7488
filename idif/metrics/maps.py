"""The anomaly maps of one update, on the host or on an accelerator: what counting needs to know of them.

Both kinds give the same answers; `DeviceMaps` fetches counts and the scores of anomalous pixels, never maps.
"""

from collections.abc import Sequence
from typing import Protocol

import cv2
import numpy as np
import torch
from torch import Tensor

from idif.metrics.counts import Array, ArrayLike, IntArray, ScoreCounts, as_numpy, distinct, fuse
from idif.metrics.half import HALF
from idif.metrics.lanes import in_lanes
from idif.metrics.windows import Window

# cv2.calcHist counts in float32, exact to 2^24.
_HISTOGRAM_PIXELS = 1 << 24


class Maps(Protocol):
    """Maps [N,H,W], flattened to M scores: float16, or taken as float32."""

    half: bool
    size: int

    def half_histogram(self) -> IntArray:
        """How often each float16 bit pattern occurs: [65536]. Of float16 maps only."""

    def not_finite(self) -> int:
        """How many scores are NaN or infinite. Of float32 maps only."""

    def pick(self, at: IntArray) -> Array:
        """The scores at these places [A], on the host."""

    def part(self, start: int, stop: int) -> Array | Tensor:
        """A copy of the scores from ``start`` to ``stop``, where the maps are. Of float32 maps only."""

    def count(self, windows: Sequence[Window], start: int) -> Array:
        """Count the scores from ``start`` on in the windows; returns the scores outside all, on the host."""


def read_maps(maps: ArrayLike, lanes: int) -> Maps:
    """The maps where they are. Numbers of other kinds are taken as float32.

    Raises:
        ValueError: the maps do not hold real numbers.
    """
    if isinstance(maps, Tensor) and not on_host(maps):
        if maps.is_complex():
            raise ValueError(f"maps must be real numbers, not {maps.dtype}")
        return DeviceMaps(maps.detach())
    array = as_numpy(maps)
    if array.dtype.kind not in "fiub":
        raise ValueError(f"maps must be real numbers, not {array.dtype}")
    return HostMaps(array, lanes)


def on_host(maps: Tensor) -> bool:
    """Whether numpy can read a tensor where it is."""
    return maps.device.type == "cpu"


def distinct_scores(parts: Sequence[Array | Tensor]) -> tuple[Array, IntArray]:
    """The distinct scores of all parts, ascending, and how often each occurs, wherever the parts are."""
    arrays = [part for part in parts if not isinstance(part, Tensor)]
    tensors = [part for part in parts if isinstance(part, Tensor)]
    found = [distinct(np.concatenate(arrays))] if arrays else []
    for device in {part.device for part in tensors}:
        there = torch.cat([part for part in tensors if part.device == device])
        values, totals = torch.unique(there, return_counts=True)
        found.append((values.cpu().numpy(), totals.cpu().numpy()))
    if len(found) == 1:
        return found[0]
    none = [np.zeros(totals.size, np.int64) for _, totals in found]
    whole = fuse([ScoreCounts(v, v, t, zero, zero) for (v, t), zero in zip(found, none, strict=True)])
    return whole.low, whole.normal


class HostMaps:
    """Maps that numpy can read, counted by a few threads at once."""

    def __init__(self, maps: Array, lanes: int) -> None:
        self.half = maps.dtype == np.float16
        with np.errstate(over="ignore"):
            kept = maps if self.half else maps.astype(np.float32, copy=False)
        self._scores = np.ascontiguousarray(kept).ravel()
        self.size = self._scores.size
        self._lanes = lanes

    def half_histogram(self) -> IntArray:
        """See `Maps`."""
        bits = self._scores.view(np.uint16)

        def work(_: int, part: slice) -> IntArray:
            total = np.zeros(HALF, np.int64)
            for start in range(part.start, part.stop, _HISTOGRAM_PIXELS):
                some = bits[start : min(start + _HISTOGRAM_PIXELS, part.stop)]
                total += cv2.calcHist([some[None]], [0], None, [HALF], [0, HALF]).ravel().astype(np.int64)
            return total

        found: IntArray = np.sum(in_lanes(work, self.size, self.size, self._lanes), axis=0)
        return found

    def not_finite(self) -> int:
        """See `Maps`."""
        scores = self._scores
        # Minimum and maximum carry a NaN along, and cost a fraction of isfinite over the whole array.
        if not self.size or (np.isfinite(scores.min()) and np.isfinite(scores.max())):
            return 0
        return int(np.count_nonzero(~np.isfinite(scores)))

    def pick(self, at: IntArray) -> Array:
        """See `Maps`."""
        return self._scores[at]

    def part(self, start: int, stop: int) -> Array:
        """See `Maps`."""
        return self._scores[start:stop].copy()

    def count(self, windows: Sequence[Window], start: int) -> Array:
        """See `Maps`."""
        bits = self._scores[start:].view(np.uint32)
        for window in windows:
            window.make_room(bits.size)

        def work(lane: int, part: slice) -> Array:
            rest = bits[part]
            for window in windows:
                rest = window.count(rest, lane)
            return rest.view(np.float32)

        return np.concatenate(in_lanes(work, bits.size, bits.size, self._lanes))


class DeviceMaps:
    """Maps on an accelerator."""

    def __init__(self, maps: Tensor) -> None:
        self.half = maps.dtype == torch.float16
        self._scores = (maps if self.half else maps.float()).contiguous().flatten()
        self.size = self._scores.numel()

    def half_histogram(self) -> IntArray:
        """See `Maps`."""
        bits = self._scores.view(torch.int16).int() & 0xFFFF
        found: IntArray = torch.bincount(bits, minlength=HALF).cpu().numpy()
        return found

    def not_finite(self) -> int:
        """See `Maps`."""
        return int((~torch.isfinite(self._scores)).sum())

    def pick(self, at: IntArray) -> Array:
        """See `Maps`."""
        chosen = self._scores[torch.from_numpy(at).to(self._scores.device)]
        return as_numpy(chosen)

    def part(self, start: int, stop: int) -> Tensor:
        """See `Maps`."""
        return self._scores[start:stop].clone()

    def count(self, windows: Sequence[Window], start: int) -> Array:
        """See `Maps`."""
        rest = self._scores[start:].view(torch.int32)
        for window in windows:
            rest = window.count_tensor(rest)
        return as_numpy(rest.view(torch.float32))
