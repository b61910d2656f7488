"""View and sample scores, S- and I-metrics, their reasons, and the bootstrap interval."""

import json
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from sklearn.metrics import average_precision_score, roc_auc_score

from idif.evaluation.category_metrics import mean_metrics
from idif.metrics.bootstrap import bootstrap_auroc, percentile_interval
from idif.metrics.mean import mean_defined
from idif.metrics.sample import sample_metrics, sample_scores, view_scores


def test_view_scores_by_hand() -> None:
    maps = torch.tensor([[[[1.0, 5.0], [3.0, 2.0]], [[0.0, 0.0], [0.0, -1.0]]]])
    assert view_scores(maps).tolist() == [[5.0, 0.0]]
    assert view_scores(maps, "topk", 2).tolist() == [[4.0, 0.0]]
    assert torch.equal(view_scores(maps, "topshare", top_share=0.5), view_scores(maps, "topk", 2))
    assert torch.equal(view_scores(maps, "topshare", top_share=1e-6), view_scores(maps, "max"))
    assert view_scores(maps.half(), "topk", 4).dtype == torch.float32
    assert torch.equal(view_scores(maps, "topk", 1), view_scores(maps, "max"))
    for wrong in (0, 5):
        with pytest.raises(ValueError, match=r"1\.\.4"):
            view_scores(maps, "topk", wrong)


def test_sample_scores_look_at_present_views_only() -> None:
    scores = torch.tensor([[1.0, 4.0, torch.nan], [9.0, 9.0, 9.0], [-3.0, -5.0, -1.0]])
    present = torch.tensor([[True, True, False], [False, False, False], [True, True, False]])
    for rule, expected in (("max", [4.0, -3.0]), ("mean", [2.5, -4.0])):
        found = sample_scores(scores, present, rule)  # type: ignore[arg-type]
        assert found[[0, 2]].tolist() == expected
        assert torch.isnan(found[1])


def made() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    present = rng.random((60, 3)) < 0.8
    present[present.sum(1) == 0, 0] = True
    present[7] = False
    labels = (rng.random((60, 3)) < 0.3) & present
    views = np.where(present, rng.integers(0, 12, (60, 3)) + 3 * labels, np.nan).astype(np.float32)
    samples = sample_scores(torch.from_numpy(views), torch.from_numpy(present)).numpy()
    return views, samples, labels, present


def test_sample_metrics_against_scikit_learn() -> None:
    views, samples, labels, present = made()
    found = sample_metrics(views, samples, labels, present, (1, 3, 5))
    there: npt.NDArray[np.bool_] = np.any(present, axis=1)
    truth: npt.NDArray[np.bool_] = np.any(labels, axis=1)
    assert found["s_auroc"] == pytest.approx(roc_auc_score(truth[there], samples[there]))
    assert found["i_ap"] == pytest.approx(average_precision_score(labels[present], views[present]))
    for slot, number in enumerate("135"):
        p = present[:, slot]
        expected = roc_auc_score(labels[p, slot], views[p, slot])
        assert found["per_view"][number]["i_auroc"] == pytest.approx(expected)
    assert found["counts"]["unscorable"] == 1
    assert found["counts"]["samples"] == 59
    assert found["counts"]["incomplete_samples"] == int((there & ~present.all(1)).sum()) > 0
    assert found["reasons"] == {}
    low, high = found["s_auroc_ci"]
    assert low < found["s_auroc"] < high
    json.dumps(found, allow_nan=False)


def test_a_sample_may_be_labelled_by_more_than_its_views() -> None:
    views, samples, labels, present = made()
    folder = np.arange(60) % 2 == 0
    found = sample_metrics(views, samples, labels, present, (1, 2, 3), folder)
    there: npt.NDArray[np.bool_] = np.any(present, axis=1)
    assert found["s_auroc"] == pytest.approx(roc_auc_score(folder[there], samples[there]))


def test_one_class_is_null_with_a_reason_each() -> None:
    views, samples, labels, present = made()
    found = sample_metrics(views, samples, labels & False, present, (1, 2, 3))
    for name in ("s_auroc", "s_ap", "s_f1_max", "s_auroc_ci", "i_auroc", "i_ap", "i_f1_max"):
        assert found[name] is None
        assert "are normal" in found["reasons"][name]
    assert found["reasons"]["s_auroc"] == "one class only: all 59 samples are normal"
    assert "camera 2" in found["reasons"]["per_view.2.i_auroc"]


def test_a_score_that_is_not_finite_is_refused() -> None:
    views, samples, labels, present = made()
    samples[0] = np.inf
    with pytest.raises(ValueError, match="finite"):
        sample_metrics(views, samples, labels, present, (1, 2, 3))


def auroc_interval(
    scores: np.ndarray, labels: np.ndarray, resamples: int = 1000, seed: int = 0
) -> list[float] | None:
    return percentile_interval(bootstrap_auroc([scores], labels, resamples=resamples, seed=seed))


def test_bootstrap_is_seeded_and_centred_on_the_auroc() -> None:
    rng = np.random.default_rng(3)
    labels = rng.random(400) < 0.4
    scores = np.round(rng.standard_normal(400) + labels, 1)
    found = auroc_interval(scores, labels, 2000, seed=1)
    assert found == auroc_interval(scores, labels, 2000, seed=1)
    assert found != auroc_interval(scores, labels, 2000, seed=2)
    assert found is not None
    # Independent resampling, one AUROC at a time.
    normal, anomalous = scores[~labels], scores[labels]
    truth = np.arange(400) >= normal.size
    draws = [
        roc_auc_score(
            truth, np.concatenate([rng.choice(normal, normal.size), rng.choice(anomalous, anomalous.size)])
        )
        for _ in range(400)
    ]
    assert np.allclose(found, np.quantile(draws, [0.025, 0.975]), atol=0.01)
    assert auroc_interval(scores, labels & False) is None


def test_an_interval_is_that_of_a_sweep_whatever_the_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    views, samples, labels, present = made()
    found = sample_metrics(views, samples, labels, present, (1, 3, 5))["s_auroc_ci"]
    assert found == auroc_interval(samples, np.any(labels, axis=1, keepdims=False))
    assert np.isnan(samples).any()
    monkeypatch.setattr("idif.metrics.bootstrap._BLOCK", 700)
    assert found == auroc_interval(samples, np.any(labels, axis=1, keepdims=False))


def test_bootstrap_of_perfect_and_constant_scores() -> None:
    labels = np.arange(30) < 10
    assert auroc_interval(labels.astype(float), labels) == [1.0, 1.0]
    assert auroc_interval(np.zeros(30), labels) == [0.5, 0.5]


def test_the_mean_of_what_is_defined() -> None:
    assert mean_defined([0.5, None, 1.0]) == (0.75, 1)
    assert mean_defined([None]) == (None, 1)
    assert mean_defined(iter(())) == (None, 0)


def test_means_skip_and_count_nulls() -> None:
    a = {
        "s_auroc": 0.5,
        "s_auroc_ci": [0.4, 0.6],
        "p_auroc": 1.0,
        "aupro": None,
        "per_view": {},
        "reasons": {},
    }
    b: dict[str, Any] = {
        "s_auroc": 1.0,
        "s_auroc_ci": None,
        "p_auroc": None,
        "aupro": None,
        "per_view": {},
        "reasons": {},
    }
    mean = mean_metrics({"a": a, "b": b})
    assert mean == {
        "s_auroc": 0.75,
        "p_auroc": 1.0,
        "aupro": None,
        "counts": {"categories": 2},
        "nulls": {"p_auroc": 1, "aupro": 2},
        "reasons": {"aupro": "null in all 2 categories"},
    }
    alone = mean_metrics({"b": b | {"reasons": {"aupro": "an anomalous view has no mask"}}})
    assert alone["reasons"]["aupro"] == "an anomalous view has no mask"
