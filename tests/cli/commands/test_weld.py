"""The commands of weld runs: synthesize, check, plan, build, verify."""

import json
from pathlib import Path
from typing import Any

import pytest

from cli.__main__ import run
from tests.helpers.tiny_weld import make_tiny_weld

SET = ["--encoder", "weld-tiny", "--teacher-weights", "untrained", "--no-store-images"]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("weld") / "data"
    make_tiny_weld(root)
    return root


def answer(capsys: pytest.CaptureFixture[str], *line: str | Path, code: int = 0) -> Any:
    assert run([*map(str, line), "--json"]) == code
    return json.loads(capsys.readouterr().out)


def test_synth_weld(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    value = answer(capsys, "data", "synth-weld", tmp_path / "out", "--runs", "8", "--seed", "3")
    assert value["runs"] == {"train": 3, "val": 2, "test": 3}
    assert (tmp_path / "out" / "run_0008" / "run_0008.avi").is_file()
    again = answer(capsys, "data", "synth-weld", tmp_path / "out", code=2)
    assert "expected an empty folder" in again["error"]


def test_check_build_and_verify(runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert answer(capsys, "data", "check", "weld", "--root", runs)["sound"]
    store = tmp_path / "s.zarr"
    built = answer(
        capsys, "cache", "build", "weld", "--root", runs, "--store", store, "--split", "test", *SET
    )
    assert built["groups"] == ["weld/test"]
    # the sensors' statistics are those of the training runs, whatever the split: the store can be extended
    built = answer(capsys, "cache", "build", "weld", "--root", runs, "--store", store, *SET)
    assert built["groups"] == ["weld/train", "weld/val", "weld/test"]
    verified = answer(capsys, "cache", "verify", store, "--deep", "--root", runs, "--reader", "weld")
    assert verified["sound"]
    plan = answer(capsys, "cache", "plan", "weld", "--root", runs, "--store", tmp_path / "p.zarr", *SET)
    assert plan["sample_bytes"]["sensor"] == 256 * 6 * 4
    assert plan["sample_bytes"]["video"] == 4 * 24 * 2
    written = sum(path.stat().st_size for path in store.glob("*.safetensors"))
    assert 0 <= written - plan["weights_bytes"] < 0.02 * written, "but for the files' headers"
    assert [each["split"] for each in plan["estimates"]] == ["train", "val", "test", "all"]


def test_a_damaged_run_is_named(runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sound = runs / "run_0002" / "run_0002.flac"
    content = sound.read_bytes()
    try:
        sound.write_bytes(content[:999])
        assert run(["data", "check", "weld", "--root", str(runs)]) == 1
        assert "run_0002.flac: cannot be read as sound" in capsys.readouterr().out
        line: list[str | Path] = [
            "cache",
            "build",
            "weld",
            "--root",
            runs,
            "--store",
            tmp_path / "s.zarr",
            *SET,
        ]
        assert "run_0002.flac: cannot be read as sound" in answer(capsys, *line, code=2)["error"]
    finally:
        sound.write_bytes(content)
    assert "weld" in answer(capsys, *line[:3], "--category", "bolt", *line[3:], code=2)["error"]
