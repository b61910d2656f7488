"""Thresholds that the split val chose, and the scores of each class."""

from pathlib import Path

import pytest

from idif.config.sections import EvalConfig
from idif.errors import RunError
from idif.evaluation.class_scores import class_scores
from idif.evaluation.predictions import Predictions
from idif.evaluation.rescoring import rescore
from idif.evaluation.test_pass import CategoryTask, metrics_of, write_predictions
from idif.evaluation.thresholds import validation_thresholds
from tests.helpers.stubs import scorer
from tests.idif.evaluation.test_predictions import made, write
from tests.idif.evaluation.test_test_pass import config, data


@pytest.fixture
def predictions(tmp_path: Path) -> Predictions:
    write(tmp_path / "p.h5", made(30))
    return Predictions.open(tmp_path / "p.h5")


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
    assert found["decision"]["rule"] == "validation"
    assert metrics["protocol"]["threshold"] == "greatest F1 on the split val"
    other = settings.eval.model_copy(update={"score": "topk", "top_k": 2})
    assert rescore(Predictions.open(path), other, ["eval.score", "eval.top_k"], tmp_path) is not None
    with pytest.raises(RunError, match="from the split val, found none"):
        metrics_of(Predictions.open(path), other)  # those chosen on val were for the former scores
    write_predictions(settings, [CategoryTask("cup", used, data("cup", 0))], path)
    with pytest.raises(RunError, match="from the split val, found none"):
        metrics_of(Predictions.open(path), settings.eval)
    oracle = metrics_of(Predictions.open(path), EvalConfig())["categories"]["cup"]
    assert oracle["decision"]["rule"] == "f1-max"
