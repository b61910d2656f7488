"""Models of a run are each taken by one process, and again where that one stopped."""

import json
from collections.abc import Generator
from pathlib import Path

import pytest

import cli.workflow.model_queue
from cli.workflow.model_queue import take_models


def test_models_are_taken_once_and_again_after_a_stop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(cli.workflow.model_queue, "LOOK_EVERY", 0)
    folders = {name: tmp_path / name for name in "abc"}
    elsewhere: list[str] = []

    def is_done(name: str) -> bool:
        return (folders[name] / "done").exists()

    first = take_models(folders, is_done, elsewhere.append)
    second = take_models(folders, is_done, elsewhere.append)
    assert isinstance(second, Generator)
    assert [next(first), next(second)] == ["a", "b"]
    (folders["a"] / "done").touch()
    assert next(first) == "c"
    (folders["c"] / "done").touch()
    second.close()  # its lock is free, its model is not finished
    # as a process that is killed leaves it
    (folders["b"] / "training.lock.holder").write_text(json.dumps({"pid": 7, "host": "h"}))
    assert next(first) == "b"
    assert "b: process 7 on h has stopped" in capsys.readouterr().err
    (folders["b"] / "done").touch()
    assert list(first) == elsewhere == []
    assert list(take_models(folders, is_done, elsewhere.append)) == []
    assert elsewhere == ["a", "b", "c"]
    assert [path.name for path in tmp_path.glob("*/*")] == ["done"] * 3
