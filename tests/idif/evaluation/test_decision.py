"""Decisions of thresholds: counts, intervals, origin, the samples concerned; and scores computed again."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import binomtest
from sklearn.metrics import precision_recall_fscore_support

from idif.config.loader import load_config
from idif.config.sections import EvalConfig
from idif.data.index import Index, Sample, View
from idif.errors import RunError
from idif.evaluation.decision import FIXED, Decisions, decisions_of, threshold_origin
from idif.evaluation.predictions import Predictions
from idif.metrics.proportion import Proportion
from idif.runs.evaluate import measure_again
from tests.helpers.report_runs import make_run

EVAL = EvalConfig()


def sample(number: int, defect: str) -> Sample:
    view = View(1, f"tile/S{number:04d}/x_C1.png", None, defect, source=f"{defect}/IMG_{number}.JPG")
    return Sample(f"tile/S{number:04d}", "tile", "test", (view,), origin="folder")


@pytest.fixture(scope="module")
def tiles(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run about one camera: ten good tiles, six cracked and four broken ones, imported from a folder."""
    classes = ["OK"] * 10 + ["crack"] * 6 + ["break"] * 4
    index = Index((1,), tuple(sample(number, name) for number, name in enumerate(classes)))
    return make_run(tmp_path_factory.mktemp("runs") / "tiles", index=index, sweep=False)


def test_the_origin_of_every_rule_is_told() -> None:
    assert "oracle" in threshold_origin({"rule": "f1-max"}, "test", None)
    held_out = threshold_origin({"rule": "false-positive-rate", "items": 12}, "test", 0.05)
    assert held_out == "5 % false-alarm target, 12 held-out good parts"
    assert threshold_origin({"rule": "validation"}, "test", None) == "greatest F1 on the split val"
    by_rates = threshold_origin({"rule": "validation-youden"}, "test", None)
    assert by_rates == "greatest TPR - FPR on the split val"
    assert threshold_origin({"rule": "fixed"}, "test", None) == FIXED


def test_the_interval_is_wilsons() -> None:
    for count, total in ((0, 12), (1, 40), (17, 60), (60, 60), (5, 7)):
        expected = binomtest(count, total).proportion_ci(0.95, method="wilson")
        assert Proportion(count, total).interval == pytest.approx((expected.low, expected.high), abs=1e-12)
    assert Proportion(0, 0).interval is None
    assert str(Proportion(17, 60)) == "17 of 60 (19 to 41 %)"


def test_misses_and_false_alarms_are_counted_and_named(tiles: Path) -> None:
    predictions = Predictions.open(tiles / "predictions.h5")
    rows, scores = np.arange(20), predictions.sample_scores
    value = float(np.sort(scores)[12])
    chosen = {"value": value, "rule": "false-positive-rate", "items": 12}
    found = decisions_of(predictions, rows, predictions.sample_labels, chosen, 0.05)
    assert found is not None
    missed = [row for row in rows[10:] if scores[row] < value]
    alarms = [row for row in rows[:10] if scores[row] >= value]
    assert found.misses == Proportion(len(missed), 10)
    assert found.false_alarms == Proportion(len(alarms), 10)
    assert sum(share.count for share in found.missed_by_class.values()) == len(missed)
    assert {name: share.total for name, share in found.missed_by_class.items()} == {"crack": 6, "break": 4}
    assert {one.sample_id for one in found.missed} == {predictions.sample_id[row] for row in missed}
    assert [one.score for one in found.missed] == sorted(one.score for one in found.missed)
    text = found.sentence()
    assert "(5 % false-alarm target, 12 held-out good parts): misses" in text
    flagged = scores >= value
    wanted = precision_recall_fscore_support(predictions.sample_labels, flagged, average="binary")[:3]
    assert [found.agreement[name] for name in ("precision", "recall", "f1")] == pytest.approx(list(wanted))
    assert found.agreement["accuracy"] == (flagged == predictions.sample_labels).mean()
    assert found.to_json().items() >= found.agreement.items()
    assert not found.oracle
    assert Decisions.from_json(json.loads(json.dumps(found.to_json()))) == found


def test_an_oracle_says_so_in_the_same_line(tiles: Path) -> None:
    recorded = json.loads((tiles / "metrics.json").read_text())["categories"]["tile"]["decision"]
    found = Decisions.from_json(recorded)
    assert found.oracle
    assert "an oracle that needs their labels): misses" in found.sentence()
    assert "\n" not in found.sentence()


@pytest.fixture
def run(tiles: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiles, tmp_path / "tiles"))


def test_scores_are_computed_again_from_stored_maps(run: Path) -> None:
    before = Predictions.open(run / "predictions.h5")
    settings = EVAL.model_copy(update={"score": "topk", "top_k": 5})
    heard: list[str] = []
    steps: dict[str, list[tuple[int, int]]] = {}
    metrics = measure_again(
        run,
        settings,
        {"eval.score", "eval.top_k"},
        notify=heard.append,
        progress=lambda done, total, what="": steps.setdefault(what, []).append((done, total)),
    )
    assert {what: calls[-1] for what, calls in steps.items()} == dict.fromkeys(
        ("scoring again", "writing", "measuring tile"), (20, 20)
    )
    after = Predictions.open(run / "predictions.h5")
    _, maps, _ = next(before_maps := after.iter_maps(np.arange(20), 20))
    before_maps.close()
    expected = np.sort(maps.reshape(20, -1).astype(np.float32))[:, -5:].mean(1)
    assert np.allclose(after.sample_scores, expected, rtol=1e-5)
    assert not np.allclose(before.sample_scores, after.sample_scores)
    assert after.protocol["rules"]["top_k"] == metrics["protocol"]["rules"]["top_k"] == 5
    assert after.sample_id == before.sample_id
    assert np.array_equal(after.labels, before.labels)
    assert any("computed again" in text for text in heard)
    # the settings of the file itself change nothing
    assert measure_again(run, EVAL, frozenset())["protocol"]["rules"]["view_score"] == "topk"


def test_a_share_of_pixels_is_recorded_and_gives_way_to_another_rule(run: Path) -> None:
    size = next(iter(Predictions.open(run / "predictions.h5").iter_maps([0])))[1].shape[-1]
    share = 5 / size**2
    settings = EVAL.model_copy(update={"score": "topshare", "top_share": share})
    metrics = measure_again(run, settings, {"eval.score", "eval.top_share"})
    by_share = Predictions.open(run / "predictions.h5").sample_scores
    assert metrics["protocol"]["rules"]["top_share"] == share
    assert measure_again(run, EVAL, frozenset())["protocol"]["rules"]["top_share"] == share
    for count, same in ((5, True), (6, False)):
        other = EVAL.model_copy(update={"score": "topk", "top_k": count})
        again = measure_again(run, other, {"eval.score", "eval.top_k"})
        assert "top_share" not in again["protocol"]["rules"]
        by_count = Predictions.open(run / "predictions.h5").sample_scores
        assert np.array_equal(by_share, by_count) == same


@pytest.mark.parametrize(
    ("given", "update", "message"),
    [
        ("eval.score", {"score": "method"}, "--set eval.score=method` without --from-predictions"),
        ("eval.calibrate", {"calibrate": "per-view"}, "--set eval.calibrate=per-view`"),
        ("eval.calibrate_prior", {"calibrate_prior": 2.0}, "--set eval.calibrate_prior=2.0`"),
        ("eval.record_normal_scores", {"record_normal_scores": True}, "eval.record_normal_scores=True`"),
        ("method.voxel", {}, "without --from-predictions"),
        ("eval.top_k", {"score": "topk", "top_k": 10**6}, "top_k must lie in"),
    ],
)
def test_what_stored_maps_cannot_give_is_refused_by_the_right_command(
    run: Path, given: str, update: dict[str, object], message: str
) -> None:
    keys = {given, "eval.score"} if given == "eval.top_k" else {given}
    with pytest.raises(RunError, match=message.replace("`", ".")):
        measure_again(run, EVAL.model_copy(update=update), keys)


def test_given_keys_are_those_of_nested_overrides_too() -> None:
    from idif.config.loader import given_keys

    assert given_keys(["eval={score: topk, top_k: 3}", "train.lr=1"]) == {
        "eval.score",
        "eval.top_k",
        "train.lr",
    }
    assert load_config({}, ["eval.score=topk"]).eval.score == "topk"
