"""Memories by the command line: fitted, evaluated, swept, reported, exported, and extended with new parts."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from cli.__main__ import run
from idif.inference.photo_grouping import find_parts
from idif.training.checkpoint import load_weights
from tests.helpers.exported import agree, answers, judged_by_the_run, stacked
from tests.helpers.tiny_data import make_tiny_realiad, tiny_index, write_annotations

METHODS = {
    "padim": ["--set=method.name=padim", "--set=method.dimensions=8"],
    "patchcore": ["--set=method.name=patchcore", "--set=method.coreset=1"],
}


def build(home: Path, train: int) -> None:
    """The dataset with ``train`` training parts, and its store; a larger number gives the same and more."""
    index = tiny_index(categories=("cup",), train=train, test=6)
    make_tiny_realiad(home / "data", index)
    write_annotations(home / "data", index)
    store = f"--store={home / f'{train}.zarr'}"
    command = ["cache", "build", "realiad", f"--root={home / 'data'}", store]
    assert run([*command, "--image-size=48", "--teacher-weights=untrained"]) == 0


def fit(home: Path, name: str, method: str, *options: str) -> int:
    config = home / "c.yaml"
    config.write_text(
        f"cache: {{store: '{(home / '4.zarr').as_posix()}'}}\nrun: {{dir: '{(home / 'runs').as_posix()}'}}\n",
        encoding="utf-8",
    )
    return run(["train", f"--config={config}", f"--set=run.name={name}", *METHODS[method], *options])


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    home = tmp_path_factory.mktemp("memory")
    build(home, 4)
    for method in METHODS:
        assert fit(home, method, method) == 0
        assert run(["eval", str(home / "runs" / method)]) == 0
    return home


def results(home: Path, method: str, file: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((home / "runs" / method / file).read_text(encoding="utf-8"))
    return found


@pytest.mark.parametrize("method", METHODS)
def test_every_command_works_on_a_memory(home: Path, method: str, capsys: pytest.CaptureFixture[str]) -> None:
    folder = home / "runs" / method
    assert run(["sweep", "missing-views", str(folder)]) == 0
    whole = results(home, method, "metrics.json")["categories"]["cup"]
    swept = results(home, method, "sweep.json")["categories"]["cup"]["by_missing"]["0"]
    for key in ("s_auroc", "p_auroc"):
        assert swept[key] == pytest.approx(whole[key], abs=1e-6)
    assert run(["report", str(folder)]) == 0
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert f"{method.upper()} (one model) was fitted in one pass, without training, and evaluated" in page
    assert "Trained for" not in page
    assert "epoch" not in results(home, method, "metrics.json")["protocol"]
    photo = next((home / "data").rglob("*.jpg"))
    assert run(["predict", str(folder), str(photo), "--out", str(home / "out" / method)]) == 0
    assert run(["runs", str(folder), "--json"]) == 0
    listed = json.loads(capsys.readouterr().out.split("\n{")[-1].join(["{", ""]))["runs"][0]
    assert (listed["state"], listed["models"][0]["stages"]) == ("finished", [])


@pytest.mark.parametrize("method", METHODS)
def test_the_exported_memory_says_what_the_run_says(
    home: Path, method: str, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, out = home / "runs" / method, home / "out" / method
    assert run(["export", str(folder), "--out", str(out / "cup.onnx")]) == 2
    assert "cup.onnx: expected a folder" in capsys.readouterr().err
    assert run(["export", str(folder), "--out", str(out)]) == 0
    parts = find_parts([home / "data"], (1, 2, 3), ("cup",))
    assert any(None in part.images for part in parts), "a missing view is a case of its own"
    images, present = stacked(parts, 48, lambda: np.zeros((3, 48, 48), np.uint8))
    agree(answers(out / "cup.onnx", images, present), judged_by_the_run(folder, parts))


def test_a_dry_run_says_how_large_the_memory_will_be(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    assert fit(home, "dry", "patchcore", "--dry-run", "--json", "--set=train.batch_size=1") == 0
    (model,) = json.loads(capsys.readouterr().out)["runs"][0]["models"]
    weights = load_weights(home / "runs" / "patchcore" / "cup" / "checkpoint")
    size = sum(tensor.nbytes for tensor in weights.values())
    assert model["estimate"]["state_bytes"] == pytest.approx(size, rel=0.25)  # one part lacks a view
    assert not (home / "runs" / "dry").exists()


def test_what_only_gradient_steps_have_is_refused(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert fit(home, "other", "padim", "--set=train.lr=0.1") == 2
    assert "train.lr: padim is fitted in one pass without gradient steps" in capsys.readouterr().err


@pytest.mark.parametrize("method", METHODS)
def test_parts_that_a_store_holds_beside_the_fitted_ones_are_added(
    tmp_path: Path, method: str, capsys: pytest.CaptureFixture[str]
) -> None:
    build(tmp_path, 4)
    assert fit(tmp_path, "grown", method) == 0
    first = load_weights(tmp_path / "runs" / "grown" / "cup" / "checkpoint")
    assert fit(tmp_path, "grown", method, "--resume") == 0
    assert "finished before" in capsys.readouterr().out
    build(tmp_path, 6)
    larger = f"--set=cache.store={tmp_path / '6.zarr'}"
    assert fit(tmp_path, "grown", method, "--resume", larger) == 0
    assert "2 samples are added to the 4 that it is fitted to" in capsys.readouterr().err
    assert fit(tmp_path, "new", method, larger) == 0
    grown, new = (load_weights(tmp_path / "runs" / n / "cup" / "checkpoint") for n in ("grown", "new"))
    assert int(grown["counts"].sum()) > int(first["counts"].sum())
    for name, values in new.items():
        torch.testing.assert_close(grown[name], values, rtol=1e-5, atol=1e-6)
    assert fit(tmp_path, "grown", method, "--resume") == 0, "the smaller store: the two are gone"
    assert "2 of its samples are no training samples now; it is fitted again" in capsys.readouterr().err
    again = load_weights(tmp_path / "runs" / "grown" / "cup" / "checkpoint")
    for name, values in first.items():
        torch.testing.assert_close(again[name], values, rtol=0, atol=0)


def test_a_run_is_compared_with_its_baseline(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = home / "runs" / "patchcore"
    (home / "c.yaml").touch()
    assert fit(home, "padded", "padim", "--set=train.holdout=0.3") == 0
    run_folder = home / "runs" / "padded"
    assert run(["baseline", str(run_folder)]) == 0
    assert "next: idif eval" in capsys.readouterr().err
    first = (run_folder / "baseline" / "cup" / "checkpoint" / "checkpoint.json").read_text(encoding="utf-8")
    assert run(["eval", str(run_folder), "--json"]) == 0
    assert "fitted to the same store: S-AUROC" in capsys.readouterr().err
    assert run(["baseline", str(run_folder), "--json"]) == 0, "the same memory again: nothing to fit"
    found = json.loads(capsys.readouterr().out)
    assert found["compared"]["baseline"] == "PATCHCORE"
    low, high = found["compared"]["mean"]["difference_ci"]
    assert low <= found["compared"]["mean"]["difference"] <= high
    assert (run_folder / "baseline" / "cup" / "checkpoint" / "checkpoint.json").read_text() == first
    # fitted to the run's own samples: those held out are none of them
    weights = load_weights(run_folder / "baseline" / "cup" / "checkpoint")
    whole = load_weights(folder / "cup" / "checkpoint")
    assert int(weights["seen"][0]) < int(whole["seen"][0])
    assert run(["report", str(run_folder)]) == 0
    assert found["compared"]["sentence"] in (run_folder / "report.html").read_text(encoding="utf-8")
    assert run(["baseline", str(run_folder), "--set=method.name=idif"]) == 2
    assert "a baseline is fitted" in capsys.readouterr().err
    assert run(["baseline", str(run_folder), "--set=method.window=1"]) == 0
    assert "replaced, its settings were others" in capsys.readouterr().err
    assert run(["eval", str(run_folder), "--split=train"]) == 0
    assert "holds other samples" in capsys.readouterr().err
    assert [listed["name"] for listed in _runs(home, capsys)] == ["padded", "padim", "patchcore"]


def _runs(home: Path, capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    capsys.readouterr()
    assert run(["runs", str(home / "runs"), "--json"]) == 0
    found: list[dict[str, Any]] = json.loads(capsys.readouterr().out)["runs"]
    return found
