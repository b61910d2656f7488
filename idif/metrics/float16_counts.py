"""Counts by float16 bit pattern: few enough to keep one of each, so that float16 maps are always exact."""

import numpy as np

from idif.metrics.regions import Regions
from idif.metrics.score_counts import Array, BoolArray, IntArray, ScoreCounts, merge_counts

PATTERNS = 1 << 16
"""float16 bit patterns."""


def _finite_patterns() -> tuple[IntArray, BoolArray]:
    values = np.arange(PATTERNS, dtype=np.uint16).view(np.float16).astype(np.float32)
    finite = np.isfinite(values)
    order = np.argsort(np.where(finite, values, np.inf), kind="stable")[: int(finite.sum())]
    return order, ~finite


_ORDER, _NOT_FINITE = _finite_patterns()


class Float16Counts:
    """All pixels, the anomalous ones and their region weights, by bit pattern."""

    def __init__(self) -> None:
        self._counts = np.zeros((3, PATTERNS), np.int64)

    @staticmethod
    def not_finite(histogram: IntArray) -> int:
        """How many scores of a histogram [65536] are NaN or infinite."""
        return int(histogram[_NOT_FINITE].sum())

    def add(self, histogram: IntArray, anomalous: Array, regions: Regions) -> None:
        """Add all pixels, by pattern [65536], and the float16 scores [A] of the anomalous ones."""
        bits = anomalous.view(np.uint16)
        self._counts[0] += histogram
        self._counts[1] += np.bincount(bits, minlength=PATTERNS)
        np.add.at(self._counts[2], bits, regions.weights)

    def merge(self, other: "Float16Counts") -> None:
        """Add another's counts."""
        self._counts += other._counts

    def table(self) -> ScoreCounts:
        """Everything counted, ascending by score; one entry a score."""
        seen = _ORDER[self._counts[0, _ORDER] > 0]
        scores = seen.astype(np.uint16).view(np.float16).astype(np.float32)
        total, anomalous, region = self._counts[:, seen]
        # 0.0 and -0.0 are one score under two patterns: merging joins equal ones.
        return merge_counts([ScoreCounts(scores, scores, total - anomalous, anomalous, region)])
