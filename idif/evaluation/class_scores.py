"""Statistics of the scores of each class."""

from typing import Any

import numpy as np

from idif.data.index import NORMAL_CLASS
from idif.evaluation.predictions import Predictions
from idif.metrics.score_counts import Array, IntArray


def class_scores(predictions: Predictions, rows: IntArray) -> dict[str, dict[str, Any]]:
    """Mean, standard deviation, least and greatest sample score of the normal samples and of each defect.

    A sample whose views show several defects counts for each of them.
    """
    p = predictions
    seen, scores = p.scorable[rows], p.sample_scores[rows]
    members: dict[str, list[int]] = {}
    for place, row in enumerate(rows):
        if seen[place]:
            names = {p.sample_class[row], *p.anomaly_class[row]} - {"", NORMAL_CLASS}
            for name in names or {NORMAL_CLASS}:
                members.setdefault(name, []).append(place)
    return {name: _statistics(scores[places]) for name, places in sorted(members.items())}


def _statistics(scores: Array) -> dict[str, Any]:
    exact = scores.astype(np.float64)
    return {
        "samples": len(exact),
        "mean": float(exact.mean()),
        "std": float(exact.std()),
        "min": float(exact.min()),
        "max": float(exact.max()),
    }
