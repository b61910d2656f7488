"""`idif runs`: every state of a run, and folders that hold none."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from cli.__main__ import run
from idif.config.loader import resolve
from idif.runs.files import read_config
from idif.runs.listing import StageProgress, summarize_run
from tests.helpers.tiny_run import FAST

MEAN = {"s_auroc": 0.9812, "i_auroc": 0.9, "p_auroc": None, "aupro": 0.5}


def make_run(
    home: Path,
    name: str,
    epochs: Mapping[str, int],
    *settings: str,
    mean: Mapping[str, float | None] | None = None,
) -> Path:
    """A run's small files; ``epochs`` are those finished of 20, by model."""
    folder = home / name
    raw = {"run": {"name": name, "dir": str(home)}, "data": {"categories": ["bolt", "cup"]}}
    (config,) = resolve(raw, ["train.epochs=20", *settings], source=name)
    folder.mkdir()
    (folder / "config.yaml").write_text(config.to_yaml(), encoding="utf-8")
    for model, epoch in epochs.items():
        checkpoint = folder / model / "checkpoint"
        checkpoint.mkdir(parents=True)
        note = {"epoch": epoch, "step": epoch, "finished": epoch == 20, "sha256": {}}
        (checkpoint / "checkpoint.json").write_text(json.dumps(note), encoding="utf-8")
    if mean is not None:
        (folder / "metrics.json").write_text(json.dumps({"mean": mean}), encoding="utf-8")
    return folder


def listed(folder: Path, capsys: pytest.CaptureFixture[str]) -> dict[str, dict[str, Any]]:
    assert run(["runs", str(folder), "--json"]) == 0
    return {entry["name"]: entry for entry in json.loads(capsys.readouterr().out)["runs"]}


def stages(entry: dict[str, Any]) -> list[Sequence[Any]]:
    return [
        (stage["name"], stage["epochs"], stage["of"])
        for model in entry["models"]
        for stage in model["stages"]
    ]


def test_every_state_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_run(tmp_path, "done", {"bolt": 20, "cup": 20}, mean=MEAN)
    make_run(tmp_path, "half", {"bolt": 20, "cup": 4})
    make_run(tmp_path, "new", {})
    make_run(tmp_path, "one", {"all": 20}, "train.mode=unified")
    two = ["data.categories=[cup]", "method.head=segmentation", "method.head_epochs=30"]
    staged = make_run(tmp_path, "two", {"cup/student": 20, "cup": 2}, *two)
    (staged / "environment.json").write_text('{"stages": {"student": 20, "head": 30}}', encoding="utf-8")
    fused = make_run(tmp_path, "fused", {}, mean=MEAN)
    (fused / "environment.json").write_text('{"fused": []}', encoding="utf-8")
    damaged = make_run(tmp_path, "damaged", {"bolt": 3})
    (damaged / "bolt" / "checkpoint" / "checkpoint.json").write_text("{", encoding="utf-8")
    (make_run(tmp_path, "old", {}) / "config.yaml").write_text("train: {epoch: 1}", encoding="utf-8")
    (tmp_path / "no run").mkdir()

    runs = listed(tmp_path, capsys)
    assert {name: entry["state"] for name, entry in runs.items()} == {
        "damaged": "unreadable",
        "done": "finished",
        "fused": "fusion",
        "half": "stopped",
        "new": "not started",
        "old": "unreadable",
        "one": "finished",
        "two": "stopped",
    }
    assert runs["done"]["metrics"] == MEAN
    assert runs["half"]["metrics"] is None
    assert stages(runs["half"]) == [(None, 20, 20), (None, 4, 20)]
    assert stages(runs["new"]) == [(None, 0, 20), (None, 0, 20)]
    assert stages(runs["two"]) == [("student", 20, 20), ("head", 2, 30)]
    assert [model["name"] for model in runs["one"]["models"]] == ["all"]
    assert "did you mean 'epochs'" in runs["old"]["problem"]
    assert "damaged checkpoint" in runs["damaged"]["problem"]
    assert runs["done"]["method"] == "idif"
    assert runs["done"]["categories"] == ["bolt", "cup"]
    assert runs["done"]["bytes"] == sum(
        p.stat().st_size for p in (tmp_path / "done").rglob("*") if p.is_file()
    )


def test_the_table_fits_into_80_columns(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    make_run(tmp_path, "realiad-missing-views", {"bolt": 20, "cup": 20}, mean=MEAN)
    make_run(tmp_path, "half", {"bolt": 20, "cup": 4})
    (make_run(tmp_path, "old", {}) / "config.yaml").write_text("train: {epoch: 1}", encoding="utf-8")
    assert run(["runs", str(tmp_path)]) == 0
    printed = capsys.readouterr()
    lines = printed.out.splitlines()
    assert max(map(len, lines)) <= 80
    row = next(i for i, line in enumerate(lines) if line.startswith("realiad-missing-views"))
    assert lines[row].split()[1:4] == ["finished", "98.1", "90.0"]
    assert lines[row + 1].startswith("idif, 2 categories")
    assert "20 epochs" in lines[row + 1]
    assert "stopped, 1/2 done" in printed.out
    assert "4-20/20 epochs" in printed.out
    assert printed.err.startswith("note: old: ")


def test_a_run_is_listed_alone_and_a_wrong_folder_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert [*listed(make_run(tmp_path, "done", {"bolt": 20, "cup": 20}), capsys)] == ["done"]
    (tmp_path / "empty").mkdir()
    assert listed(tmp_path / "empty", capsys) == {}
    assert run(["runs", str(tmp_path / "nowhere")]) == 2
    assert "nowhere: no such folder" in capsys.readouterr().err


def test_a_trained_run_is_finished(world: Path, capsys: pytest.CaptureFixture[str]) -> None:
    entry = listed(world / "runs" / "tiny", capsys)["tiny"]
    assert entry["state"] == "finished"
    assert stages(entry) == [(None, 1, 1), (None, 1, 1)]


def test_a_run_that_patience_ended_is_finished(world: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = world / "runs" / "tiny"
    config = read_config(folder)
    for patience, state in ((0, "stopped"), (2, "finished")):
        train = config.train.model_copy(update={"epochs": 9, "eval_every": 1, "patience": patience})
        longer = config.model_copy(update={"train": train})
        monkeypatch.setattr("idif.runs.listing.read_config", lambda _, longer=longer: longer)
        monkeypatch.setattr("idif.runs.listing.read_facts", lambda _: {})
        assert summarize_run(folder).state == state


def test_a_run_records_its_stages_when_it_starts(world: Path, tmp_path: Path) -> None:
    staged = ["--set=method.head=segmentation", "--set=method.head_epochs=2", "--set=data.categories=[cup]"]
    train = ["train", f"--config={world / 'c.yaml'}", f"--set=run.dir={tmp_path.as_posix()}"]
    assert run([*train, *FAST, *staged]) == 0
    assert summarize_run(tmp_path / "tiny").models[0].stages == (
        StageProgress("student", 1, 1, steps=1),
        StageProgress("head", 2, 2, steps=2),
    )
