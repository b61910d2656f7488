"""`ScoreCounts`: the weighted counts of each score from which every curve is computed.

K is the number of entries of a table. An entry is one score (``low == high``) or a cell that holds several.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor

IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]
Array = npt.NDArray[Any]
ArrayLike = Array | Tensor


@dataclass(frozen=True)
class ScoreCounts:
    """A table of counts by score, entries ascending and disjoint."""

    low: Array
    """[K]: least score an entry may hold."""
    high: Array
    """[K]: greatest score an entry may hold; equal to ``low`` where it is one score exactly."""
    normal: IntArray
    """[K]: normal items (samples, views or pixels)."""
    anomalous: IntArray
    """[K]: anomalous items."""
    region: IntArray
    """[K]: anomalous pixels weighted by one over their region's size, in fixed point; zero otherwise."""

    def __len__(self) -> int:
        return self.low.size

    @property
    def exact(self) -> bool:
        """True where every entry is one score."""
        return bool((self.low == self.high).all())


def as_numpy(values: ArrayLike) -> Array:
    """The values as a numpy array on the host, not copied where they are there already."""
    if isinstance(values, Tensor):
        values = values.detach().cpu()
        # numpy has no bfloat16; float32 holds every bfloat16 exactly.
        return (values.float() if str(values.dtype) == "torch.bfloat16" else values).numpy()
    return np.asarray(values)


def as_flags(values: ArrayLike, name: str) -> BoolArray:
    """Labels or masks as bool. Numbers must be 0 or 1, since any other cut is the caller's decision.

    Raises:
        ValueError: a number is neither 0 nor 1.
    """
    array = as_numpy(values)
    if array.dtype == np.bool_:
        return array
    flags: BoolArray = array == 1
    if not np.logical_or(flags, array == 0).all():
        raise ValueError(f"{name} must be bool, or 0 and 1; threshold other values first")
    return flags


def check_scores(values: Array, name: str) -> None:
    """Refuse scores that have no order.

    Raises:
        ValueError: a score is NaN or infinite, or not a real number.
    """
    if values.dtype.kind not in "fiub":
        raise ValueError(f"{name} must be real numbers, not {values.dtype}")
    # Minimum and maximum carry a NaN along, and cost a fraction of isfinite over the whole array.
    if values.size and not (np.isfinite(values.min()) and np.isfinite(values.max())):
        bad = int(np.count_nonzero(~np.isfinite(values)))
        raise ValueError(f"{name} must be finite; {bad} of {values.size} are NaN or infinite")


def count_scores(scores: Array, anomalous: Array, weights: IntArray | None = None) -> ScoreCounts:
    """Exact counts by distinct score.

    Args:
        scores: [M], finite: the scores of all items, normal and anomalous, in any order.
        anomalous: [A]: the scores of the anomalous items among them.
        weights: [A]: region weight of each anomalous item; none means zero.
    """
    ordered, anomalous = np.sort(_at_least_float32(scores)), _at_least_float32(anomalous)
    starts = np.flatnonzero(
        np.concatenate((np.ones(min(1, ordered.size), bool), ordered[1:] != ordered[:-1]))
    )
    values, totals = ordered[starts], np.diff(starts, append=ordered.size).astype(np.int64)
    at = np.searchsorted(values, anomalous)
    flagged = np.bincount(at, minlength=values.size)
    region = np.zeros(values.size, np.int64)
    if weights is not None:
        np.add.at(region, at, weights)
    return ScoreCounts(values, values, totals - flagged, flagged, region)


def merge_counts(tables: Sequence[ScoreCounts]) -> ScoreCounts:
    """One table of all the counts. Entries that overlap become one; equal scores stay exact."""
    tables = [t for t in tables if len(t)] or tables[:1]
    first = tables[0]
    if len(tables) == 1 and (first.low[1:] > first.high[:-1]).all():
        return first
    low = np.concatenate([t.low for t in tables])
    # Timsort finds the tables' ascending runs and merges them, which is far cheaper than sorting.
    order = np.argsort(low, kind="stable")
    low, high = low[order], np.concatenate([t.high for t in tables])[order]
    reach = np.maximum.accumulate(high)
    starts = np.flatnonzero(np.concatenate(([True], low[1:] > reach[:-1])))
    ends = np.append(starts[1:], low.size) - 1
    return ScoreCounts(
        low[starts],
        reach[ends],
        np.add.reduceat(np.concatenate([t.normal for t in tables])[order], starts),
        np.add.reduceat(np.concatenate([t.anomalous for t in tables])[order], starts),
        np.add.reduceat(np.concatenate([t.region for t in tables])[order], starts),
    )


def _at_least_float32(scores: Array) -> Array:
    return scores.astype(np.float32) if scores.dtype in (np.float16, np.bool_) else scores
