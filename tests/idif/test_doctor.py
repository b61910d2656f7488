"""Doctor: what would make a run fail is a problem and exit code 1; what is slow or missing is a warning."""

import json
import shutil
from collections import namedtuple
from pathlib import Path
from typing import Any

import pytest
import torch
from torchvision.models import ResNet18_Weights

from cache.checking import self_test
from cli.__main__ import run
from cli.commands import doctor as doctor_command
from idif import doctor
from idif.doctor import CheckResult

Usage = namedtuple("Usage", "total used free")


def test_this_machine_passes_and_no_file_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.set_num_threads(1)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    assert run(["doctor", f"--dir={tmp_path}", "--textures=procedural", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["sound"] is True
    checks = {check["name"]: check for check in found["checks"]}
    assert {"python", "libraries", "device", "memory", "disk", "weights", "textures"} <= set(checks)
    assert checks["store and step"]["status"] == "ok"
    assert all(check["advice"] for check in found["checks"] if check["status"] != "ok")
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        doctor, "start_rendering", lambda: lambda: CheckResult("rendering", "warning", "none")
    )


def test_a_problem_gives_exit_code_1(
    quick: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Unsound:
        sound = False
        problems = ("a byte is wrong",)

    monkeypatch.setattr(self_test, "verify_store", lambda store: Unsound())
    asked = ["doctor", f"--dir={tmp_path}", f"--textures={tmp_path / 'dtd'}", "--teacher-weights=none.pth"]
    assert run([*asked, "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    problems = {check["name"]: check for check in found["checks"] if check["status"] == "problem"}
    assert set(problems) == {"textures", "weights", "store and step"}
    assert problems["store and step"]["found"] == "a byte is wrong"
    assert str(tmp_path / "dtd") in problems["textures"]["found"]
    assert all(check["advice"] for check in problems.values())
    monkeypatch.setattr(
        doctor_command, "_smoke_test", lambda device: CheckResult("store and step", "ok", "stub")
    )
    assert run(asked) == 1
    shown = capsys.readouterr().out
    assert "problem" in shown
    assert "none.pth" in shown


def test_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert doctor.check_folder(tmp_path / "not" / "there").found.startswith(str(tmp_path.resolve()))
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(0, 0, 10**8))
    assert doctor.check_folder(tmp_path).status == "problem"
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(0, 0, 10**9))
    assert doctor.check_folder(tmp_path).status == "warning"
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(0, 0, 10**12))
    monkeypatch.setattr(doctor, "SLOW_DISK", 0)
    assert doctor.check_folder(tmp_path).status == "ok"
    monkeypatch.setattr(doctor, "SLOW_DISK", 1e15)
    assert doctor.check_folder(tmp_path).status == "warning"

    def refuse(**where: Any) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("idif.doctor.tempfile.TemporaryFile", refuse)
    found = doctor.check_folder(tmp_path)
    assert (found.status, "Permission denied" in found.found) == ("problem", True)


@pytest.mark.parametrize(("free", "status"), [(None, "ok"), (5e8, "problem"), (2e9, "warning"), (16e9, "ok")])
def test_memory(free: float | None, status: str) -> None:
    assert doctor.check_memory(None if free is None else int(free)).status == status


def test_weights_are_not_downloaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    absent = doctor.check_weights(None)
    assert absent.status == "warning"
    assert not list(tmp_path.iterdir())
    name = ResNet18_Weights.IMAGENET1K_V1.url.rsplit("/", 1)[1]
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / name).touch()
    assert doctor.check_weights("imagenet").status == "ok"
    assert doctor.check_textures(None).status == "warning"


def test_a_library_that_is_missing_or_too_old_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    needed = ["numpy>=999", "no-such-library-at-all", "torch>=1", 'gone>=1; extra == "app"']
    monkeypatch.setattr(doctor, "requires", lambda name: needed)
    found = doctor.check_libraries()
    assert found.status == "problem"
    assert "numpy>=999" in found.found
    assert "no-such-library-at-all (found none)" in found.found
    assert "torch" not in found.found
    assert doctor.check_extras().found == "app: lacks gone"
    monkeypatch.setattr(doctor, "requires", lambda name: ["numpy>=1"])
    monkeypatch.setattr(doctor, "_version", lambda name: None if name == "zarr" else "1.5")
    found = doctor.check_libraries()
    assert (found.status, found.found) == ("ok", "all 1; torch 1.5, torchvision 1.5, tensorstore 1.5")


@pytest.mark.parametrize(
    ("code", "status"),
    [("pass", "ok"), ("raise OSError('no driver')", "warning"), ("import os; os.abort()", "warning")],
)
def test_rendering_may_crash_its_process(code: str, status: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "RENDERING", code)
    found = doctor.start_rendering()()
    assert found.status == status
    if "driver" in code:
        assert "no driver" in found.found


def test_fewer_threads_are_advised_where_they_are_faster() -> None:
    slower = doctor.thread_advice({8: 0.018, 4: 0.010, 1: 0.021})
    assert (slower.status, slower.advice) == (
        "warning",
        "while other work runs beside it, set OMP_NUM_THREADS=4",
    )
    assert "with 4 the same work is 1.8 times as fast" in slower.found
    assert doctor.thread_advice({8: 0.010, 4: 0.0095, 1: 0.02}).status == "ok"


def test_threads_are_measured_quickly_and_stay_as_they_were() -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        assert doctor.check_threads(torch.device("cpu"), limit=0.05).status in ("ok", "warning")
        assert torch.get_num_threads() == 2
        torch.set_num_threads(1)
        assert doctor.check_threads(torch.device("cpu")).found == "1 for computing on the CPU"
    finally:
        torch.set_num_threads(before)


def test_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: "/bin/it" if name == "mine" else None)
    monkeypatch.delenv("CXX", raising=False)
    assert doctor.check_compiler().status == "warning"
    monkeypatch.setenv("CXX", "mine")
    assert doctor.check_compiler().found == "/bin/it"
