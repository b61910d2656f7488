"""How often each score occurs: the three weighted counts from which every curve is computed.

K is the number of entries of a table. An entry is one score (``low == high``) or, once a table was
compacted, a cell holding several. Cells are dyadic intervals of the ordered float32 bit patterns: any two
are nested or disjoint, so fusing two compacted tables can never chain cells into ever larger ones.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt
from torch import Tensor

IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]
Array = npt.NDArray[Any]
ArrayLike = Array | Tensor

_MAX_FINITE = 0x7F7FFFFF
_ZERO_KEY = np.int64(1) << 31


@dataclass(frozen=True)
class ScoreCounts:
    """A table of counts by score, entries ascending and disjoint."""

    low: Array
    """[K]: smallest score an entry may hold."""
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

    @classmethod
    def empty(cls) -> Self:
        """A table without entries, for float32 scores."""
        none, zero = np.empty(0, np.float32), np.empty(0, np.int64)
        return cls(none, none, zero, zero, zero)

    def take(self, entries: BoolArray | IntArray) -> Self:
        """The table of these entries, given by flag [K] or by ascending number."""
        return type(self)(
            self.low[entries],
            self.high[entries],
            self.normal[entries],
            self.anomalous[entries],
            self.region[entries],
        )

    @property
    def exact(self) -> bool:
        """True where every entry is one score."""
        return bool((self.low == self.high).all())


def as_numpy(values: ArrayLike) -> Array:
    """The values as a numpy array on the host, without a copy where there is a way."""
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
    values, totals = distinct(_at_least_float32(scores))
    return _tabulate(values, totals, _at_least_float32(anomalous), weights)


def distinct(scores: Array) -> tuple[Array, IntArray]:
    """The distinct scores, ascending, and how often each occurs."""
    ordered = np.sort(scores)
    starts = np.flatnonzero(
        np.concatenate((np.ones(min(1, ordered.size), bool), ordered[1:] != ordered[:-1]))
    )
    return ordered[starts], np.diff(starts, append=ordered.size).astype(np.int64)


def _tabulate(values: Array, totals: IntArray, anomalous: Array, weights: IntArray | None) -> ScoreCounts:
    """Counts of distinct ascending ``values``, among which all ``anomalous`` are."""
    at = np.searchsorted(values, anomalous)
    flagged = np.bincount(at, minlength=values.size)
    region = np.zeros(values.size, np.int64)
    if weights is not None:
        np.add.at(region, at, weights)
    return ScoreCounts(values, values, totals - flagged, flagged, region)


def fuse(tables: Sequence[ScoreCounts]) -> ScoreCounts:
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


def absorb(
    table: ScoreCounts, values: Array, totals: IntArray, anomalous: Array, weights: IntArray
) -> ScoreCounts:
    """``table`` with more scores counted in: those inside an entry go there, the rest become entries.

    The same as fusing with their own table, at a cost that falls as the table comes to cover the scores.

    Args:
        table: of float32 scores.
        values: float32 [D]: the distinct scores, ascending.
        totals: [D]: how many items have each.
        anomalous: float32 [A]: the scores of the anomalous items among them, in any order.
        weights: [A]: their region weights.
    """
    new = _tabulate(values, totals, anomalous, weights)
    if not len(table):
        return new
    left = np.searchsorted(values, table.low, side="left")
    right = np.searchsorted(values, table.high, side="right")
    edges = np.stack([left, right], axis=1).ravel()
    lengths = np.diff(edges, prepend=0, append=values.size)
    outside = np.repeat(np.arange(lengths.size) % 2 == 0, lengths)

    def within(counts: IntArray) -> IntArray:
        running = np.concatenate(([0], np.cumsum(counts)))
        return running[right] - running[left]

    grown = ScoreCounts(
        table.low,
        table.high,
        table.normal + within(new.normal),
        table.anomalous + within(new.anomalous),
        table.region + within(new.region),
    )
    return fuse([grown, new.take(outside)])


def compact(table: ScoreCounts, target: int) -> ScoreCounts:
    """At most ``target`` entries, float32 scores: the joints between neighbours that cost least are removed.

    Removing the joint between two entries puts everything in the smallest cell around both into one entry.
    Its cost is m (m + l) + w^2: m the cell's share of the normal, anomalous and region-weighted mass, l its
    extent in the logarithm of the rank from the top, which is where average precision is sensitive, and w
    its share of the key space, so that scores still to come find no over-wide cell. Each term can only grow
    with the cell, so a removed joint implies all those inside its cell.
    """
    if len(table) <= target:
        return table
    first, last = _key(table.low), _key(table.high)
    level = np.frexp((first[:-1] ^ last[1:]).astype(np.float64))[1]
    start, end = np.empty(level.size, np.int64), np.empty(level.size, np.int64)
    remaining = np.arange(level.size)
    for j in np.unique(level):
        # Joints above level j split the table into the runs that share a cell of level j.
        above = level[remaining] > j
        joints, remaining = remaining[~above], remaining[above]
        run = np.searchsorted(remaining, joints)
        start[joints] = np.concatenate(([-1], remaining))[run] + 1
        end[joints] = np.append(remaining, level.size)[run] + 1

    mass = np.zeros(level.size)
    for counts in (table.normal, table.anomalous, table.region):
        running = np.concatenate(([0], np.cumsum(counts)))
        mass += (running[end] - running[start]) / max(running[-1], 1)
    running = np.concatenate(([0], np.cumsum(table.normal + table.anomalous)))
    extent = np.log((running[-1] - running[start] + 1) / (running[-1] - running[end] + 1))
    cost = mass * (mass + extent) + np.exp2(2.0 * (level - 32))

    removed = cost <= np.partition(cost, len(table) - target - 1)[len(table) - target - 1]
    kept = np.flatnonzero(np.concatenate(([True], ~removed)))
    ends = np.append(kept[1:], len(table)) - 1
    # Widen each joined entry to its whole cell: cells stay nested, and later scores fall inside them.
    joined = ends > kept
    size = np.frexp((first[kept] ^ last[ends]).astype(np.float64))[1]
    bottom = (first[kept] >> size) << size
    low, high = table.low[kept], table.high[ends]
    low[joined] = _score(bottom[joined])
    high[joined] = _score((bottom + (np.int64(1) << size) - 1)[joined])
    return ScoreCounts(
        low,
        high,
        np.add.reduceat(table.normal, kept),
        np.add.reduceat(table.anomalous, kept),
        np.add.reduceat(table.region, kept),
    )


def _at_least_float32(scores: Array) -> Array:
    return scores.astype(np.float32) if scores.dtype in (np.float16, np.bool_) else scores


def _key(scores: Array) -> IntArray:
    """The rank of each float32 among all float32 bit patterns: int64 in 0..2^32, ascending with the score."""
    # Adding zero turns -0.0 into 0.0, which it equals.
    bits = (scores + np.float32(0)).view(np.int32).astype(np.int64)
    return np.where(bits < 0, -1 - (bits & 0x7FFFFFFF), bits) + _ZERO_KEY


def _score(keys: IntArray) -> Array:
    """The float32 of each key, finite, never -0.0."""
    ranks = np.clip(keys - _ZERO_KEY, -1 - _MAX_FINITE, _MAX_FINITE)
    ranks = np.where(ranks == -1, -2, ranks)
    bits = np.where(ranks < 0, (-1 - ranks) | 0x80000000, ranks).astype(np.uint32)
    return bits.view(np.float32)
