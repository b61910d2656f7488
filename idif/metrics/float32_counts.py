"""Counts of float32 scores in bounded memory: by distinct score while pixels are few, then by cell.

The magnitude of a score is its float32 bit pattern without the sign, an integer that ascends with the
absolute value. A cell holds the scores of one sign whose magnitudes agree in all but the lowest ``shift``
bits; zero has a cell for itself. ``shift`` is the least with which all cells between the smallest and the
greatest magnitude so far are few enough to keep. When that range grows, neighboring cells are joined, which
gives the counts that the coarser cells would have had from the start. So the counts depend on nothing but
the scores: not on their order, on the grouping of updates, or on what was merged into what.
"""

import numpy as np

from idif.metrics.map_inputs import MAGNITUDE_BITS, HostMaps, Magnitudes, Maps, float32_cells, gather
from idif.metrics.regions import Regions
from idif.metrics.score_counts import Array, IntArray, ScoreCounts, as_numpy, count_scores


class Float32Counts:
    """All pixels, the anomalous ones and their region weights, by float32 score."""

    def __init__(self, exact_pixels: int, cells: int, threads: int) -> None:
        """No scores yet; for the arguments see `idif.metrics.PixelMetrics`."""
        self._exact_pixels, self._cells, self._threads = exact_pixels, cells, threads
        self._pixels = 0
        # While there are few pixels: the scores of all, and the scores and region weights of the anomalous.
        self._scores: list[Array] = []
        self._anomalous: list[tuple[Array, IntArray]] = []
        self._binned = False
        # By cell, see `float32_cells`; those below zero from the end backwards. None before they are needed.
        self._counts = np.zeros((3, 0), np.int64)
        self._shift = 0
        self._magnitudes = Magnitudes()
        # Low bits that are zero in every score. Where they are all the bits a cell spans, as in maps that
        # were float16, bfloat16 or small integers, no cell holds two different scores.
        self._zero_bits = MAGNITUDE_BITS

    def add(self, maps: Maps, found: Regions) -> None:
        """Count finite maps and their anomalous pixels."""
        if not maps.size:
            return
        anomalous = gather(maps.scores, found.at), found.weights
        self._pixels += maps.size
        if self._pixels > self._exact_pixels:
            self._bin_scores()
            self._count(maps, *anomalous)
        else:
            self._scores.append(np.array(as_numpy(maps.scores)))
            self._anomalous.append(anomalous)

    def merge(self, other: "Float32Counts") -> None:
        """Add another's counts; ``other`` stays as it was."""
        self._pixels += other._pixels
        self._scores += other._scores
        self._anomalous += other._anomalous
        if other._binned or self._pixels > self._exact_pixels:
            self._bin_scores()
        if other._binned:
            self._zero_bits = min(self._zero_bits, other._zero_bits)
            self._widen(other._magnitudes, other._shift)
            self._add_cells(*other._cells_in_use())

    def table(self) -> ScoreCounts:
        """Everything counted, ascending by score; one entry a score, or a cell."""
        if not self._binned:
            none, no_weights = np.empty(0, np.float32), np.empty(0, np.int64)
            parts = zip((none, no_weights), *self._anomalous, strict=True)
            return count_scores(np.concatenate([none, *self._scores]), *map(np.concatenate, parts))
        signs, first, (total, anomalous, region) = self._cells_in_use()
        span = (1 << self._shift) - 1
        last = first if self._zero_bits >= span else np.where(signs == 0, 0, first | span)
        # No score lies outside of the range, which is finite.
        smallest, greatest = self._magnitudes.smallest, max(self._magnitudes[1:])
        first = np.where(signs == 0, 0, np.maximum(first, smallest))
        near, far = (_score(ends) for ends in (first, np.minimum(last, greatest)))
        low, high = np.where(signs < 0, -far, near), np.where(signs < 0, -near, far)
        return ScoreCounts(low, high, total - anomalous, anomalous, region)

    def _bin_scores(self) -> None:
        """Count by cell from now on, and those scores that were kept so far."""
        if not self._binned:
            self._binned, self._counts = True, np.zeros((3, self._cells), np.int64)
        if self._scores:
            maps = HostMaps(np.concatenate(self._scores), self._threads)
            parts = zip(*self._anomalous, strict=True)
            self._scores, self._anomalous = [], []
            self._count(maps, *map(np.concatenate, parts))

    def _count(self, maps: Maps, anomalous: Array, weights: IntArray) -> None:
        """Count maps by cell."""
        self._widen(maps.magnitudes(), self._shift)
        maps.add_cells(self._counts[0], self._shift, self._offset)
        places = float32_cells(anomalous.view(np.int32), self._shift, self._offset) & (self._cells - 1)
        np.add.at(self._counts[1], places, 1)
        np.add.at(self._counts[2], places, weights)
        # Cells that hold several scores do so forever, since they only grow.
        if self._zero_bits >= (1 << self._shift) - 1:
            self._zero_bits = min(self._zero_bits, maps.zero_bits())

    def _widen(self, magnitudes: Magnitudes, shift: int) -> None:
        """Make room for scores of these magnitudes, in cells that span at least ``shift`` bits."""
        wider = self._magnitudes.joined(magnitudes)
        while sum(wider.reach(shift)) >= self._cells:
            shift += 1
        if shift > self._shift or wider.offset(shift) != self._offset:
            in_use = self._cells_in_use()
            self._counts, self._shift, self._magnitudes = np.zeros(self._counts.shape, np.int64), shift, wider
            self._add_cells(*in_use)
        self._magnitudes = wider

    def _add_cells(self, signs: IntArray, first: IntArray, counts: IntArray) -> None:
        """Add `_cells_in_use` of cells that span no more bits than those kept here."""
        places = signs * ((first >> self._shift) - self._offset) & (self._cells - 1)
        for row, added in zip(self._counts, counts, strict=True):
            np.add.at(row, places, added)

    def _cells_in_use(self) -> tuple[IntArray, IntArray, IntArray]:
        """The cells that hold scores, ascending: sign [K], first magnitude [K], and counts [3,K]."""
        below, above = self._magnitudes.reach(self._shift)
        cells = np.arange(-below, above + 1)
        filled = cells[self._counts[0, cells & (self._cells - 1)] > 0]
        signs = np.sign(filled)
        first = np.abs(filled + signs * self._offset) << self._shift
        return signs, first, self._counts[:, filled & (self._cells - 1)]

    @property
    def _offset(self) -> int:
        return self._magnitudes.offset(self._shift)


def _score(magnitudes: IntArray) -> Array:
    """The float32 scores of these magnitudes, not below zero."""
    found: Array = magnitudes.astype(np.int32).view(np.float32)
    return found
