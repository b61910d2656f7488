"""A run beside a baseline, and brightness as a score, from their definitions."""

from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

from idif.config.sections import EvalConfig
from idif.data.index import Sample
from idif.errors import RunError
from idif.evaluation.brightness import Brightness, brightness_metrics, brightness_warning
from idif.evaluation.paired import compare
from idif.evaluation.predictions import Predictions
from idif.evaluation.predictions_writer import PredictionsWriter
from tests.helpers.stubs import InMemory


def written(path: Path, scores: dict[str, float]) -> Predictions:
    """A file of samples without views; those whose name begins with b are anomalous."""
    classes = {name: "dent" if name.startswith("b") else "OK" for name in scores}
    samples = [Sample(name, "cup", "test", (), sample_class=classes[name]) for name in scores]
    with PredictionsWriter(path, (), None, protocol={}, sample_classes=True) as writer:
        values = np.array(list(scores.values()), np.float32)
        writer.append(samples, np.empty((len(samples), 0), np.float32), values, None, None)
    return Predictions.open(path)


def test_a_run_and_its_baseline_are_compared_on_the_same_draws_of_samples(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    names = [f"{kind}{number}" for kind in "gb" for number in range(30)]
    bad = np.array([name.startswith("b") for name in names])
    common = rng.normal(size=60) + bad
    ours = dict(zip(names, common + 0.05 * rng.normal(size=60), strict=True))
    theirs = dict(zip(names, common + 0.05 * rng.normal(size=60) - 0.3 * bad, strict=True))
    reordered = {name: theirs[name] for name in sorted(names)}
    run, baseline = written(tmp_path / "run.h5", ours), written(tmp_path / "baseline.h5", reordered)
    found = compare("IDIF", run, "PATCHCORE", baseline, EvalConfig()).categories["cup"]
    one, two = np.array(list(ours.values())), np.array(list(theirs.values()))
    assert found.run == pytest.approx(roc_auc_score(bad, one), abs=1e-6)
    assert found.baseline == pytest.approx(roc_auc_score(bad, two), abs=1e-6)
    draws = []
    # [30,30]: whether an anomalous sample scores higher than a normal one; without ties the mean is the AUROC
    first, second = (scores[bad][:, None] > scores[~bad] for scores in (one, two))
    assert first.mean() == pytest.approx(found.run, abs=1e-6)
    for _ in range(2000):
        normal, anomalous = rng.choice(30, 30), rng.choice(30, 30)
        pairs = np.ix_(anomalous, normal)
        draws.append(first[pairs].mean() - second[pairs].mean())
    assert found.interval == pytest.approx(np.quantile(draws, [0.025, 0.975]), abs=0.01)
    # apart, the intervals overlap by far; paired, the difference is certain
    assert found.better


def test_the_sentence_says_whether_training_paid(tmp_path: Path) -> None:
    names = [f"{kind}{number}" for kind in "gb" for number in range(20)]
    right = {name: float(name.startswith("b")) + 0.01 * place for place, name in enumerate(names)}
    wrong = {name: -score for name, score in right.items()}
    good, poor = written(tmp_path / "good.h5", right), written(tmp_path / "poor.h5", wrong)
    better = compare("IDIF", good, "PADIM", poor, EvalConfig()).sentence()
    assert better.startswith(
        "IDIF is better than PADIM fitted to the same store: S-AUROC 100.0 % against 0.0 %"
    )
    for other in (good, written(tmp_path / "same.h5", right)):
        assert "is not better than" in compare("IDIF", poor, "PADIM", other, EvalConfig()).sentence()
        assert not compare("IDIF", good, "PADIM", other, EvalConfig()).categories["cup"].better
    with pytest.raises(RunError, match="holds other samples"):
        compare("IDIF", good, "PADIM", written(tmp_path / "other.h5", {"g1": 0.0, "b9": 1.0}), EvalConfig())


def test_brightness_is_the_deviation_from_training_either_way() -> None:
    present = torch.tensor([[True, True], [True, False], [True, True], [True, True]])
    source = InMemory(present, torch.zeros(4, 2, dtype=torch.bool))
    fitted = Brightness.of(source)
    assert fitted is not None
    (batch,) = source.batches(range(4), 4)
    gray = batch.images.double().mean(dim=(2, 3, 4)).numpy()
    seen = [gray[:, 0], gray[present[:, 1].numpy(), 1]]
    np.testing.assert_allclose(fitted.mean, [values.mean() for values in seen], rtol=1e-6)
    for change in (40, -40):
        images = (batch.images.int() + change).clamp(0, 255).byte()
        scores = fitted.scores(batch.with_arrays({**batch.arrays, "images": images}))
        spread = np.array([max(1.0, values.std()) for values in seen])
        moved = images.double().mean(dim=(2, 3, 4)).numpy()
        off = np.abs(moved - fitted.mean.numpy()) / spread
        off[~present.numpy()] = np.nan
        np.testing.assert_allclose(scores, np.nanmean(off, axis=1), rtol=1e-5)


def test_brightness_that_ranks_the_samples_is_told() -> None:
    labels = np.arange(40) >= 20
    certain = brightness_metrics(labels.astype(np.float32), labels)
    assert certain == {"s_auroc": 1.0, "s_auroc_ci": [1.0, 1.0], "separates": True}
    chance = brightness_metrics(np.arange(40, dtype=np.float32) % 20, labels)
    assert not chance["separates"]
    few = np.array([False, False, True, True])
    unsure = brightness_metrics(np.array([0.1, 0.5, 0.4, 0.9], np.float32), few)
    assert not unsure["separates"]
    told = brightness_warning({"categories": {"cup": {"brightness": certain}, "can": {"brightness": chance}}})
    assert told is not None
    assert "cup 100.0 %" in told
    assert "can" not in told.replace("scans", "")
    assert brightness_warning({"categories": {"cup": {}}}) is None
