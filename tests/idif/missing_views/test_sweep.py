"""Missing views: each subset equals an evaluation from scratch."""

from typing import Any

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

from idif.config.sections import EvalConfig
from idif.evaluation.calibration import Calibration
from idif.methods.protocol import ScoresSubsets
from idif.metrics.bootstrap import bootstrap_auroc, percentile_interval
from idif.missing_views.sweep import (
    mean_sweep,
    presence,
    random_masks,
    score_masks,
    sweep_all,
    sweep_paper,
)
from tests.helpers.stubs import BrightestIsWorst, BrightestOneByOne, InMemory, scorer

CONFIG = EvalConfig(batch_size=3)
SCORER = scorer(CONFIG)


def source(seed: int = 0, category: str = "cup") -> InMemory:
    torch.manual_seed(seed)
    present = torch.rand(24, 4) < 0.85
    present[:, 0] |= ~present.any(dim=1)
    labels = (torch.rand(24, 4) < 0.5) & (torch.arange(24) % 2 == 0)[:, None]
    return InMemory(present, labels, seed, category)


def test_every_subset_equals_an_evaluation_from_scratch() -> None:
    data, method = source(), BrightestIsWorst()
    sweep = sweep_all(scorer(CONFIG, method), data)
    assert len(sweep["subsets"]) == 15
    for result in sweep["subsets"]:
        slots = [view - 1 for view in result["views"]]
        visible = torch.zeros_like(data.present)
        visible[:, slots] = data.present[:, slots]
        seen = visible.any(dim=1)
        images = data.images * visible[:, :, None, None, None]
        with torch.inference_mode():
            maps = method.maps_of(images, visible)
        scores = maps.flatten(1).amax(dim=1)[seen].numpy()
        whole = data.labels.any(dim=1)[seen].numpy()
        shown = (data.labels & visible).any(dim=1)[seen].numpy()
        assert result["samples"] == int(seen.sum())
        assert result["unscorable"] == 24 - int(seen.sum())
        assert result["s_auroc"] == pytest.approx(roc_auc_score(whole, scores), abs=1e-9)
        assert result["s_auroc_visible"] == pytest.approx(roc_auc_score(shown, scores), abs=1e-9)
        pixels, truth = maps[visible].half().flatten().numpy(), data.masks[visible].flatten().numpy()
        assert result["p_auroc"] == pytest.approx(roc_auc_score(truth, pixels), abs=1e-9)


@pytest.mark.parametrize("settings", [{}, {"score": "topk", "top_k": 7, "sample_score": "mean"}])
def test_a_method_that_scores_views_one_by_one_gives_the_same_sweep(settings: dict[str, Any]) -> None:
    config, data = EvalConfig(batch_size=3, **settings), source()
    one_by_one, together = (scorer(config, method) for method in (BrightestOneByOne(), BrightestIsWorst()))
    assert not isinstance(one_by_one.method, ScoresSubsets)
    assert isinstance(together.method, ScoresSubsets)
    assert sweep_all(one_by_one, data) == sweep_all(together, data)
    assert sweep_paper(one_by_one, data, seed=1) == sweep_paper(together, data, seed=1)
    masks = random_masks(data.index, 2)
    for one, other in zip(
        score_masks(one_by_one, data, masks), score_masks(together, data, masks), strict=True
    ):
        np.testing.assert_array_equal(one.scores, other.scores)


def test_the_mean_by_missing_views_is_over_subsets_of_that_size() -> None:
    sweep = sweep_all(SCORER, source())
    for missing, expected in ((0, 1), (1, 4), (2, 6), (3, 4)):
        chosen = [s["s_auroc"] for s in sweep["subsets"] if len(s["views"]) == 4 - missing]
        assert len(chosen) == expected
        assert sweep["by_missing"][str(missing)]["s_auroc"] == pytest.approx(np.mean(chosen))


def test_the_interval_of_the_mean_is_over_samples() -> None:
    data = source()
    sweep = sweep_all(SCORER, data)
    for values in sweep["by_missing"].values():
        low, high = values["s_auroc_ci"]
        assert low <= values["s_auroc"] <= high
        low, high = values["loss_ci"]
        assert low <= sweep["by_missing"]["0"]["s_auroc"] - values["s_auroc"] <= high
    with torch.inference_mode():
        maps = BrightestIsWorst().maps_of(data.images, data.present)
    scores, labels = maps.flatten(1).amax(dim=1).numpy(), data.labels.any(dim=1).numpy()
    assert sweep["by_missing"]["0"]["s_auroc_ci"] == percentile_interval(bootstrap_auroc([scores], labels))
    assert sweep_paper(SCORER, data, seed=1)["by_missing"]["2"]["s_auroc_ci"]


def test_more_cameras_than_can_be_tried_are_sampled_with_error_bars(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("idif.missing_views.camera_value.PERMUTATIONS", 3)
    present = torch.ones(8, 12, dtype=torch.bool)
    labels = torch.zeros(8, 12, dtype=torch.bool)
    labels[::2, :6] = True
    data = InMemory(present, labels)
    sweep = sweep_all(SCORER, data)
    assert len(sweep["subsets"]) <= 12 * 4
    assert all(values["s_auroc_se"] >= 0 for values in sweep["by_missing"].values())
    assert sweep["view_value"].keys() == sweep["view_value_se"].keys() == {str(n) for n in range(1, 13)}
    assert sum(sweep["view_value"].values()) == pytest.approx(sweep["by_missing"]["0"]["s_auroc"] - 0.5)
    assert mean_sweep({"cup": sweep}, tuple(range(1, 13)))["view_value"] == sweep["view_value"]


def test_the_paper_s_protocol_drops_so_many_views_of_each_sample() -> None:
    data = source()
    sweep = sweep_paper(SCORER, data, seed=1)
    assert sweep["subsets"] == []
    assert sweep["view_value"] is None
    assert sweep == sweep_paper(SCORER, data, seed=1)
    assert sweep != sweep_paper(SCORER, data, seed=2)
    full = sweep_all(SCORER, data)["by_missing"]["0"]
    assert sweep["by_missing"]["0"] == full
    assert list(sweep["by_missing"]) == ["0", "1", "2", "3"]
    # samples that lack a view already run out of views when three more are hidden
    assert sweep["by_missing"]["3"]["unscorable"] > 0


def test_calibration_keeps_a_loud_camera_from_deciding() -> None:
    present = torch.ones(40, 2, dtype=torch.bool)
    labels = torch.zeros(40, 2, dtype=torch.bool)
    labels[::2, 1] = True
    data = InMemory(present, labels)
    data.images[:, 0] = torch.randint(0, 255, (40, 1, 1, 1)).byte()
    plain = sweep_all(SCORER, data)["by_missing"]["0"]["s_auroc"]
    quiet = Calibration(mean=(1.0, 0.0), spread=(10.0, 1.0), samples=4)
    fair = sweep_all(scorer(CONFIG, calibration=quiet), data)["by_missing"]["0"]["s_auroc"]
    assert fair > plain + 0.1


def test_the_mean_over_categories_is_taken_subset_by_subset() -> None:
    parts = {name: sweep_all(SCORER, source(seed, name)) for seed, name in enumerate(("cup", "nut"))}
    whole = mean_sweep(parts, (1, 2, 3, 4))
    for place, result in enumerate(whole["subsets"]):
        mine = [part["subsets"][place] for part in parts.values()]
        assert result["views"] == mine[0]["views"]
        assert result["s_auroc"] == pytest.approx(np.mean([m["s_auroc"] for m in mine]))
        assert result["samples"] == sum(m["samples"] for m in mine)
    assert whole["categories"].keys() == parts.keys()
    assert whole["leave_one_out"]["2"] == pytest.approx(
        np.mean([part["leave_one_out"]["2"] for part in parts.values()])
    )
    assert "s_auroc_ci" not in whole["by_missing"]["0"], "the mean of intervals is no interval of the mean"
    assert sum(whole["view_value"].values()) == pytest.approx(whole["by_missing"]["0"]["s_auroc"] - 0.5)


def test_presence_reads_the_index() -> None:
    data = source()
    present, labels = presence(data.index)
    assert torch.equal(torch.from_numpy(present), data.present)
    assert torch.equal(torch.from_numpy(labels), data.labels)
