"""The anomaly maps of one update, on the host or on an accelerator, and the counting of their pixels there.

Both kinds give the same counts. `DeviceMaps` fetches counts, and of the scores those of anomalous pixels.
"""

from collections.abc import Callable
from functools import cached_property
from typing import NamedTuple, Protocol, TypeVar

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from idif.metrics.float16_counts import PATTERNS
from idif.metrics.score_counts import Array, ArrayLike, IntArray, as_numpy
from idif.metrics.threads import map_in_threads

MAGNITUDE_BITS = 0x7FFFFFFF
"""All bits of a float32 but the sign."""
_OFFSET_BITS = MAGNITUDE_BITS & ~0x3FFFF
"""Slack of the smallest magnitude: one that is less by under 3 % need not move the counts to other cells."""
# cv2.calcHist counts in float32, exact to 2^24.
_HISTOGRAM_PIXELS = 1 << 24
_CHUNK = 1 << 15
"""Scores whose cells are found at a time: what is in between stays in the processor's cache."""


class Magnitudes(NamedTuple):
    """Range of the magnitudes of some scores, see `idif.metrics.float32_counts`."""

    smallest: int = MAGNITUDE_BITS
    """Bits of the smallest magnitude among scores other than zero; all bits set without any."""
    below: int = 0
    """The greatest below zero, 0 where there is none."""
    above: int = 0
    """The greatest above zero, 0 where there is none."""

    def joined(self, other: "Magnitudes") -> "Magnitudes":
        """The range of both."""
        below, above = max(self.below, other.below), max(self.above, other.above)
        return Magnitudes(min(self.smallest, other.smallest), below, above)

    def offset(self, shift: int) -> int:
        """Offset of `float32_cells` with which cell 1 is at the smallest magnitude or just below."""
        return ((self.smallest & _OFFSET_BITS) >> shift) - 1

    def reach(self, shift: int) -> tuple[int, int]:
        """How many cells that span ``shift`` bits there are below and above zero."""
        below, above = ((end >> shift) - self.offset(shift) if end else 0 for end in (self.below, self.above))
        return below, above


class Maps(Protocol):
    """Maps [N,H,W], flattened to M scores: float16, or taken as float32."""

    is_float16: bool
    size: int

    @property
    def scores(self) -> Array | Tensor:
        """[M], contiguous, float16 or float32, where the maps are. It may be the caller's own: read only."""

    def not_finite(self) -> int:
        """How many scores are NaN or infinite. Of float32 maps only."""

    def float16_histogram(self) -> IntArray:
        """How often each float16 bit pattern occurs: [65536]. Of float16 maps only."""

    def magnitudes(self) -> Magnitudes:
        """The range of the scores, which are finite and one or more. Of float32 maps only."""

    def add_cells(self, counts: IntArray, shift: int, offset: int) -> None:
        """Add to ``counts`` [2^n] how many scores lie in each of the `float32_cells`, modulo 2^n.

        Of float32 maps only.
        """

    def zero_bits(self) -> int:
        """Mask of the low bits that are zero in the patterns of all scores. Of float32 maps only."""


def read_maps(maps: ArrayLike, threads: int) -> Maps:
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
    return HostMaps(array, threads)


def on_host(maps: Tensor) -> bool:
    """Whether numpy can read a tensor where it is."""
    return maps.device.type == "cpu"


def gather(scores: Array | Tensor, at: IntArray) -> Array:
    """The scores at these places [A], on the host."""
    if isinstance(scores, Tensor):
        return as_numpy(scores[torch.from_numpy(at).to(scores.device)])
    found: Array = scores[at]
    return found


Bits = TypeVar("Bits", npt.NDArray[np.int32], Tensor)


def float32_cells(bits: Bits, shift: int, offset: int) -> Bits:
    """The cell of each float32 score: 1, 2, ... above zero, -1, -2, ... below, and 0 for zero of either sign.

    Args:
        bits: int32 patterns of finite scores.
        shift: low bits that a cell spans, see `idif.metrics.float32_counts`.
        offset: see `Magnitudes.offset`.
    """
    magnitude = bits & MAGNITUDE_BITS
    sign = (bits >> 31) | 1
    return ((magnitude >> shift) - offset) * (sign * (magnitude > 0))


def _magnitudes(low: float, high: float, smallest: Callable[[], int]) -> Magnitudes:
    """From the least and greatest score, and the smallest magnitude where those do not give it."""
    below, above = np.abs(np.array([min(low, 0), max(high, 0)], np.float32)).view(np.int32).tolist()
    if low > 0 or high < 0:
        nearest = np.abs(np.array([low, high], np.float32)).view(np.int32).min()
        return Magnitudes(int(nearest), below, above)
    return Magnitudes(smallest(), below, above)


class HostMaps:
    """Maps that numpy can read, counted in some threads at once."""

    def __init__(self, maps: Array, threads: int) -> None:
        self.is_float16 = maps.dtype == np.float16
        with np.errstate(over="ignore"):
            scores = maps if self.is_float16 else maps.astype(np.float32, copy=False)
        self.scores = np.ascontiguousarray(scores).ravel()
        self.size = self.scores.size
        self._threads = threads

    @cached_property
    def extremes(self) -> tuple[float, float]:
        """Least and greatest score, NaN where any score is."""
        return float(self.scores.min()), float(self.scores.max())

    def not_finite(self) -> int:
        """See `Maps`."""
        # Minimum and maximum carry a NaN along, and cost a fraction of isfinite over the whole array.
        if not self.size or np.isfinite(self.extremes).all():
            return 0
        return int(np.count_nonzero(~np.isfinite(self.scores)))

    def float16_histogram(self) -> IntArray:
        """See `Maps`."""
        bits = self.scores.view(np.uint16)

        def work(_: int, part: slice) -> IntArray:
            total = np.zeros(PATTERNS, np.int64)
            for start in range(part.start, part.stop, _HISTOGRAM_PIXELS):
                some = bits[start : min(start + _HISTOGRAM_PIXELS, part.stop)]
                counted = cv2.calcHist([some[None]], [0], None, [PATTERNS], [0, PATTERNS])
                total += counted.ravel().astype(np.int64)
            return total

        found: IntArray = np.sum(map_in_threads(work, self.size, self.size, self._threads), axis=0)
        return found

    def magnitudes(self) -> Magnitudes:
        """See `Maps`."""

        def smallest() -> int:
            # Zero wraps around to the greatest number.
            less_one = (self.scores.view(np.uint32) & np.uint32(MAGNITUDE_BITS)) - np.uint32(1)
            return min(int(less_one.min()) + 1, MAGNITUDE_BITS)

        return _magnitudes(*self.extremes, smallest)

    def add_cells(self, counts: IntArray, shift: int, offset: int) -> None:
        """See `Maps`."""
        bits, positive = self.scores.view(np.int32), self.extremes[0] > 0
        ones = torch.ones(_CHUNK, dtype=torch.int64)

        def work(thread: int, part: slice) -> IntArray:
            own = counts if thread == 0 else np.zeros_like(counts)
            into = torch.from_numpy(own)
            for start in range(part.start, part.stop, _CHUNK):
                chunk = bits[start : min(start + _CHUNK, part.stop)]
                # The same, where it is that simple.
                cells = (chunk >> shift) - offset if positive else float32_cells(chunk, shift, offset)
                places = torch.from_numpy((cells & (counts.size - 1)).astype(np.int64))
                into.scatter_add_(0, places, ones[: len(places)])
            return own

        for own in map_in_threads(work, self.size, self.size, self._threads)[1:]:
            counts += own

    def zero_bits(self) -> int:
        """See `Maps`."""
        either = int(np.bitwise_or.reduce(self.scores.view(np.int32))) & MAGNITUDE_BITS
        return ((either & -either) - 1) & MAGNITUDE_BITS


class DeviceMaps:
    """Maps on an accelerator."""

    def __init__(self, maps: Tensor) -> None:
        self.is_float16 = maps.dtype == torch.float16
        self.scores = (maps if self.is_float16 else maps.float()).contiguous().flatten()
        self.size = self.scores.numel()

    @cached_property
    def extremes(self) -> tuple[float, float]:
        """Least and greatest score, NaN where any score is."""
        low, high = torch.stack(torch.aminmax(self.scores)).tolist()
        return low, high

    def not_finite(self) -> int:
        """See `Maps`."""
        if not self.size or np.isfinite(self.extremes).all():
            return 0
        return int((~torch.isfinite(self.scores)).sum())

    def float16_histogram(self) -> IntArray:
        """See `Maps`."""
        bits = self.scores.view(torch.int16).int() & 0xFFFF
        found: IntArray = torch.bincount(bits, minlength=PATTERNS).cpu().numpy()
        return found

    def magnitudes(self) -> Magnitudes:
        """See `Maps`."""

        def smallest() -> int:
            magnitude = self.scores.view(torch.int32) & MAGNITUDE_BITS
            return int(torch.where(magnitude > 0, magnitude, MAGNITUDE_BITS).amin())

        return _magnitudes(*self.extremes, smallest)

    def add_cells(self, counts: IntArray, shift: int, offset: int) -> None:
        """See `Maps`."""
        cells = float32_cells(self.scores.view(torch.int32), shift, offset) & (counts.size - 1)
        counts += torch.bincount(cells, minlength=counts.size).cpu().numpy()

    def zero_bits(self) -> int:
        """See `Maps`."""
        bits = self.scores.view(torch.int32) & MAGNITUDE_BITS
        return int((((bits & -bits) - 1) & MAGNITUDE_BITS).amin())
