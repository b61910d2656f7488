"""Counts of float32 scores in bounded memory: exact while they are few, then by address where most lie."""

import copy
from typing import Any

import numpy as np
from torch import Tensor

from idif.metrics.binned_scores import Window, place_window, sample_ranks
from idif.metrics.map_inputs import Maps, count_in, distinct_scores, pick, together
from idif.metrics.regions import Regions
from idif.metrics.score_counts import Array, IntArray, ScoreCounts, absorb, compact, fuse

_MOST_WINDOWS = 3
_FEWEST_CELLS = 16
"""Windows of fewer cells are not worth their name; small tables are for tests."""
_REMAINDER = 0.05
"""Share of the pixels outside the windows from which on another is opened."""


class SingleCounts:
    """A table by distinct score until those are too many; then windows, and a table of what lies outside."""

    def __init__(self, max_distinct: int, buffer_pixels: int, lanes: int) -> None:
        """No scores yet; for the arguments see `idif.metrics.PixelMetrics`. ``lanes``: threads that count."""
        self._max_distinct = max_distinct
        self._buffer_pixels = buffer_pixels
        self._lanes = lanes
        self._pixels = 0
        self._table = ScoreCounts.empty()
        self._windows: list[Window] = []
        # Scores that wait to be sorted into the table, and the anomalous ones among them.
        self._waiting: list[Array | Tensor] = []
        self._waiting_pixels = 0
        self._anomalous: list[tuple[Array, IntArray]] = []

    def add(self, maps: Maps, found: Regions) -> None:
        """Count maps: into the windows, where there are any yet, or behind the scores that wait."""
        self._pixels += maps.size
        scores, weights, start = pick(maps.scores, found.at), found.weights, 0
        while start < maps.size:
            if self._windows:
                stop = maps.size
                part = count_in(self._windows, maps.scores[start:], self._lanes)
            else:
                stop = min(maps.size, start + self._buffer_pixels - self._waiting_pixels)
                kept = maps.scores[start:stop]
                part = kept.clone() if isinstance(kept, Tensor) else kept.copy()
            first, last = np.searchsorted(found.at, (start, stop))
            anomalous = scores[first:last], weights[first:last]
            for window in self._windows:
                left = ~window.mark(*anomalous)
                anomalous = anomalous[0][left], anomalous[1][left]
            if len(part):
                self._waiting.append(part)
                self._waiting_pixels += len(part)
            if anomalous[0].size:
                self._anomalous.append(anomalous)
            if self._waiting_pixels >= self._buffer_pixels:
                self._flush()
            start = stop

    def merge(self, other: "SingleCounts") -> None:
        """Add another's counts; ``other`` stays as it was."""
        self._flush()
        other._flush()
        self._pixels += other._pixels
        coming = [other._table]
        if self._windows:
            coming += [window.table() for window in other._windows]
        else:
            self._windows = copy.deepcopy(other._windows)
            coming.append(self._table)
            self._table = ScoreCounts.empty()
        for table in coming:
            for window in self._windows:
                table = window.take_in(table)
            self._table = fuse([self._table, table])
        self._reduce()

    def tables(self, beside: ScoreCounts) -> list[ScoreCounts]:
        """Tables of everything counted, to be fused with ``beside``; entries may overlap."""
        self._flush()
        found = [self._table]
        for window in self._windows:
            across = [other.table() for other in self._windows if other is not window and other.meets(window)]
            found.append(window.table([beside, self._table, *across]))
        return found

    def __getstate__(self) -> dict[str, Any]:
        """What another process needs: nothing that waits on a device."""
        self._flush()
        return self.__dict__

    def _flush(self) -> None:
        """Sort the waiting scores into the table, or count them by address where they are too many for it."""
        if not self._waiting_pixels:
            return
        parts = zip((np.empty(0, np.float32), np.empty(0, np.int64)), *self._anomalous, strict=True)
        anomalous, weights = map(np.concatenate, parts)
        scores = together(self._waiting)
        if not self._windows:
            drawn = draw(scores)
            if too_many(drawn, self._max_distinct) and self._open_window(drawn[sample_ranks(drawn.size)]):
                scores = count_in(self._windows, scores, self._lanes)
                outside = ~self._windows[0].mark(anomalous, weights)
                anomalous, weights = anomalous[outside], weights[outside]
                self._table = self._windows[0].take_in(self._table)
        self._table = absorb(self._table, *distinct_scores(scores), anomalous, weights)
        self._waiting, self._waiting_pixels, self._anomalous = [], 0, []
        self._reduce()

    def _open_window(self, sample: Array) -> bool:
        """Add a window where these scores are, if there may be another and it is worth it."""
        cells = self._max_distinct // (8 if self._windows else 2)
        if cells < _FEWEST_CELLS or len(self._windows) == _MOST_WINDOWS:
            return False
        window = place_window(sample, cells, self._buffer_pixels)
        if window is not None:
            self._windows.append(window)
        return window is not None

    def _reduce(self) -> None:
        """Keep memory bounded: half is the first window's, a quarter the others', a quarter the table's.

        As long as much lies outside the windows, another is opened: sorting is slow.
        """
        while True:
            table, limit = self._table, self._max_distinct // (4 if self._windows else 1)
            totals = table.normal + table.anomalous
            if len(table) <= limit and not (self._windows and totals.sum() > _REMAINDER * self._pixels):
                return
            single = table.low == table.high
            running = np.cumsum(totals[single])
            if not running.size:
                break
            at = np.searchsorted(running, sample_ranks(int(running[-1])), side="right")
            if not self._open_window(table.low[single][at]):
                break
            self._table = self._windows[-1].take_in(table)
        if len(table) > limit:
            self._table = compact(table, max(1, limit // 2))


def draw(scores: Array | Tensor) -> Array:
    """An eighth of the scores, drawn at random with replacement: ascending, on the host; at least one."""
    places = np.random.default_rng(0).integers(len(scores), size=max(1, len(scores) // 8))
    return np.sort(pick(scores, places))


def too_many(drawn: Array, limit: int) -> bool:
    """Whether the scores that these were drawn from certainly have more than ``limit`` distinct values.

    Sorting all of them to find out takes longer than counting them. Of at most ``limit`` values n draws have
    on average at most limit (1 - (1 - 1/limit)^n) distinct ones. By McDiarmid's inequality their number is
    greater by 4 sqrt(n) with a probability of at most exp(-32).

    Args:
        drawn: [n]: one or more, ascending.
        limit: at least 2.
    """
    found = 1 + np.count_nonzero(drawn[1:] != drawn[:-1])
    expected = -limit * np.expm1(drawn.size * np.log1p(-1 / limit))
    return bool(found > expected + 4 * np.sqrt(drawn.size))
