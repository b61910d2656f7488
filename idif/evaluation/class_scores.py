"""Confusion matrix at a threshold, and statistics of the scores of each class."""

from typing import Any

import numpy as np

from idif.data.index import NORMAL_CLASS
from idif.evaluation.predictions import Predictions
from idif.evaluation.thresholds import Thresholds
from idif.metrics.score_counts import Array, BoolArray, IntArray


def confusion_of(
    predictions: Predictions, rows: IntArray, labels: BoolArray, thresholds: Thresholds
) -> dict[str, Any] | None:
    """Confusion matrix of the samples at the recorded threshold, with what follows from it.

    Args:
        predictions: the file of a test pass.
        rows: rows of one category.
        labels: bool [N]: which of these samples are anomalous.
        thresholds: of the category.

    Returns:
        Counts, ``precision``, ``recall``, ``f1`` and ``accuracy`` (None where undefined), and ``rule``, how
        the threshold was chosen; None without a threshold of samples.
    """
    threshold = thresholds["sample"]
    if threshold is None:
        return None
    seen = predictions.scorable[rows]
    flagged, truth = predictions.sample_scores[rows][seen] >= threshold["value"], labels[seen]
    hits, missed = int((flagged & truth).sum()), int((~flagged & truth).sum())
    false, right = int((flagged & ~truth).sum()), int((~flagged & ~truth).sum())
    return {
        "rule": threshold["rule"],
        "true_positives": hits,
        "false_positives": false,
        "false_negatives": missed,
        "true_negatives": right,
        "precision": _share(hits, hits + false),
        "recall": _share(hits, hits + missed),
        "f1": _share(2 * hits, 2 * hits + false + missed),
        "accuracy": _share(hits + right, len(truth)),
    }


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


def _share(part: int, whole: int) -> float | None:
    return part / whole if whole else None
