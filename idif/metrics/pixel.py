"""Pixel metrics in one pass and bounded memory: P-AUROC, P-AP, P-F1max and AUPRO from three counts by score.

Region overlap averaged over regions is a weighted true-positive rate: an anomalous pixel weighs one over
(its region's size times the number of regions). So AUPRO is the area under a weighted ROC curve.
"""

from collections.abc import Sequence

import numpy as np
from torch import Tensor

from idif.metrics.curves import (
    AuproRule,
    BoundedValue,
    best_f1,
    cumulate,
    curve,
    one_class_reason,
    precision_area,
    rescaled_area,
    roc_area,
)
from idif.metrics.float16_counts import Float16Counts
from idif.metrics.float32_counts import Float32Counts
from idif.metrics.map_inputs import gather, read_maps
from idif.metrics.regions import MAX_REGIONS, Connectivity, find_regions
from idif.metrics.score_counts import (
    ArrayLike,
    BoolArray,
    ScoreCounts,
    as_flags,
    as_numpy,
    check_scores,
    count_scores,
    merge_counts,
)


def metric_name(fpr_limit: float) -> str:
    """``aupro`` for the limit 0.3, ``aupro@0.1`` for 0.1."""
    return "aupro" if fpr_limit == 0.3 else f"aupro@{fpr_limit:g}"


def aupro(
    maps: ArrayLike,
    masks: ArrayLike,
    fpr_limit: float = 0.3,
    connectivity: Connectivity = 8,
    rule: AuproRule = "interpolated",
) -> float | None:
    """Area under the per-region-overlap curve up to a false-positive rate, divided by that rate. Exact.

    The overlap is averaged over the connected regions of all masks; the false-positive rate is over the
    normal pixels of all images together.

    Args:
        maps: [N,H,W], finite; higher is more anomalous.
        masks: [N,H,W], bool or 0 and 1; true on anomalous pixels.
        fpr_limit: in (0, 1].
        connectivity: 8 joins pixels that touch at a corner, 4 does not.
        rule: the exact curve interpolated at the limit, or `rescaled_area`, for comparisons alone.

    Returns:
        0..1; None where there is no normal or no anomalous pixel, or no point to rescale.

    Raises:
        ValueError: shapes differ, a score is not finite, a limit or connectivity is out of range.
    """
    _check_choices((fpr_limit,), connectivity)
    scores = as_numpy(maps)
    flags = _checked(scores.shape, masks)
    check_scores(scores, "maps")
    found, flat = find_regions(flags, connectivity), scores.ravel()
    counts = count_scores(flat, flat[found.at], found.weights)
    if not (counts.normal.any() and counts.anomalous.any()):
        return None
    descent = cumulate(counts)
    if rule == "rescaled":
        return rescaled_area(descent, descent.region, fpr_limit)
    return roc_area(descent, descent.region, fpr_limit).value


class PixelMetrics:
    """Counts of pixels by score, updated in any number of steps and merged across processes.

    float16 maps have at most 63,487 distinct finite scores: always exact, in 1.5 MB. Other maps are taken as
    float32 and are exact up to ``exact_pixels`` pixels. Beyond, scores are counted in ``cells`` cells of
    neighboring values (`idif.metrics.float32_counts`), and ``compute`` gives a bound on the error, computed
    from the counts; it is 0 where no cell can hold two scores. Results do not depend, bit for bit, on the
    order or the grouping of updates and merges, nor on the device.
    """

    def __init__(
        self,
        fpr_limits: Sequence[float] = (0.3,),
        connectivity: Connectivity = 8,
        exact_pixels: int = 1 << 22,
        cells: int = 1 << 20,
        aupro_rule: AuproRule = "interpolated",
        threads: int = 1,
    ) -> None:
        """An empty count.

        Args:
            fpr_limits: limits of AUPRO, each in (0, 1].
            connectivity: of regions, 8 or 4.
            exact_pixels: pixels of float32 maps up to which the counts are exact; 4 bytes each, and about
                100 while metrics are computed.
            cells: in which more pixels than that are counted: a power of two from 4 on, 24 bytes each, and up
                to 300 while metrics are computed. More of them make the error bound smaller.
            aupro_rule: see `aupro`.
            threads: that count maps on the host at once, at least 1; each costs more processor time than it
                saves, so more than one is for machines with cores to spare.
        """
        _check_choices(fpr_limits, connectivity)
        if exact_pixels < 0 or cells < 4 or cells & (cells - 1):
            raise ValueError("exact_pixels must not be negative, and cells must be a power of two from 4 on")
        if threads < 1:
            raise ValueError(f"threads must be at least 1, not {threads}")
        self.fpr_limits = tuple(fpr_limits)
        self.connectivity: Connectivity = connectivity
        self.aupro_rule: AuproRule = aupro_rule
        self.regions = 0
        """Connected anomalous regions so far."""
        self.normal_pixels = 0
        self.anomalous_pixels = 0
        self.undefined: str | None = None
        """Why every metric is undefined, whatever is counted; see `declare_undefined`."""
        self._threads = threads
        self._float16 = Float16Counts()
        self._float32 = Float32Counts(exact_pixels, cells, threads)

    def update(self, maps: ArrayLike, masks: ArrayLike) -> None:
        """Count the pixels of some images. Absent views must be left out by the caller.

        Args:
            maps: [N,H,W], finite, numpy or torch; higher is more anomalous. All types but float16 are taken
                as float32. Maps on an accelerator are counted there: counts and the scores of anomalous
                pixels are fetched, and float32 maps while they are few enough to be exact.
            masks: [N,H,W], bool or 0 and 1; true on anomalous pixels.

        Raises:
            ValueError: shapes differ, or a score is not finite (in float32). Nothing was counted then.
            OverflowError: more than 8,388,606 regions in all.
        """
        flags = _checked(tuple(maps.shape) if isinstance(maps, Tensor) else np.shape(maps), masks)
        read = read_maps(maps, self._threads)
        histogram = read.float16_histogram() if read.is_float16 else None
        bad = read.not_finite() if histogram is None else Float16Counts.not_finite(histogram)
        if bad:
            raise ValueError(f"maps must be finite; {bad} of {read.size} scores are NaN or infinite")
        found = find_regions(flags, self.connectivity, self._threads)
        self._add_regions(found.regions)
        self.anomalous_pixels += found.at.size
        self.normal_pixels += read.size - found.at.size
        if histogram is None:
            self._float32.add(read, found)
        else:
            self._float16.add(histogram, gather(read.scores, found.at), found)

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
        self._float16.merge(other._float16)
        self._float32.merge(other._float32)

    def declare_undefined(self, reason: str) -> None:
        """From now on every metric is None for this reason, e.g. an anomalous image without a mask."""
        self.undefined = self.undefined or reason

    @property
    def reasons(self) -> dict[str, str]:
        """Why each metric that is None is None."""
        reason = self.undefined or one_class_reason(self.normal_pixels, self.anomalous_pixels, "pixels")
        if reason is not None:
            return dict.fromkeys(self._names(), reason)
        if self.aupro_rule == "interpolated":
            return {}
        counts = self.counts()
        if not counts.exact:
            reason = "rescaled AUPRO needs exact counts, which float16 maps give"
            return dict.fromkeys(map(metric_name, self.fpr_limits), reason)
        descent = cumulate(counts)
        return {
            metric_name(limit): "no two thresholds have rates below the limit"
            for limit in self.fpr_limits
            if rescaled_area(descent, descent.region, limit) is None
        }

    @property
    def exact(self) -> bool:
        """True while no entry of the counts can hold two different scores."""
        return self.counts().exact

    def compute(self) -> dict[str, float | None]:
        """The metrics of everything counted so far; counting may go on.

        Returns:
            ``p_auroc``, ``p_ap``, ``p_f1_max``, ``aupro`` (limit 0.3), ``aupro@0.1`` and so on, in 0..1, or
            None where undefined (see `reasons`); ``error_bound``: how far any of them can be from the exact
            value, 0 where the counts are exact.
        """
        values: dict[str, float | None] = dict.fromkeys(self._names())
        estimates = self.estimates()
        values.update({name: e.value for name, e in estimates.items()})
        error = max((e.error for e in estimates.values()), default=None)
        return {**values, "error_bound": error}

    def estimates(self) -> dict[str, BoundedValue]:
        """Each metric that is defined, with its own error bound."""
        undefined = self.reasons
        if "p_auroc" in undefined:
            return {}
        counts = cumulate(self.counts())
        found = {
            "p_auroc": roc_area(counts),
            "p_ap": precision_area(counts),
            "p_f1_max": best_f1(counts)[0],
        }
        for limit in self.fpr_limits:
            name = metric_name(limit)
            if self.aupro_rule == "interpolated":
                found[name] = roc_area(counts, counts.region, limit)
            elif name not in undefined:
                value = rescaled_area(counts, counts.region, limit)
                assert value is not None
                found[name] = BoundedValue(value, 0.0)
        return found

    def pro_curve(self, points: int) -> list[list[float]]:
        """(false-positive rate of pixels, per-region overlap), up to the greatest limit; where it is defined.

        Args:
            points: at most so many.
        """
        counts = cumulate(self.counts())
        return curve(counts, counts.region, max(self.fpr_limits), points)

    def counts(self) -> ScoreCounts:
        """The table behind the metrics, ascending by score."""
        return merge_counts([self._float16.table(), self._float32.table()])

    def _names(self) -> list[str]:
        return ["p_auroc", "p_ap", "p_f1_max", *map(metric_name, self.fpr_limits)]

    def _add_regions(self, count: int) -> None:
        if self.regions + count > MAX_REGIONS:
            raise OverflowError(f"more than {MAX_REGIONS} regions cannot be counted exactly")
        self.regions += count


def _check_choices(fpr_limits: Sequence[float], connectivity: int) -> None:
    for limit in fpr_limits:
        if not 0 < limit <= 1:
            raise ValueError(f"fpr_limit must lie in (0, 1], not {limit}")
    if connectivity not in (4, 8):
        raise ValueError(f"connectivity must be 4 or 8, not {connectivity}")


def _checked(shape: tuple[int, ...], masks: ArrayLike) -> BoolArray:
    flags: BoolArray = np.ascontiguousarray(as_flags(masks, "masks"))
    if len(shape) != 3 or shape != flags.shape:
        raise ValueError(f"maps and masks must both be [N,H,W], not {list(shape)} and {list(flags.shape)}")
    return flags
