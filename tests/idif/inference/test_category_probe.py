"""The probe of categories: fitted while training, kept in the run, used by `idif predict --category auto`."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from cli.__main__ import run
from idif.data.arrays import feature_map
from idif.data.features import EncoderSpec, FeatureSpec
from idif.inference.category_probe import NUMBERS, CategoryProbe, pool_features
from idif.runs.api import load_run
from idif.runs.category_probe import PROBE_FILE, PROBE_WEIGHTS, load_probe
from tests.helpers.tiny_run import FAST


def answer(capsys: pytest.CaptureFixture[str], *line: str) -> tuple[int, Any]:
    code = run([*line, "--json"])
    return code, json.loads(capsys.readouterr().out)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory, world: Path) -> Path:
    """The photographs of two parts, in folders whose names tell nothing, and one that cannot be read."""
    folder = tmp_path_factory.mktemp("photos")
    for name, category in (("first", "cup"), ("second", "bolt")):
        (folder / name).mkdir()
        paths = sorted(path for path in (world / "data").rglob("*.jpg") if category in path.parts)
        for number, path in enumerate(paths[:2]):
            shutil.copy(path, folder / name / f"{'ab'[number]}.jpg")
    (folder / "third").mkdir()
    (folder / "third" / "a.jpg").write_bytes(b"not a photograph")
    return folder


def test_training_keeps_a_probe_and_prints_how_good_it_is(
    world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    probe = load_probe(world / "runs" / "tiny")
    assert probe is not None
    assert probe.categories == ("bolt", "cup")
    assert probe.held_out > 0
    facts = json.loads((world / "runs" / "tiny" / PROBE_FILE).read_text())
    assert facts["accuracy"] == probe.accuracy
    assert f"of {probe.held_out} held-out normals" in probe.sentence()
    line = [
        "train",
        f"--config={world / 'c.yaml'}",
        *FAST,
        f"--set=run.dir={tmp_path}",
        "--set=data.categories=[cup]",
    ]
    assert run(line) == 0
    assert "linear probe" not in capsys.readouterr().err
    assert load_probe(tmp_path / "tiny") is None


def test_the_category_is_told_by_the_photographs(
    world: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = ["predict", str(world / "runs" / "tiny"), str(photos), "--category=auto", f"--out={tmp_path}"]
    code, found = answer(capsys, *line)
    assert code == 0
    parts = {part["sample"]: part for part in found["parts"]}
    for name in ("first", "second"):
        told = parts[name]["category_probabilities"]
        assert parts[name]["category"] == max(told, key=told.get)
        assert sum(told.values()) == pytest.approx(1, abs=1e-5)
        assert list(told) == sorted(told, key=told.get, reverse=True)
    assert parts["third"]["score"] is None
    assert parts["third"]["category"] == "auto"
    kept = [json.loads(line) for line in (tmp_path / "predictions.jsonl").read_text().splitlines()]
    assert {part["sample"]: part.get("category_probabilities") for part in kept} == {
        name: part.get("category_probabilities") for name, part in parts.items()
    }
    from_python = load_run(world / "runs" / "tiny").predict([photos], "auto")
    assert {part.part.name: (part.part.category, part.score) for part in from_python} == {
        name: (part["category"], part["score"]) for name, part in parts.items()
    }
    assert run([*line[:2], str(photos / "first"), "--category=auto"]) == 0
    assert "%" in capsys.readouterr().out


def test_what_prevents_it_is_said(
    world: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    older = tmp_path / "older"
    shutil.copytree(world / "runs" / "tiny", older)
    for name in (PROBE_FILE, PROBE_WEIGHTS):
        (older / name).unlink()
    line = ["predict", str(older), str(photos / "first"), "--category=auto"]
    code, found = answer(capsys, *line, f"--set=cache.store={tmp_path / 'gone.zarr'}")
    assert code == 2
    assert "has no probe of its categories" in found["error"]
    code, _ = answer(capsys, *line)
    assert code == 0
    assert load_probe(older) is not None, "fitted to the store, and kept"
    code, found = answer(capsys, "predict", str(older / "cup"), str(photos / "first"), "--category=auto")
    assert code == 2
    assert "has one category, cup" in found["error"]
    (older / PROBE_WEIGHTS).write_bytes(b"damaged")
    code, found = answer(capsys, *line)
    assert code == 2
    assert "damaged" in found["error"]


def test_pooled_features_are_means_and_deviations_whatever_the_number_of_views() -> None:
    few, many = feature_map("few", 4, 8, "e"), feature_map("many", 300, 4, "e")
    spec = FeatureSpec((EncoderSpec("e", "untrained", "0", "image", {}, (few, many)),), 64, "float32")
    arrays = {a.name: torch.randn(2, 3, *a.shape) for a in (few, many)}
    pooled = pool_features(arrays, spec)
    assert pooled.shape == (2, 3, NUMBERS + 4 + 300 + 300)
    assert torch.allclose(
        pooled[..., NUMBERS + 4 : NUMBERS + 304], arrays["many"].mean(dim=(3, 4)), atol=1e-6
    )
    probe = CategoryProbe(("a", "b"), torch.randn(2, pooled.shape[2]) / 10, torch.zeros(2), 0, None)
    alone = torch.tensor([[True, False, False]] * 2)
    one = probe.probabilities(pooled[:, :1], alone[:, :1])
    assert torch.allclose(probe.probabilities(pooled, alone), one)
    assert torch.allclose(one.sum(dim=1), torch.ones(2))
