"""Areas and maxima of the ROC and precision-recall curves, from counts by score (the weighted-ROC core).

Every function reads its curve from the highest score down (`CumulativeCounts`): after an entry, ``fp`` normal
and ``tp`` positive items score at least as high. Entries of one score are ties and exact. An entry of several
scores leaves their order unknown; the bounds below take the best and the worst order.
"""

from typing import Literal, NamedTuple

import numpy as np

from idif.metrics.score_counts import (
    Array,
    ArrayLike,
    BoolArray,
    IntArray,
    ScoreCounts,
    as_flags,
    as_numpy,
    check_scores,
    count_scores,
)

AuproRule = Literal["interpolated", "rescaled"]


class BoundedValue(NamedTuple):
    """A metric and how far it can be from its exact value."""

    value: float
    """0..1."""
    error: float
    """Greatest possible deviation; 0 where the counts are exact (rounding of float64 aside)."""


class CumulativeCounts(NamedTuple):
    """Counts of K entries read from the highest score down, with running totals [K+1] from 0, as float64."""

    normal: Array
    anomalous: Array
    region: Array
    several: BoolArray
    """[K]: whether an entry holds several scores, in an order that is not known."""
    score: Array
    """[K]: the least score of each entry."""


def cumulate(counts: ScoreCounts) -> CumulativeCounts:
    """The counts as the curves read them."""
    several = (counts.low < counts.high)[::-1]
    normal, anomalous, region = map(_running, (counts.normal, counts.anomalous, counts.region))
    return CumulativeCounts(normal, anomalous, region, several, counts.low[::-1])


def auroc(scores: ArrayLike, labels: ArrayLike) -> float | None:
    """Area under the ROC curve: the chance that an anomalous item outscores a normal one, ties half.

    Args:
        scores: any shape, finite; higher is more anomalous.
        labels: the same shape, bool or 0 and 1; true is anomalous.

    Returns:
        0..1, exactly 0.5 for constant scores; None with fewer than two classes.

    Raises:
        ValueError: shapes differ, a score is not finite, a label is neither 0 nor 1.
    """
    counts = _count(scores, labels)
    return roc_area(cumulate(counts)).value if _two_classes(counts) else None


def average_precision(scores: ArrayLike, labels: ArrayLike) -> float | None:
    """Precision averaged over the steps in recall, without interpolation (scikit-learn's definition).

    Arguments, None and errors as for `auroc`.
    """
    counts = _count(scores, labels)
    return precision_area(cumulate(counts)).value if _two_classes(counts) else None


def f1_max(scores: ArrayLike, labels: ArrayLike) -> float | None:
    """The greatest F1 = 2 TP / (2 TP + FP + FN) over all thresholds.

    Arguments, None and errors as for `auroc`.
    """
    counts = _count(scores, labels)
    return best_f1(cumulate(counts))[0].value if _two_classes(counts) else None


def one_class_reason(normal: int, anomalous: int, items: str) -> str | None:
    """Why nothing can be ranked, or None where both classes are there."""
    if normal and anomalous:
        return None
    if not normal and not anomalous:
        return f"there are no {items}"
    count, kind = (normal, "normal") if normal else (anomalous, "anomalous")
    return f"one class only: all {count} {items} are {kind}"


def roc_area(counts: CumulativeCounts, positive: Array | None = None, fpr_limit: float = 1.0) -> BoundedValue:
    """Area under true-positive over false-positive rate up to ``fpr_limit``, divided by it.

    The curve is linear between entries (ties count half) and interpolated at the limit.

    Args:
        counts: with at least one normal item.
        positive: [K+1]: running totals of what is counted as positive, with an end above zero; none means
            ``counts.anomalous``.
        fpr_limit: in (0, 1].
    """
    rising = counts.anomalous if positive is None else positive
    cut = fpr_limit * counts.normal[-1]
    # Entries after the one that reaches the limit add nothing.
    end = int(np.searchsorted(counts.normal, cut)) + 1
    fp, rate = counts.normal[:end], rising[:end] / rising[-1]
    step = np.diff(fp)
    width = np.minimum(step, cut - fp[:-1])
    below, above = rate[:-1], rate[1:]
    # Height of the curve where an entry is cut off by the limit; elsewhere the entry's own end.
    height = below + (above - below) * np.divide(width, step, out=np.ones_like(width), where=step > 0)
    area = width * (below + height) / 2
    # In an unknown order the curve may rise at once to the entry's end, or stay until there: as far above the
    # straight line as below it, and further above where the limit cuts the entry off.
    slack = np.where(counts.several[: end - 1], width * above - area, 0.0)
    return _bounded(area.sum() / cut, slack.sum() / cut)


def curve(counts: CumulativeCounts, positive: Array, fpr_limit: float, points: int) -> list[list[float]]:
    """The curve whose area `roc_area` gives, for drawing.

    Args:
        counts: with at least one normal item.
        positive: [K+1]: running totals of what is counted as positive, with an end above zero.
        fpr_limit: in (0, 1].
        points: at most so many, evenly spaced along both rates together; 2 or more.

    Returns:
        [false-positive rate, rate of positives], from [0, 0] on, ascending, ending at the limit.
    """
    x, y = counts.normal / counts.normal[-1], positive / positive[-1]
    inside = x < fpr_limit
    x, y = np.append(x[inside], fpr_limit), np.append(y[inside], np.interp(fpr_limit, x, y))
    # even steps along the curve keep both its steep start and its flat end
    along = x / fpr_limit + y
    kept = np.unique(np.searchsorted(along, np.linspace(0, along[-1], points)).clip(0, len(x) - 1))
    return [[float(x[place]), float(y[place])] for place in kept]


def rescaled_area(
    counts: CumulativeCounts, positive: Array, fpr_limit: float, steps: int = 200
) -> float | None:
    """AUPRO as much of the literature computes it, to compare with its tables; `roc_area` is the definition.

    The curve has ``steps`` points, at thresholds evenly spaced from the least score (included) to the
    greatest (left out); a pixel counts where it scores above the threshold. Points whose false-positive rate
    reaches the limit are dropped, the other rates divided by the greatest of them, and the trapezoids added
    up. The result depends on the extreme scores, and on how near to the limit the last point happens to be.

    Args:
        counts: exact, with at least one normal item.
        positive: [K+1]: running totals of what is counted as positive, with an end above zero.
        fpr_limit: in (0, 1].
        steps: thresholds.

    Returns:
        0..1; None where fewer than two points, or none with a rate above zero, are left.
    """
    assert not counts.several.any()
    ascending = counts.score[::-1]
    low, high = float(ascending[0]), float(ascending[-1])
    thresholds = low + (high - low) / steps * np.arange(steps)
    above = len(ascending) - np.searchsorted(ascending, thresholds, side="right")
    rate, overlap = counts.normal[above] / counts.normal[-1], positive[above] / positive[-1]
    kept = rate < fpr_limit
    rate, overlap = rate[kept][::-1], overlap[kept][::-1]
    if rate.size < 2 or rate[-1] == 0:
        return None
    return float(np.trapezoid(overlap, rate / rate[-1]))


def precision_area(counts: CumulativeCounts) -> BoundedValue:
    """Average precision: the sum over scores of the step in recall times the precision there.

    ``counts`` needs at least one anomalous item.
    """
    fp, tp = counts.normal, counts.anomalous
    steps = np.flatnonzero(np.diff(tp))
    before, after, passed = tp[steps], tp[steps + 1], fp[steps + 1]
    value = after / (after + passed) * (after - before)
    # An entry of several scores: at best all its anomalous items come above its normal ones. At worst the
    # normal ones come first and the anomalous follow one by one,
    # sum_i (tp+i)/(tp+i+fp') = a - fp' sum_i 1/(tp+fp'+i), where the last sum is at most log((x+a)/x),
    # x = tp+fp'+1/2, since 1/t is convex. The value is that of both evenly mixed, the integral of
    # (tp+1/2+t) / (tp+1/2+fp + t (a+n)/a) over t from 0 to a.
    several = counts.several[steps]
    tp_before, gained, fp_after, fp_before = (
        part[several] for part in (before, after - before, passed, fp[steps])
    )
    best = gained * (tp_before + gained) / (tp_before + gained + fp_before)
    worst = gained - fp_after * np.log1p(gained / (tp_before + fp_after + 0.5))
    slope = (gained + fp_after - fp_before) / gained
    start = tp_before + 0.5 + fp_before
    mixed = (gained + (tp_before + 0.5 - start / slope) * np.log1p(slope * gained / start)) / slope
    mixed = np.clip(mixed, worst, best)
    value[several] = mixed
    error = np.maximum(best - mixed, mixed - worst)
    return _bounded(value.sum() / tp[-1], error.sum() / tp[-1])


def best_f1(counts: CumulativeCounts) -> tuple[BoundedValue, float]:
    """The greatest F1 and the score it is reached at: items scoring at least that are called anomalous.

    Of equal F1 values the highest threshold counts. The value is reached; the error is what a threshold
    inside an entry of several scores could add. ``counts`` needs at least one anomalous item.
    """
    fp, tp = counts.normal, counts.anomalous
    reached = 2 * tp[1:] / (tp[1:] + fp[1:] + tp[-1])
    at = int(np.argmax(reached))
    possible = np.where(counts.several, 2 * tp[1:] / (tp[1:] + fp[:-1] + tp[-1]), 0.0)
    value = float(reached[at])
    return BoundedValue(value, max(0.0, float(possible.max()) - value)), float(counts.score[at])


def best_youden(counts: CumulativeCounts) -> float:
    """The score of the greatest J = TPR - FPR: items scoring at least that are called anomalous.

    Of equal J the highest threshold counts. ``counts`` needs items of both classes.
    """
    # J times both totals, in whole numbers: rates of different totals would make equal J differ by rounding
    normal, anomalous = counts.normal.astype(np.int64), counts.anomalous.astype(np.int64)
    scaled = anomalous[1:] * normal[-1] - normal[1:] * anomalous[-1]
    return float(counts.score[int(np.argmax(scaled))])


def _count(scores: ArrayLike, labels: ArrayLike) -> ScoreCounts:
    values, flags = as_numpy(scores), as_flags(labels, "labels")
    if values.shape != flags.shape:
        raise ValueError(f"scores {list(values.shape)} and labels {list(flags.shape)} differ in shape")
    check_scores(values, "scores")
    return count_scores(values.ravel(), values[flags])


def _two_classes(counts: ScoreCounts) -> bool:
    return bool(counts.normal.any() and counts.anomalous.any())


def _running(counts: IntArray) -> Array:
    running = np.zeros(counts.size + 1, np.int64)
    np.cumsum(counts[::-1], out=running[1:])
    return running.astype(np.float64)


def _bounded(value: float, error: float) -> BoundedValue:
    # Rounding may leave a sum a few 1e-16 outside; an area never is.
    return BoundedValue(min(max(float(value), 0.0), 1.0), float(error))
