"""The test pass: what the predictions file and metrics.json hold, calibrated or not."""

from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

from idif.config.loader import resolve
from idif.config.sections import Config, EvalConfig
from idif.errors import CannotFinish, ConfigError
from idif.evaluation.calibration import fit_calibration
from idif.evaluation.predictions import Predictions
from idif.evaluation.test_pass import CategoryTask, metrics_of, write_predictions
from tests.helpers.stubs import BrightestIsWorst, InMemory, scorer


def data(category: str = "cup", seed: int = 0) -> InMemory:
    torch.manual_seed(seed)
    present = torch.rand(20, 3) < 0.9
    present[:, 0] |= ~present.any(dim=1)
    labels = (torch.rand(20, 3) < 0.6) & (torch.arange(20) % 2 == 0)[:, None]
    return InMemory(present, labels, seed, category)


def config(**evaluation: object) -> Config:
    raw = {"eval": {"batch_size": 7, "fpr_limits": [0.3, 0.05]} | evaluation, "train": {"holdout": 0.1}}
    return resolve(raw, source="test")[0]


def test_metrics_come_from_what_the_file_holds(tmp_path: Path) -> None:
    used = scorer(config().eval)
    tasks = [CategoryTask(n, used, data(n, s)) for s, n in enumerate(("cup", "nut"))]
    path = tmp_path / "predictions.h5"
    write_predictions(config(), tasks, path)
    metrics = metrics_of(Predictions.open(path), config().eval)
    assert set(metrics) == {"mean", "categories", "protocol"}
    expected = []
    for task in tasks:
        source = task.source
        assert isinstance(source, InMemory)
        with torch.inference_mode():
            maps = BrightestIsWorst().maps_of(source.images, source.present)
        scores = maps.flatten(1).amax(dim=1).numpy()
        expected.append(roc_auc_score(source.labels.any(dim=1).numpy(), scores))
        got = metrics["categories"][task.category]
        assert got["s_auroc"] == pytest.approx(expected[-1], abs=1e-9)
        views = maps.flatten(2).amax(dim=2)[source.present].numpy()
        assert got["i_auroc"] == pytest.approx(
            roc_auc_score(source.labels[source.present].numpy(), views), abs=1e-9
        )
        assert 0 <= got["aupro"] <= 1
        assert 0 <= got["aupro@0.05"] <= 1
    assert metrics["mean"]["s_auroc"] == pytest.approx(np.mean(expected))
    assert metrics["protocol"]["sample_score"] == "max over the views present"


def test_without_maps_the_streaming_count_gives_the_same_pixel_metrics(tmp_path: Path) -> None:
    results = []
    for maps in (True, False):
        path = tmp_path / f"{maps}.h5"
        task = CategoryTask("cup", scorer(config().eval), data())
        pixels = write_predictions(config(), [task], path, maps=maps)
        results.append(metrics_of(Predictions.open(path), config().eval, pixels)["categories"]["cup"])
    assert results[0] == results[1]
    alone = metrics_of(Predictions.open(tmp_path / "False.h5"), config().eval)["categories"]["cup"]
    assert alone["p_auroc"] is None
    assert "--no-maps" in alone["reasons"]["p_auroc"]


def test_calibration_is_fitted_on_held_out_normals_and_the_raw_figure_is_kept(tmp_path: Path) -> None:
    normal = InMemory(torch.ones(30, 3, dtype=torch.bool), torch.zeros(30, 3, dtype=torch.bool), seed=5)
    normal.images[:, 2] //= 4
    settings = config(calibrate="per-view")
    collected = scorer(settings.eval).collect(normal, range(4, 14), title="calibrating")
    fitted = fit_calibration(collected.views, collected.present, normal.index.view_numbers)
    (scored,) = scorer(EvalConfig(batch_size=30)).batches(normal, range(4, 14))
    assert fitted.samples == 10
    np.testing.assert_allclose(fitted.mean, scored.views.mean(dim=0).numpy(), rtol=1e-5)
    np.testing.assert_allclose(fitted.spread, scored.views.std(dim=0, correction=0).numpy(), rtol=1e-4)

    results = {}
    for name, calibration in (("plain", None), ("calibrated", fitted)):
        path = tmp_path / f"{name}.h5"
        used = scorer(settings.eval, calibration=calibration)
        write_predictions(settings, [CategoryTask("cup", used, data())], path)
        results[name] = metrics_of(Predictions.open(path), settings.eval)["categories"]["cup"]
    assert results["calibrated"]["s_auroc_raw"] == pytest.approx(results["plain"]["s_auroc"])
    assert "s_auroc_raw" not in results["plain"]


def test_a_prior_pulls_the_cameras_spreads_towards_their_common_one() -> None:
    scores = np.array([[0.0, 0.0], [2.0, 6.0]], np.float32)
    present = np.ones((2, 2), bool)
    own = fit_calibration(scores, present, (1, 2))
    assert own.spread == (1.0, 3.0)
    shrunk = fit_calibration(scores, present, (1, 2), prior=2.0)
    assert shrunk.mean == own.mean
    # variances 1 and 9, mean 5; two samples of their own, two of the common one
    assert shrunk.spread == pytest.approx((3.0**0.5, 7.0**0.5))
    alike = fit_calibration(scores, present, (1, 2), prior=1e9)
    assert alike.spread == pytest.approx((5.0**0.5, 5.0**0.5))


def test_calibration_without_spread_is_refused() -> None:
    flat = InMemory(torch.ones(4, 2, dtype=torch.bool), torch.zeros(4, 2, dtype=torch.bool))
    flat.images.fill_(7)
    scores = scorer(EvalConfig()).collect(flat, range(4), title="calibrating")
    with pytest.raises(ConfigError, match=r"view 1 .* spread 0"):
        fit_calibration(scores.views, scores.present, flat.index.view_numbers)


def test_a_score_that_is_not_finite_names_the_sample() -> None:
    source, method = data(), BrightestIsWorst()
    with torch.no_grad():
        method.weight.fill_(float("nan"))
    with pytest.raises(CannotFinish, match="cup/S0000: the anomaly score is not finite"):
        list(scorer(EvalConfig(), method).batches(source, range(20)))


def test_a_map_beyond_float16_names_the_sample_when_it_is_counted(tmp_path: Path) -> None:
    source, method = data(), BrightestIsWorst()
    with torch.no_grad():
        method.weight.fill_(1e6)
    task = CategoryTask("cup", scorer(config().eval, method), source)
    with pytest.raises(CannotFinish, match=r"cup/S0000.*: anomaly map in float16: .*NaN or infinite"):
        write_predictions(config(), [task], tmp_path / "p.h5", maps=False)
    assert list(tmp_path.iterdir()) == []
