"""Thresholds that the split val chose, and the scores of each class."""

from collections.abc import Callable
from pathlib import Path

import pytest

from idif.config.sections import EvalConfig
from idif.errors import RunError
from idif.evaluation.class_scores import class_scores
from idif.evaluation.predictions import Predictions
from idif.evaluation.rescoring import rescore
from idif.evaluation.test_pass import CategoryTask, metrics_of, write_predictions
from idif.evaluation.thresholds import validation_thresholds
from idif.metrics.threshold import Threshold, f1_max_threshold, youden_threshold
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


@pytest.mark.parametrize(
    ("rule", "choose", "text"),
    [
        ("validation", f1_max_threshold, "greatest F1 on the split val"),
        ("validation-youden", youden_threshold, "greatest TPR - FPR on the split val"),
    ],
)
def test_a_threshold_of_the_split_val_is_used_on_the_test_split(
    tmp_path: Path, rule: str, choose: Callable[..., Threshold], text: str
) -> None:
    settings, path = config(threshold=rule), tmp_path / "p.h5"
    used, val = scorer(settings.eval), data("cup", 7)
    chosen = validation_thresholds(used, val)
    assert chosen["sample"] is not None
    assert chosen["sample"]["rule"] == rule
    _, scores = used.final(used.collect(val, range(len(val.index)), title=""))
    assert chosen["sample"]["value"] == choose(scores, val.labels.any(dim=1).numpy()).value
    write_predictions(settings, [CategoryTask("cup", used, data("cup", 0), validated=chosen)], path)
    metrics = metrics_of(Predictions.open(path), settings.eval)
    found = metrics["categories"]["cup"]
    assert found["thresholds"] == chosen
    assert (found["decision"]["rule"], found["decision"]["origin"]) == (rule, text)
    assert found["decision"]["threshold"] == chosen["sample"]["value"]
    assert not found["decision"]["oracle"]
    assert metrics["protocol"]["threshold"] == text
    (other,) = {"validation", "validation-youden"} - {rule}
    with pytest.raises(RunError, match=f"by the rule {other}, found those of {rule}"):
        metrics_of(Predictions.open(path), config(threshold=other).eval)
    topk = settings.eval.model_copy(update={"score": "topk", "top_k": 2})
    assert rescore(Predictions.open(path), topk, ["eval.score", "eval.top_k"], tmp_path) is not None
    with pytest.raises(RunError, match=f"from the split val by the rule {rule}, found none"):
        metrics_of(Predictions.open(path), topk)  # those chosen on val were for the former scores
    write_predictions(settings, [CategoryTask("cup", used, data("cup", 0))], path)
    with pytest.raises(RunError, match=f"from the split val by the rule {rule}, found none"):
        metrics_of(Predictions.open(path), settings.eval)
    oracle = metrics_of(Predictions.open(path), EvalConfig())["categories"]["cup"]
    assert oracle["decision"]["rule"] == "f1-max"


def test_scores_by_another_rule_have_no_threshold_of_the_split_val(tmp_path: Path) -> None:
    """One that was chosen for the former scores would be applied to scores of another size."""
    settings, path = config(threshold="validation-youden"), tmp_path / "p.h5"
    used = scorer(settings.eval)
    chosen = validation_thresholds(used, data("cup", 7))
    write_predictions(settings, [CategoryTask("cup", used, data("cup", 0), validated=chosen)], path)
    other = settings.eval.model_copy(update={"score": "topk", "top_k": 4})
    assert rescore(Predictions.open(path), other, {"eval.score", "eval.top_k"}, tmp_path) is not None
    with pytest.raises(RunError, match="found none; run `idif eval` without --from-predictions"):
        metrics_of(Predictions.open(path), other)
