"""`idif cache` as users type it: compact stores, export, plan, and whatever stops a build, told once."""

import errno
import json
import os
import signal
import subprocess
import sys
from collections import namedtuple
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import cli.terminal.signals
import idif.encoders.encode
import idif.files
from cli.__main__ import run
from tests.helpers.tiny_data import make_tiny_realiad, tiny_index, tree, two_cameras, write_annotations
from tests.helpers.tiny_store import build_by_command
from tests.helpers.vector_encoder import installed

INDEX = tiny_index(["cup"], train=3, test=2)


def build(data: Path, store: Path, *more: str) -> int:
    return build_by_command(data, store, 32, *more)


@pytest.fixture(scope="module")
def reference(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    store = tmp_path_factory.mktemp("store") / "s"
    assert build(data, store) == 0
    return store


def result(capsys: pytest.CaptureFixture[str]) -> tuple[dict[str, Any], str]:
    """The one JSON object on stdout, and stderr without the note about the untrained teacher."""
    captured = capsys.readouterr()
    assert captured.out.count("\n") == 1
    lines = [line for line in captured.err.splitlines() if not line.startswith("note:")]
    return json.loads(captured.out), "\n".join(lines)


def test_a_compact_store_is_built_shown_and_verified(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = tmp_path / "s"
    assert build(data, store, "--dtype=uint8") == 0
    assert result(capsys)[0]["views_encoded"] == 13
    assert run(["cache", "verify", str(store), f"--root={data}", "--deep", "--json"]) == 0
    assert result(capsys)[0]["sound"] is True
    assert run(["cache", "info", str(store), "--json"]) == 0
    assert result(capsys)[0]["spec"]["storage"] == "uint8"
    assert build(data, store) == 2  # float16 now
    assert "storage: 'uint8', not 'float16'" in result(capsys)[1]


def test_several_encoders_are_built_shown_and_verified(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = tmp_path / "s"
    with installed():
        both = ("--encoder=resnet18", "--encoder=signed-map")
        assert build(data, store, *both, "--dtype=uint8") == 0
        capsys.readouterr()
        assert run(["cache", "verify", str(store), "--deep", "--json"]) == 0
        capsys.readouterr()
        assert run(["cache", "info", str(store), "--json"]) == 0
        encoders = result(capsys)[0]["spec"]["encoders"]
        assert [encoder["name"] for encoder in encoders] == ["resnet18", "signed-map"]
        assert run(["cache", "info", str(store)]) == 0
        assert "contrast" in capsys.readouterr().out
        assert build(data, store, "--dtype=uint8") == 2  # one encoder now
        assert "encoders" in result(capsys)[1]
        assert build(data, tmp_path / "t", *both, "--teacher-weights=weights.pth") == 2
        assert "expected NAME=FILE with one of the encoders resnet18, signed-map" in result(capsys)[1]
    assert build(data, tmp_path / "t", "--encoder=resnet81") == 2
    assert "teacher.encoder (--encoder): there is no 'resnet81'; known: resnet18" in result(capsys)[1]


def test_a_config_names_what_options_do_not(
    data: Path, reference: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store, config = tmp_path / "s", tmp_path / "c.yaml"
    config.write_text(
        f"data: {{root: '{data.as_posix()}', categories: [cup]}}\n"
        f"cache: {{store: '{store.as_posix()}'}}\n"
        f"teacher: {{weights: untrained, image_size: 64}}\n",
        encoding="utf-8",
    )
    command = ["cache", "build", "realiad", f"--config={config}", "--set=teacher.image_size=32", "--json"]
    assert run(command) == 0
    capsys.readouterr()
    assert tree(store) == tree(reference)
    assert run([*command, f"--store={tmp_path / 't'}"]) == 0
    capsys.readouterr()
    assert tree(tmp_path / "t") == tree(reference)
    assert run(["cache", "build", "realiad", f"--root={data}", "--json"]) == 2
    assert "--store: expected the store's place" in result(capsys)[1]
    assert run(["cache", "build", "realiad", "--store=s", "--json"]) == 2
    assert "--root: expected the dataset's folder" in result(capsys)[1]
    assert run(["cache", "build", "realiad", "--set=teacher.image_size=32", "--json"]) == 2
    assert "name one with --config" in result(capsys)[1]


def test_categories_of_different_cameras_are_built_one_by_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, store = tmp_path / "data", tmp_path / "s"
    index = two_cameras(tiny_index(train=3, test=2), "cup")
    make_tiny_realiad(data, index)
    write_annotations(data, index)
    assert build(data, store, "--category=bolt") == 0
    capsys.readouterr()
    (tmp_path / "c.yaml").write_text("method: {name: patchcore}", encoding="utf-8")
    with_config = ["--category=cup", f"--config={tmp_path / 'c.yaml'}", "--store-images"]
    assert build(data, store, *with_config, "--set=data.views=[1,2]") == 2
    assert f"data.views: [1, 2], but {store} holds views [1, 2, 3]" in capsys.readouterr().err
    assert build(data, store, *with_config, "--set=data.views=[3,2,1]") == 0
    assert result(capsys)[0]["views_encoded"] == 8
    assert build(data, store, "--category=cup") == 0
    assert result(capsys)[0]["views_encoded"] == 0
    assert build(data, tmp_path / "whole") == 0
    assert tree(store) == tree(tmp_path / "whole")
    assert run(["cache", "verify", str(store), f"--root={data}", "--json"]) == 0


def test_export_and_import(reference: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file, back = tmp_path / "s.h5", tmp_path / "back"
    assert run(["cache", "export", str(reference), str(file), "--json"]) == 0
    assert result(capsys)[0]["bytes"] == file.stat().st_size
    assert run(["cache", "import", str(file), str(back), "--json"]) == 0
    assert result(capsys)[0]["samples"] == 5
    assert tree(back) == tree(reference)
    assert run(["cache", "import", str(file), str(back), "--json"]) == 2
    assert "is there already" in result(capsys)[1]


def test_a_plan_in_numbers_and_in_words(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["cache", "plan", "realiad", f"--root={data}", f"--store={tmp_path / 'new' / 's.zarr'}"]
    command += ["--image-size=32"]
    assert run([*command, "--json"]) == 0
    plan = result(capsys)[0]
    assert [part["images"] for part in plan["estimates"]] == [8, 5, 13]
    assert plan["fits"] is True
    assert run(command) == 0
    assert "images/s" in capsys.readouterr().out
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("name", "code"), [("SIGINT", 130), ("SIGTERM", 143)])
def test_a_stopped_build_says_so_once_and_is_continued(
    data: Path,
    reference: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    name: str,
    code: int,
) -> None:
    calls: list[int] = []
    encode = idif.encoders.encode.encode_present

    def stopped(*arguments: Any) -> dict[str, torch.Tensor]:
        calls.append(1)
        if len(calls) == 2:
            signal.raise_signal(getattr(signal, name))
        return encode(*arguments)

    # a shell that starts the tests in the background has them ignore SIGINT
    before = {
        signal.SIGINT: signal.signal(signal.SIGINT, signal.default_int_handler),
        signal.SIGTERM: signal.signal(signal.SIGTERM, cli.terminal.signals.handle),
    }
    try:
        with monkeypatch.context() as patch:
            patch.setattr(idif.encoders.encode, "encode_present", stopped)
            assert build(data, tmp_path / "s") == code
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    value, said = result(capsys)
    assert value["exit_code"] == code
    assert said in ("error: interrupted", "error: terminated")
    assert not list((tmp_path / "s").rglob("*.tmp"))
    assert run(["cache", "info", str(tmp_path / "s"), "--json"]) == 1  # not taken for whole
    assert "run 'idif cache build' again" in result(capsys)[1]
    assert build(data, tmp_path / "s") == 0
    assert result(capsys)[0]["shards_kept"] == 1
    assert tree(tmp_path / "s") == tree(reference)


def _read_only(patch: pytest.MonkeyPatch) -> None:
    def refuse(path: Any, *_: Any) -> int:
        raise OSError(errno.EROFS, "Read-only file system", str(path))

    patch.setattr(os, "open", refuse)


def _little_space(patch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", "total used free")
    patch.setattr("cache.building.build_state.shutil.disk_usage", lambda path: usage(10, 10, 1000))


def _full(patch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    patch.setattr("idif.files.os.fsync", refuse)


def _overflow(patch: pytest.MonkeyPatch) -> None:
    encode = idif.encoders.encode.encode_present
    patch.setattr(
        idif.encoders.encode,
        "encode_present",
        lambda *a: {name: x * 1e9 for name, x in encode(*a).items()},
    )


STOPS: list[tuple[Callable[[pytest.MonkeyPatch], None], int, str]] = [
    (_read_only, 2, "s: cannot be written (Read-only file system)"),
    (_little_space, 3, "the build needs"),
    (_full, 3, "no space left on the device"),
    (_overflow, 3, "row 0 (sample cup/OK/S0000), view 1, layer1: features are not finite as float16"),
]


@pytest.mark.parametrize(("stop", "code", "text"), STOPS, ids=lambda value: getattr(value, "__name__", ""))
def test_what_stops_a_build_is_said_once(
    data: Path,
    reference: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    stop: Callable[[pytest.MonkeyPatch], None],
    code: int,
    text: str,
) -> None:
    with monkeypatch.context() as patch:
        stop(patch)
        assert build(data, tmp_path / "s") == code
    value, said = result(capsys)
    assert value["exit_code"] == code
    assert said.count("\n") == 0
    assert text in said
    assert not list((tmp_path / "s").rglob("*.tmp"))
    assert not list((tmp_path / "s").rglob("*/*/manifest.json"))
    assert build(data, tmp_path / "s") == 0  # once the reason is gone, the same command is enough
    assert tree(tmp_path / "s") == tree(reference)


@pytest.mark.long
def test_torchrun_builds_the_same_store(data: Path, reference: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command += ["-m", "cli", "cache", "build", "realiad", f"--root={data}", f"--store={tmp_path / 's'}"]
    command += ["--image-size=32", "--teacher-weights=untrained", "--json"]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[3])}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=500, check=True)
    assert json.loads(done.stdout)["views_encoded"] == 13
    assert tree(tmp_path / "s") == tree(reference)
