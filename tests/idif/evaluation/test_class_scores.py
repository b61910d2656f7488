"""Confusions at a threshold that the split val chose, and the scores of each class."""

from pathlib import Path

import numpy as np
import pytest

from idif.config.sections import EvalConfig
from idif.errors import RunError
from idif.evaluation.class_scores import class_scores, confusion_of
from idif.evaluation.predictions import Predictions
from idif.evaluation.test_pass import CategoryTask, metrics_of, write_predictions
from idif.evaluation.thresholds import validation_thresholds
from tests.helpers.stubs import scorer
from tests.idif.evaluation.test_predictions import made, write
from tests.idif.evaluation.test_test_pass import config, data


@pytest.fixture
def predictions(tmp_path: Path) -> Predictions:
    write(tmp_path / "p.h5", made(30))
    return Predictions.open(tmp_path / "p.h5")


def test_the_confusion_matrix_and_what_follows_from_it(predictions: Predictions) -> None:
    rows = predictions.rows("cup")
    labels = predictions.sample_labels[rows]
    value = float(np.median(predictions.sample_scores[rows]))
    threshold = {"value": value, "rule": "fixed", "items": 0}
    found = confusion_of(predictions, rows, labels, {"sample": threshold, "view": None})
    assert found is not None
    flagged = predictions.sample_scores[rows] >= value
    assert found["true_positives"] == (flagged & labels).sum()
    counts = [found[f"{kind}_{side}s"] for kind in ("true", "false") for side in ("positive", "negative")]
    assert sum(counts) == len(rows)
    assert found["precision"] == pytest.approx((flagged & labels).sum() / flagged.sum())
    assert found["recall"] == pytest.approx((flagged & labels).sum() / labels.sum())
    assert found["accuracy"] == pytest.approx((flagged == labels).mean())
    assert found["f1"] == pytest.approx(
        2 * found["precision"] * found["recall"] / (found["precision"] + found["recall"])
    )
    assert found["rule"] == "fixed"
    assert confusion_of(predictions, rows, labels, {"sample": None, "view": None}) is None


def test_nothing_flagged_has_no_precision(predictions: Predictions) -> None:
    rows = predictions.rows("cup")
    threshold = {"value": 1e9, "rule": "fixed", "items": 0}
    labels = predictions.sample_labels[rows]
    found = confusion_of(predictions, rows, labels, {"sample": threshold, "view": None})
    assert found is not None
    assert (found["precision"], found["recall"], found["f1"]) == (None, 0.0, 0.0)


def test_the_scores_of_each_class(predictions: Predictions) -> None:
    rows = predictions.rows("cup")
    found = class_scores(predictions, rows)
    normal = predictions.sample_scores[rows][~predictions.sample_labels[rows]]
    assert found["OK"]["samples"] == len(normal)
    assert found["OK"]["mean"] == pytest.approx(normal.mean())
    assert found["OK"]["std"] == pytest.approx(normal.std())
    assert (found["OK"]["min"], found["OK"]["max"]) == (normal.min(), normal.max())
    assert len(found) > 1


def test_a_threshold_of_the_split_val_is_used_on_the_test_split(tmp_path: Path) -> None:
    settings, path = config(threshold="validation"), tmp_path / "p.h5"
    used, val = scorer(settings.eval), data("cup", 7)
    chosen = validation_thresholds(used, val)
    assert chosen["sample"] is not None
    assert chosen["sample"]["rule"] == "validation"
    write_predictions(settings, [CategoryTask("cup", used, data("cup", 0), validated=chosen)], path)
    metrics = metrics_of(Predictions.open(path), settings.eval)
    found = metrics["categories"]["cup"]
    assert found["thresholds"] == chosen
    assert found["confusion"]["rule"] == "validation"
    assert metrics["protocol"]["threshold"] == "greatest F1 on the split val"
    write_predictions(settings, [CategoryTask("cup", used, data("cup", 0))], path)
    with pytest.raises(RunError, match="from the split val, found none"):
        metrics_of(Predictions.open(path), settings.eval)
    assert (
        metrics_of(Predictions.open(path), EvalConfig())["categories"]["cup"]["confusion"]["rule"] == "f1-max"
    )
