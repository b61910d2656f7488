"""The anomaly maps of one update, on the host or on an accelerator: what counting needs to know of them.

Both kinds give the same answers; `DeviceMaps` fetches counts and the scores of anomalous pixels, never maps.
"""

from collections.abc import Sequence
from typing import Protocol

import cv2
import numpy as np
import torch
from torch import Tensor

from idif.metrics.binned_scores import Window
from idif.metrics.float16_counts import HALF
from idif.metrics.score_counts import Array, ArrayLike, IntArray, as_numpy, distinct
from idif.metrics.threads import map_in_threads

# cv2.calcHist counts in float32, exact to 2^24.
_HISTOGRAM_PIXELS = 1 << 24


class Maps(Protocol):
    """Maps [N,H,W], flattened to M scores: float16, or taken as float32."""

    half: bool
    size: int

    @property
    def scores(self) -> Array | Tensor:
        """[M], contiguous, float16 or float32, where the maps are. It may be the caller's own: read only."""

    def half_histogram(self) -> IntArray:
        """How often each float16 bit pattern occurs: [65536]. Of float16 maps only."""

    def not_finite(self) -> int:
        """How many scores are NaN or infinite. Of float32 maps only."""


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


def together(parts: Sequence[Array | Tensor]) -> Array | Tensor:
    """The scores of all parts, one or more, in their order; on the accelerator where some are there."""
    device = next((part.device for part in parts if isinstance(part, Tensor)), None)
    if device is None:
        return np.concatenate(parts)
    return torch.cat([torch.as_tensor(part).to(device) for part in parts])


def distinct_scores(scores: Array | Tensor) -> tuple[Array, IntArray]:
    """The distinct scores, ascending, and how often each occurs, on the host."""
    if isinstance(scores, Tensor):
        values, totals = torch.unique(scores, return_counts=True)
        return values.cpu().numpy(), totals.cpu().numpy()
    return distinct(scores)


def pick(scores: Array | Tensor, at: IntArray) -> Array:
    """The scores at these places [A], on the host."""
    if isinstance(scores, Tensor):
        return as_numpy(scores[torch.from_numpy(at).to(scores.device)])
    found: Array = scores[at]
    return found


def count_in(windows: Sequence[Window], scores: Array | Tensor, lanes: int) -> Array | Tensor:
    """Count float32 scores [M] in the windows where they are; returns those outside all, in their order."""
    for window in windows:
        scores = window.count_tensor(scores) if isinstance(scores, Tensor) else window.count(scores, lanes)
    return scores


class HostMaps:
    """Maps that numpy can read, counted by a few threads at once."""

    def __init__(self, maps: Array, lanes: int) -> None:
        self.half = maps.dtype == np.float16
        with np.errstate(over="ignore"):
            kept = maps if self.half else maps.astype(np.float32, copy=False)
        self.scores = np.ascontiguousarray(kept).ravel()
        self.size = self.scores.size
        self._lanes = lanes

    def half_histogram(self) -> IntArray:
        """See `Maps`."""
        bits = self.scores.view(np.uint16)

        def work(_: int, part: slice) -> IntArray:
            total = np.zeros(HALF, np.int64)
            for start in range(part.start, part.stop, _HISTOGRAM_PIXELS):
                some = bits[start : min(start + _HISTOGRAM_PIXELS, part.stop)]
                total += cv2.calcHist([some[None]], [0], None, [HALF], [0, HALF]).ravel().astype(np.int64)
            return total

        found: IntArray = np.sum(map_in_threads(work, self.size, self.size, self._lanes), axis=0)
        return found

    def not_finite(self) -> int:
        """See `Maps`."""
        scores = self.scores
        # Minimum and maximum carry a NaN along, and cost a fraction of isfinite over the whole array.
        if not self.size or (np.isfinite(scores.min()) and np.isfinite(scores.max())):
            return 0
        return int(np.count_nonzero(~np.isfinite(scores)))


class DeviceMaps:
    """Maps on an accelerator."""

    def __init__(self, maps: Tensor) -> None:
        self.half = maps.dtype == torch.float16
        self.scores = (maps if self.half else maps.float()).contiguous().flatten()
        self.size = self.scores.numel()

    def half_histogram(self) -> IntArray:
        """See `Maps`."""
        bits = self.scores.view(torch.int16).int() & 0xFFFF
        found: IntArray = torch.bincount(bits, minlength=HALF).cpu().numpy()
        return found

    def not_finite(self) -> int:
        """See `Maps`."""
        return int((~torch.isfinite(self.scores)).sum())
