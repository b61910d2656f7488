"""Predict: a copied run folder judges photographs as evaluation did, with views missing too."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from cli.__main__ import run
from idif.evaluation.predictions import Predictions
from idif.inference.photo_grouping import PredictInput
from idif.inference.predict import Prediction, Thresholds, prediction_json
from tests.helpers.sealed_run import change_config


@pytest.fixture(scope="module")
def moved(world: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An evaluated run, copied away from its store; its config names one that does not exist."""
    copy = tmp_path_factory.mktemp("elsewhere") / "run"
    shutil.copytree(world / "runs" / "tiny", copy)
    assert run(["eval", str(copy)]) == 0
    change_config(copy, "store.zarr", "gone.zarr")
    return copy


def parts_of(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    parts: list[dict[str, Any]] = json.loads(capsys.readouterr().out)["parts"]
    return parts


def test_it_says_what_evaluation_said_without_the_store(
    world: Path, moved: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = Predictions.open(moved / "predictions.h5")
    samples = world / "data" / "realiad_256"
    given = [str(world / "data" / Path(paths[0]).parent) for paths in found.image_path]
    assert all(samples in Path(folder).parents for folder in given)
    assert run(["predict", str(moved), *given, "--json", f"--out={tmp_path}"]) == 0
    parts = parts_of(capsys)
    assert len(parts) == len(found)
    chosen = json.loads((moved / "metrics.json").read_text(encoding="utf-8"))["categories"]
    for part in parts:
        limits = chosen[part["category"]]["thresholds"]
        assert part["threshold"] == limits["sample"]["value"]
        assert part["anomalous"] is (part["score"] >= limits["sample"]["value"])
        for view in part["views"].values():
            assert view["anomalous"] is (view["score"] >= limits["view"]["value"])
        image = next(iter(part["views"].values()))["image"]
        (row,) = [
            r
            for r in range(len(found))
            if Path(image).parent.match(f"*{found.sample_id[r][-6:]}")
            and found.category[r] == part["category"]
        ]
        # eval read float16 features, predict computes float32 ones
        assert part["score"] == pytest.approx(float(found.sample_scores[row]), rel=5e-3)
        seen = [str(n) for n, there in zip(found.view_numbers, found.present[row], strict=True) if there]
        assert list(part["views"]) == seen
        _, maps, _ = next(iter(found.iter_maps([row], 1)))
        for slot, number in enumerate(found.view_numbers):
            if str(number) in seen:
                drawn = np.load(tmp_path / part["sample"] / f"C{number}.npy")
                np.testing.assert_allclose(drawn, maps[0, slot], atol=5e-3)
                with Image.open(tmp_path / part["sample"] / f"C{number}.png") as picture:
                    assert picture.size == (48, 48)
    lines = (tmp_path / "predictions.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line) for line in lines] == parts


def test_a_view_that_cannot_be_read_counts_as_missing(
    world: Path, moved: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = sorted((world / "data" / "realiad_256" / "cup" / "OK" / "S1000").glob("*.jpg"))
    assert len(whole) == 3
    assert run(["predict", str(moved), str(whole[0]), str(whole[2]), "--json"]) == 0
    (without,) = parts_of(capsys)
    cut = tmp_path / whole[1].name
    cut.write_bytes(whole[1].read_bytes()[:300])
    for path in (whole[0], whole[2]):
        shutil.copy(path, tmp_path)
    assert run(["predict", str(moved), str(tmp_path), "--json"]) == 0
    told = capsys.readouterr()
    (broken,) = json.loads(told.out)["parts"]
    assert broken["missing"] == without["missing"] == [2]
    assert broken["score"] == without["score"]
    assert cut.name in broken["problems"][0]
    assert "counted as missing" in told.err
    assert run(["predict", str(moved), str(tmp_path / "none.jpg"), str(cut), "--category=cup"]) == 2
    assert "none of the photographs could be read" in capsys.readouterr().err


def test_other_names_need_a_category_in_a_run_of_several(
    world: Path, moved: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = next((world / "data" / "realiad_256" / "bolt" / "OK" / "S1000").glob("*C1*.jpg"))
    photo = shutil.copy(source, tmp_path / "photo.jpg")
    assert run(["predict", str(moved), str(photo)]) == 2
    assert "--category" in capsys.readouterr().err
    assert run(["predict", str(moved), str(photo), "--category=bolt", "--jsonl"]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    assert json.loads(line)["category"] == "bolt"
    # one category's folder is a run of one
    assert run(["predict", str(moved / "bolt"), str(photo), "--json"]) == 0
    capsys.readouterr()


def test_a_teacher_of_another_run_is_refused(
    world: Path, moved: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from safetensors.torch import load_file, save_file

    copy = tmp_path / "run"
    shutil.copytree(moved, copy)
    weights = load_file(copy / "teacher.safetensors")
    weights["conv1.weight"] = weights["conv1.weight"] * 2
    save_file(weights, copy / "teacher.safetensors")
    photo = next((world / "data").rglob("*.jpg"))
    assert run(["predict", str(copy), str(photo)]) == 2
    assert "not the weights that were recorded" in capsys.readouterr().err


def test_a_score_at_the_threshold_is_anomalous_and_views_have_their_own() -> None:
    part = PredictInput("cup_1", "cup", (Path("a.png"), Path("b.png"), None))
    scores = np.array([0.25, 0.5, np.nan], np.float32)
    judged = Prediction(part, np.array([True, True, False]), scores, 0.75, None, ())
    shown: dict[str, Any] = prediction_json(judged, (1, 2, 3), Thresholds(part=0.75, view=0.5))
    assert shown["anomalous"] is True
    assert [shown["views"][number]["anomalous"] for number in ("1", "2")] == [False, True]
    above = prediction_json(judged, (1, 2, 3), Thresholds(part=float(np.nextafter(0.75, 1)), view=0.5))
    assert above["anomalous"] is False
    assert prediction_json(judged, (1, 2, 3), Thresholds())["anomalous"] is None
