"""Pixel metrics in one pass and bounded memory: P-AUROC, P-AP, P-F1max and AUPRO from three counts by score.

Region overlap averaged over regions is a weighted true-positive rate: an anomalous pixel weighs one over
(its region's size times the number of regions). So AUPRO is the area under a weighted ROC curve.
"""

from collections.abc import Sequence
from typing import Literal

import cv2
import numpy as np

from idif.metrics.counts import (
    Array,
    ArrayLike,
    BoolArray,
    IntArray,
    ScoreCounts,
    absorb,
    as_flags,
    as_numpy,
    check_scores,
    compact,
    count_scores,
    fuse,
)
from idif.metrics.curves import Estimate, best_f1, one_class_reason, precision_area, roc_area

Connectivity = Literal[4, 8]

REGION_UNIT = 1 << 40
"""Weight of a whole region. Whole numbers add up the same in every order, which floats do not; rounding
1/size to 2^-40 moves a region of 65,536 pixels by at most 3e-8."""
_MAX_REGIONS = (1 << 63) // REGION_UNIT - 1
_HALF = 1 << 16
# cv2.calcHist counts in float32, exact to 2^24.
_HISTOGRAM_PIXELS = 1 << 24


def metric_name(fpr_limit: float) -> str:
    """``aupro`` for the limit 0.3, ``aupro@0.1`` for 0.1."""
    return "aupro" if fpr_limit == 0.3 else f"aupro@{fpr_limit:g}"


def aupro(
    maps: ArrayLike, masks: ArrayLike, fpr_limit: float = 0.3, connectivity: Connectivity = 8
) -> float | None:
    """Area under the per-region-overlap curve up to a false-positive rate, divided by that rate. Exact.

    The overlap is averaged over the connected regions of all masks; the false-positive rate is over the
    normal pixels of all images together; the curve is interpolated at the limit.

    Args:
        maps: [N,H,W], finite; higher is more anomalous.
        masks: [N,H,W], bool or 0 and 1; true on anomalous pixels.
        fpr_limit: in (0, 1].
        connectivity: 8 joins pixels that touch at a corner, 4 does not.

    Returns:
        0..1; None where there is no normal or no anomalous pixel.

    Raises:
        ValueError: shapes differ, a score is not finite, a limit or connectivity that cannot be.
    """
    _check_choices((fpr_limit,), connectivity)
    scores, flags = _checked(maps, masks)
    check_scores(scores, "maps")
    anomalous, weights, _ = _regions(scores, flags, connectivity)
    counts = count_scores(scores.ravel(), anomalous, weights)
    if not (counts.normal.any() and counts.anomalous.any()):
        return None
    return roc_area(counts, counts.region, fpr_limit).value


class PixelMetrics:
    """Counts of pixels by score, updated in any number of steps and merged across processes.

    float16 maps have at most 63,487 distinct finite scores: always exact, in 1.5 MB. Other maps are taken as
    float32 and are exact until ``max_distinct`` distinct scores were seen; from then on neighbouring scores
    share an entry where that costs least, and ``compute`` gives a bound on the error, computed from the
    counts. Exact results do not depend, bit for bit, on the order or the grouping of updates and merges.
    """

    def __init__(
        self,
        fpr_limits: Sequence[float] = (0.3,),
        connectivity: Connectivity = 8,
        max_distinct: int = 1 << 20,
        buffer_pixels: int = 1 << 22,
    ) -> None:
        """An empty count.

        Args:
            fpr_limits: limits of AUPRO, each in (0, 1].
            connectivity: of regions, 8 or 4.
            max_distinct: entries kept for float32 maps, at least 2; about 40 bytes each and four times that
                while entries are merged.
            buffer_pixels: float32 scores gathered before they are sorted in; 4 bytes each and as much again
                in passing. Allocated with the first float32 map.
        """
        _check_choices(fpr_limits, connectivity)
        if max_distinct < 2 or buffer_pixels < 1:
            raise ValueError("max_distinct must be at least 2 and buffer_pixels at least 1")
        self.fpr_limits = tuple(fpr_limits)
        self.connectivity: Connectivity = connectivity
        self.regions = 0
        """Connected anomalous regions so far."""
        self.normal_pixels = 0
        self.anomalous_pixels = 0
        self._max_distinct = max_distinct
        self._buffer_pixels = buffer_pixels
        self.undefined: str | None = None
        """Why nothing can be said, whatever is counted; see `declare_undefined`."""
        # [3, 65536] by float16 bit pattern: all pixels, anomalous ones, region weight.
        self._half = np.zeros((3, _HALF), np.int64)
        self._table = ScoreCounts.empty()
        self._buffer: Array | None = None
        self._filled = 0
        self._anomalous: list[tuple[Array, IntArray]] = []

    def update(self, maps: ArrayLike, masks: ArrayLike) -> None:
        """Count the pixels of some images. Absent views must be left out by the caller.

        Args:
            maps: [N,H,W], finite, numpy or torch; higher is more anomalous. What is not float16 is taken as
                float32.
            masks: [N,H,W], bool or 0 and 1; true on anomalous pixels.

        Raises:
            ValueError: shapes differ, or a score is not finite (in float32). Nothing was counted then.
            OverflowError: more than 8,388,606 regions in all.
        """
        scores, flags = _checked(maps, masks)
        half = scores.dtype == np.float16
        if half:
            histogram = _half_histogram(scores)
            bad = int(histogram[_HALF_NOT_FINITE].sum())
            if bad:
                raise ValueError(f"maps must be finite; {bad} of {scores.size} scores are NaN or infinite")
        else:
            with np.errstate(over="ignore"):
                scores = scores.astype(np.float32, copy=False)
            check_scores(scores, "maps")
        anomalous, weights, regions = _regions(scores, flags, self.connectivity)
        self._add_regions(regions)
        self.anomalous_pixels += anomalous.size
        self.normal_pixels += scores.size - anomalous.size
        if half:
            bits = anomalous.view(np.uint16)
            self._half[0] += histogram
            self._half[1] += np.bincount(bits, minlength=_HALF)
            np.add.at(self._half[2], bits, weights)
        else:
            self._gather(scores.ravel())
            if anomalous.size:
                self._anomalous.append((anomalous, weights))
            if self._filled >= self._buffer_pixels:
                self._flush()

    def merge(self, other: "PixelMetrics") -> None:
        """Add another count to this one; ``other`` stays as it was.

        Raises:
            ValueError: the other was made with another connectivity.
        """
        if other.connectivity != self.connectivity:
            raise ValueError(
                f"cannot merge regions of connectivity {other.connectivity} and {self.connectivity}"
            )
        self._add_regions(other.regions)
        self.normal_pixels += other.normal_pixels
        self.anomalous_pixels += other.anomalous_pixels
        self.undefined = self.undefined or other.undefined
        self._half += other._half
        self._flush()
        other._flush()
        self._table = compact_above(fuse([self._table, other._table]), self._max_distinct)

    def declare_undefined(self, reason: str) -> None:
        """From now on every metric is None for this reason, e.g. an anomalous image without a mask."""
        self.undefined = self.undefined or reason

    @property
    def reasons(self) -> dict[str, str]:
        """Why each metric that is None is None."""
        reason = self.undefined or one_class_reason(self.normal_pixels, self.anomalous_pixels, "pixels")
        return {} if reason is None else dict.fromkeys(self._names(), reason)

    @property
    def exact(self) -> bool:
        """True while every distinct score has its own count."""
        self._flush()
        return self._table.exact

    def compute(self) -> dict[str, float | None]:
        """The metrics of everything counted so far; counting may go on.

        Returns:
            ``p_auroc``, ``p_ap``, ``p_f1_max``, ``aupro`` (limit 0.3), ``aupro@0.1`` and so on, in 0..1, or
            None where undefined (see `reasons`); ``error_bound``: how far any of them can be from the exact
            value, 0 where the counts are exact.
        """
        if self.reasons:
            return {**dict.fromkeys(self._names()), "error_bound": None}
        estimates = self.estimates()
        values: dict[str, float | None] = {name: e.value for name, e in estimates.items()}
        return {**values, "error_bound": max(e.error for e in estimates.values())}

    def estimates(self) -> dict[str, Estimate]:
        """Each metric with its own error bound. Must not be called while there are `reasons`."""
        assert not self.reasons, self.reasons
        counts = self.counts()
        found = {
            "p_auroc": roc_area(counts),
            "p_ap": precision_area(counts),
            "p_f1_max": best_f1(counts)[0],
        }
        for limit in self.fpr_limits:
            found[metric_name(limit)] = roc_area(counts, counts.region, limit)
        return found

    def counts(self) -> ScoreCounts:
        """The table behind the metrics, ascending by score."""
        self._flush()
        return fuse([_half_counts(self._half), self._table])

    def _names(self) -> list[str]:
        return ["p_auroc", "p_ap", "p_f1_max", *map(metric_name, self.fpr_limits)]

    def _add_regions(self, count: int) -> None:
        if self.regions + count > _MAX_REGIONS:
            raise OverflowError(f"more than {_MAX_REGIONS} regions cannot be counted exactly")
        self.regions += count

    def _gather(self, scores: Array) -> None:
        """Copy float32 scores behind the ones already waiting."""
        needed = self._filled + scores.size
        if self._buffer is None or needed > self._buffer.size:
            grown = np.empty(max(needed, self._buffer_pixels), np.float32)
            if self._buffer is not None:
                grown[: self._filled] = self._buffer[: self._filled]
            self._buffer = grown
        self._buffer[self._filled : needed] = scores
        self._filled = needed

    def _flush(self) -> None:
        """Sort the waiting scores into the table."""
        if self._buffer is None or not self._filled:
            return
        none = (np.empty(0, np.float32), np.empty(0, np.int64))
        values, weights = zip(none, *self._anomalous, strict=True)
        table = absorb(
            self._table, self._buffer[: self._filled], np.concatenate(values), np.concatenate(weights)
        )
        self._table = compact_above(table, self._max_distinct)
        self._filled, self._anomalous = 0, []


def compact_above(table: ScoreCounts, limit: int) -> ScoreCounts:
    """The table itself, or one of half as many entries as the limit where it has more."""
    return table if len(table) <= limit else compact(table, max(1, limit // 2))


def _check_choices(fpr_limits: Sequence[float], connectivity: int) -> None:
    for limit in fpr_limits:
        if not 0 < limit <= 1:
            raise ValueError(f"fpr_limit must lie in (0, 1], not {limit}")
    if connectivity not in (4, 8):
        raise ValueError(f"connectivity must be 4 or 8, not {connectivity}")


def _checked(maps: ArrayLike, masks: ArrayLike) -> tuple[Array, BoolArray]:
    scores, flags = np.ascontiguousarray(as_numpy(maps)), np.ascontiguousarray(as_flags(masks, "masks"))
    if scores.ndim != 3 or scores.shape != flags.shape:
        raise ValueError(
            f"maps and masks must both be [N,H,W], not {list(scores.shape)} and {list(flags.shape)}"
        )
    return scores, flags


def _regions(maps: Array, masks: BoolArray, connectivity: Connectivity) -> tuple[Array, IntArray, int]:
    """Scores [A] and region weights [A] of the anomalous pixels, and the number of regions."""
    scores, weights, count = [maps[:0].ravel()], [np.empty(0, np.int64)], 0
    for i in np.flatnonzero(masks.reshape(len(masks), -1).any(axis=1)):
        found, labelled = cv2.connectedComponents(
            masks[i].view(np.uint8), connectivity=connectivity, ltype=cv2.CV_32S
        )
        labels = labelled[masks[i]]
        sizes = np.bincount(labels, minlength=found)
        sizes[0] = 1  # the background, which no anomalous pixel has
        # Rounded to nearest: (2 unit + size) // (2 size).
        weights.append(((2 * REGION_UNIT + sizes) // (2 * sizes))[labels])
        scores.append(maps[i][masks[i]])
        count += found - 1
    return np.concatenate(scores), np.concatenate(weights), count


def _half_histogram(maps: Array) -> IntArray:
    """How often each float16 bit pattern occurs: int64 [65536]."""
    rows = maps.view(np.uint16).reshape(-1, maps.shape[-1])
    step = max(1, _HISTOGRAM_PIXELS // rows.shape[1])
    total = np.zeros(_HALF, np.int64)
    for start in range(0, len(rows), step):
        part = cv2.calcHist([rows[start : start + step]], [0], None, [_HALF], [0, _HALF])
        total += part.ravel().astype(np.int64)
    return total


def _half_counts(half: IntArray) -> ScoreCounts:
    seen = _HALF_ORDER[half[0, _HALF_ORDER] > 0]
    scores = seen.astype(np.uint16).view(np.float16).astype(np.float32)
    total, anomalous, region = half[:, seen]
    # 0.0 and -0.0 are one score under two patterns: fusing joins what is equal.
    return fuse([ScoreCounts(scores, scores, total - anomalous, anomalous, region)])


def _patterns() -> tuple[IntArray, BoolArray]:
    values = np.arange(_HALF, dtype=np.uint16).view(np.float16).astype(np.float32)
    finite = np.isfinite(values)
    order = np.argsort(np.where(finite, values, np.inf), kind="stable")[: int(finite.sum())]
    return order, ~finite


_HALF_ORDER, _HALF_NOT_FINITE = _patterns()
