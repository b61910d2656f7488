"""What evaluation decides and records: thresholds, sample labels, pooling; and what it exports."""

import csv
import io
import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from idif.config.loader import resolve
from idif.config.sections import EvalConfig
from idif.errors import ConfigError, RunError
from idif.evaluation.predictions import Predictions
from idif.evaluation.test_pass import CategoryTask, metrics_of, write_predictions
from idif.evaluation.thresholds import normal_thresholds, sample_labels_of
from idif.metrics import auroc
from idif.report.table_export import check_exports, compare, export, to_csv, to_latex, to_markdown
from tests.helpers.stubs import InMemory, scorer
from tests.idif.evaluation.test_predictions import made, write
from tests.idif.evaluation.test_test_pass import config, data


@pytest.fixture
def predictions(tmp_path: Path) -> Predictions:
    write(tmp_path / "p.h5", made(30))
    return Predictions.open(tmp_path / "p.h5")


def test_the_best_f1_is_recorded_for_samples_and_views(predictions: Predictions) -> None:
    metrics = metrics_of(predictions, EvalConfig())
    for name, found in metrics["categories"].items():
        rows = predictions.rows(name)
        truth = predictions.labels[rows].any(axis=1)
        chosen = found["thresholds"]["sample"]
        flagged = predictions.sample_scores[rows] >= chosen["value"]
        assert 2 * (flagged & truth).sum() / (flagged.sum() + truth.sum()) == pytest.approx(found["s_f1_max"])
        assert chosen["rule"] == "f1-max"
        assert chosen["items"] == 15
        assert found["thresholds"]["view"]["items"] == predictions.present[rows].sum()
    assert metrics["protocol"]["threshold"] == "greatest F1 on the evaluated split (an oracle)"
    assert "thresholds" not in metrics["mean"]
    json.dumps(metrics, allow_nan=False)


def test_nothing_to_choose_from_is_null_with_its_reason(tmp_path: Path) -> None:
    write(tmp_path / "p.h5", [s for s in made(30) if not s.label])
    found = metrics_of(Predictions.open(tmp_path / "p.h5"), EvalConfig())["categories"]["cup"]
    assert found["thresholds"] == {"sample": None, "view": None}
    assert "are normal" in found["reasons"]["thresholds.sample"]


def test_a_false_alarm_rate_needs_no_anomalies_and_is_kept_in_the_file(tmp_path: Path) -> None:
    normal = InMemory(torch.ones(40, 3, dtype=torch.bool), torch.zeros(40, 3, dtype=torch.bool), seed=5)
    settings = config(threshold="false-positive-rate", target_fpr=0.25)
    chosen = normal_thresholds(scorer(settings.eval), normal, range(10, 30))
    path = tmp_path / "p.h5"
    task = CategoryTask("cup", scorer(settings.eval), data(), chosen)
    write_predictions(settings, [task], path)
    found = metrics_of(Predictions.open(path), settings.eval)["categories"]["cup"]["thresholds"]
    assert found["sample"]["items"] == 20
    assert found["view"]["items"] == 60
    bare = CategoryTask("cup", scorer(settings.eval), normal)
    write_predictions(settings, [bare], path)
    flagged = Predictions.open(path).sample_scores[10:30] >= found["sample"]["value"]
    assert flagged.mean() <= 0.25
    with pytest.raises(RunError, match="found none; run `idif eval` without --from-predictions"):
        metrics_of(Predictions.open(path), settings.eval)


def test_a_false_alarm_rate_without_held_out_normals_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"train\.holdout"):
        resolve({"eval": {"threshold": "false-positive-rate"}}, source="test")
    with pytest.raises(ConfigError, match="threshold"):
        resolve({"eval": {"threshold": "lowest"}}, source="test")


def test_a_fixed_threshold_is_taken_as_it_is(predictions: Predictions) -> None:
    (settings,) = resolve({"eval": {"threshold": 0.7}}, source="test")
    found = metrics_of(predictions, settings.eval)["categories"]["cup"]["thresholds"]
    assert found["sample"] == found["view"] == {"value": 0.7, "rule": "fixed", "items": 0}


def test_the_folder_can_be_the_label(tmp_path: Path) -> None:
    samples = made(30)
    for i, sample in enumerate(samples):
        # a folder OK above NG, e.g. of a collection, does not make a sample normal
        folder = ("OK/NG/pit" if i % 6 else "NG/pit") if i % 3 == 0 else "OK"
        views = tuple(None if v is None else type(v)(v.number, f"c/{folder}/S{i}/{v.number}.jpg", v.mask,
                                                    v.anomaly_class) for v in sample.views)  # fmt: skip
        samples[i] = type(sample)(sample.sample_id, sample.category, sample.split, views)
    write(tmp_path / "p.h5", samples)
    p = Predictions.open(tmp_path / "p.h5")
    settings = EvalConfig(sample_label="folder")
    truth = np.arange(30) % 3 == 0
    assert sample_labels_of(p, np.arange(30), settings).tolist() == truth.tolist()
    rows = p.rows("cup")
    metrics = metrics_of(p, settings)
    assert metrics["categories"]["cup"]["s_auroc"] == auroc(p.sample_scores[rows], truth[rows])
    assert metrics["protocol"]["sample_label"] == "anomalous when its images lie in NG"


def test_the_folder_cannot_be_the_label_where_there_is_none(predictions: Predictions) -> None:
    with pytest.raises(RunError, match=r"OK and NG; those of cup/S0 lie in 0"):
        metrics_of(predictions, EvalConfig(sample_label="folder"))


def test_pooling_ranks_all_categories_together(tmp_path: Path) -> None:
    settings = config(pool_categories=True)
    results = []
    for maps in (True, False):
        path = tmp_path / f"{maps}.h5"
        used = scorer(settings.eval)
        tasks = [CategoryTask(n, used, data(n, s)) for s, n in enumerate(("cup", "nut"))]
        pixels = write_predictions(settings, tasks, path, maps=maps)
        results.append(metrics_of(Predictions.open(path), settings.eval, pixels)["pooled"])
    p = Predictions.open(path)
    assert results[0] == results[1]
    assert results[0]["s_auroc"] == auroc(p.sample_scores, np.any(p.labels, axis=1, keepdims=False))
    assert results[0]["counts"]["samples"] == 40
    assert results[0]["p_auroc"] is not None


def numbers(categories: list[str]) -> dict[str, Any]:
    keys = ("s_auroc", "i_auroc", "p_auroc", "p_ap", "aupro")
    found: dict[str, dict[str, float | None]] = {
        name: dict.fromkeys(keys, 0.5 + i / 100) for i, name in enumerate(categories)
    }
    found[categories[0]]["aupro"] = None
    return {"categories": found, "mean": dict.fromkeys(keys, 0.75)}


def test_tables_follow_the_papers_order_with_its_columns_beside_ours() -> None:
    metrics = numbers(["zipper", "audiojack", "sim_card_set"])
    table = compare(metrics)
    assert [name for name, _ in table.rows] == ["audiojack", "sim_card_set", "zipper", "mean"]
    assert table.columns[:5] == ["s_auroc", "i_auroc", "p_auroc", "p_ap", "aupro"]
    methods = [c.split()[0] for c in table.columns[5:] if c.endswith("s_auroc")]
    assert methods == ["PaDiM", "PatchCore", "RD", "UniAD", "DeSTSeg", "SimpleNet", "IDIF"]
    lines = list(csv.DictReader(io.StringIO(to_csv(compare(metrics)))))
    assert lines[0]["IDIF s_auroc"] == "0.961"
    assert lines[0]["s_auroc"] == "0.51"
    assert lines[2]["aupro"] == ""
    assert float(lines[3]["IDIF p_auroc"]) == pytest.approx((0.984 + 0.993 + 0.987) / 3)
    rows = to_markdown(compare(metrics)).splitlines()
    assert rows[2].startswith("| audiojack | 51.0 |")
    assert rows[4].split(" | ")[5] == "–"
    latex = to_latex(compare(metrics))
    assert r"sim\_card\_set & 52.0" in latex
    assert latex.count(r"\midrule") == 2


def test_other_data_stand_alone_in_their_own_order() -> None:
    table = compare(numbers(["zipper", "mug"]))
    assert [name for name, _ in table.rows] == ["zipper", "mug", "mean"]
    assert len(table.columns) == 5
    assert r"\midrule" in to_latex(compare(numbers(["mug"])))


def test_the_adeval_pickle_holds_map_score_and_mask_path(predictions: Predictions, tmp_path: Path) -> None:
    path = tmp_path / "maps.pkl"
    export(path, metrics_of(predictions, EvalConfig()), predictions)
    found = pickle.loads(path.read_bytes())
    assert type(found) is dict
    assert len(found) == predictions.present.sum()
    for row, maps, _ in predictions.iter_maps([2], block=1):
        heat, score, mask = found["2/C1.jpg"]
        assert np.array_equal(heat, maps[0, 0])
        assert (score, mask) == (float(predictions.view_scores[row[0], 0]), "2/C1.png")
        assert isinstance(score, float)
    assert found["0/C1.jpg"][2] is None
    assert {p.name for p in tmp_path.iterdir()} == {"p.h5", "maps.pkl"}, "nothing is left beside it"


def test_exports_that_cannot_be_are_refused_before_any_work(predictions: Predictions, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"\.csv, \.md, \.tex, \.pkl"):
        check_exports([tmp_path / "table.xlsx"])
    with pytest.raises(RunError, match=r"no .*nowhere"):
        check_exports([tmp_path / "nowhere" / "t.csv"])
    write(tmp_path / "bare.h5", made(), maps=False)
    with pytest.raises(RunError, match="--no-maps"):
        export(tmp_path / "maps.pkl", {}, Predictions.open(tmp_path / "bare.h5"))
    assert not (tmp_path / "maps.pkl").exists()
    assert not (tmp_path / "maps.pkl.tmp").exists()


def test_a_file_of_another_format_is_named(tmp_path: Path) -> None:
    import h5py

    write(tmp_path / "p.h5", made())
    with h5py.File(tmp_path / "p.h5", "r+") as file:
        file.attrs["format"] = "idif predictions 1"
    with pytest.raises(RunError, match="'idif predictions 2', found 'idif predictions 1'"):
        Predictions.open(tmp_path / "p.h5")
