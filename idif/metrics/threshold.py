"""Four rules that choose a decision threshold; each records its name and how many scores it used."""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from idif.metrics.curves import CumulativeCounts, best_f1, best_youden, cumulate, one_class_reason
from idif.metrics.score_counts import (
    Array,
    ArrayLike,
    BoolArray,
    as_flags,
    as_numpy,
    check_scores,
    count_scores,
)


@dataclass(frozen=True)
class Threshold:
    """A score from which on an item is called anomalous.

    A threshold that is chosen lies midway between two scores: the item that defines it is judged alike when
    its score is computed again with other rounding.
    """

    value: float
    rule: Literal["f1-max", "youden", "validation", "validation-youden", "false-positive-rate", "fixed"]
    items: int
    """How many scores it was chosen from; 0 for a fixed one."""

    def flags(self, scores: ArrayLike) -> BoolArray:
        """True where a score is at least the threshold, in the shape of ``scores``."""
        found: BoolArray = as_numpy(scores) >= self.value
        return found


def f1_max_threshold(scores: ArrayLike, labels: ArrayLike) -> Threshold:
    """The threshold of the greatest F1; of equal ones the highest.

    Args:
        scores: any shape, finite.
        labels: the same shape, bool or 0 and 1; true is anomalous.

    Raises:
        ValueError: one class only, so that there is nothing to choose from; a score is not finite.
    """
    values, counts = _two_classes(scores, labels, "greatest F1")
    _, value = best_f1(counts)
    return Threshold(_midway(values, value), "f1-max", values.size)


def youden_threshold(scores: ArrayLike, labels: ArrayLike) -> Threshold:
    """The threshold of the greatest J = TPR - FPR (Youden, Cancer 3:32-35, 1950); of equal ones the highest.

    Unlike F1, J does not depend on how many of the scores are anomalous. A score is always called anomalous:
    where no threshold has J above 0, all that score at least the chosen one are.

    Arguments and errors as for `f1_max_threshold`.
    """
    values, counts = _two_classes(scores, labels, "greatest TPR - FPR")
    return Threshold(_midway(values, best_youden(counts)), "youden", values.size)


def false_positive_threshold(normal_scores: ArrayLike, rate: float) -> Threshold:
    """The lowest threshold that calls at most a share ``rate`` of these normal scores anomalous.

    It needs no anomalies. Scores of samples the model was fitted to are too low: hold normals out.

    Args:
        normal_scores: any shape, finite, at least one.
        rate: in [0, 1).

    Raises:
        ValueError: no scores, a score that is not finite, a rate outside [0, 1).
    """
    if not 0 <= rate < 1:
        raise ValueError(f"rate must lie in [0, 1), not {rate}")
    values: Array = as_numpy(normal_scores).ravel()
    if not values.size:
        raise ValueError("a false-positive threshold needs normal scores; there are none")
    check_scores(values, "normal_scores")
    if values.dtype.kind != "f":
        values = values.astype(np.float64)
    # A tolerance far below one item: 0.29 * 100 is a little less than 29 in floats.
    allowed = int(np.floor(rate * values.size + 1e-9))
    first_kept = np.sort(values)[values.size - 1 - allowed]
    above = values[values > first_kept]
    if above.size:
        return Threshold(_midway(values, float(above.min())), "false-positive-rate", values.size)
    # nothing above to keep a distance from: a thousandth of the spread
    margin = max((float(first_kept) - float(values.min())) * 1e-3, 0.0)
    limit = max(float(np.nextafter(first_kept, np.inf)), float(first_kept) + margin)
    return Threshold(limit, "false-positive-rate", values.size)


def _two_classes(scores: ArrayLike, labels: ArrayLike, rule: str) -> tuple[Array, CumulativeCounts]:
    """The scores as an array, and their counts by class.

    Raises:
        ValueError: they are of one class only, or do not fit the labels; a score is not finite.
    """
    values, flags = as_numpy(scores), as_flags(labels, "labels")
    if values.shape != flags.shape:
        raise ValueError(f"scores {list(values.shape)} and labels {list(flags.shape)} differ in shape")
    check_scores(values, "scores")
    anomalous = int(flags.sum())
    reason = one_class_reason(flags.size - anomalous, anomalous, "scores")
    if reason:
        raise ValueError(f"a threshold of {rule} needs normal and anomalous scores; {reason}")
    return values, cumulate(count_scores(values.ravel(), values[flags]))


def _midway(scores: Array, lowest: float) -> float:
    """The middle between ``lowest`` and the next lower score; ``lowest`` itself if there is none.

    Args:
        scores: float scores, any shape.
        lowest: one of them, the lowest that counts as anomalous.
    """
    below = scores[scores < lowest]
    if not below.size:
        return lowest
    middle = (float(below.max()) + lowest) / 2
    # of neighbors in the scores' own precision the middle is one of the two
    return lowest if scores.dtype.type(middle) <= below.max() else middle


def fixed_threshold(value: float) -> Threshold:
    """A threshold chosen beforehand.

    Raises:
        ValueError: it is not finite.
    """
    if not np.isfinite(value):
        raise ValueError(f"a threshold must be finite, not {value}")
    return Threshold(float(value), "fixed", 0)
