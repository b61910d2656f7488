"""Locks of trainings: a second process is refused, and a run is what one of them made."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from cli.__main__ import run
from idif.errors import RunError
from idif.runs.lock import model_lock, run_lock
from tests.helpers.tiny_run import FAST

HOLD = """
import sys
from pathlib import Path
from idif.runs.lock import model_lock, run_lock
with (run_lock if sys.argv[1] == "run" else model_lock)(Path(sys.argv[2])):
    print("held", flush=True)
    sys.stdin.read()
"""


def holder(kind: str, folder: Path) -> subprocess.Popen[str]:
    """A process that holds a lock until its input is closed."""
    command = [sys.executable, "-c", HOLD, kind, str(folder)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


@pytest.mark.parametrize("kind", ["run", "model"])
def test_a_training_in_another_process_is_named_and_nothing_is_changed(
    kind: str, world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "tiny"
    locked = folder if kind == "run" else folder / "cup"
    if kind == "model":
        locked.mkdir(parents=True)
    command = ["train", f"--config={world / 'c.yaml'}", *FAST, f"--set=run.dir={tmp_path.as_posix()}"]
    command.append("--set=data.categories=[cup]")
    with holder(kind, locked) as process:
        assert run(command) == 2
        message = capsys.readouterr().err
        assert f"process {process.pid} on " in message
        assert "is training it" in message
        assert not list(tmp_path.rglob("model.safetensors"))
        if kind == "run":
            assert not folder.exists()
        process.communicate("")
    assert run([*command, "--resume"]) == 0
    assert not [*tmp_path.rglob("*.lock"), *tmp_path.rglob("*.holder")]


def test_a_lock_is_freed_by_an_error_and_by_a_killed_process(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), run_lock(tmp_path / "a"):
        raise ZeroDivisionError
    with holder("run", tmp_path / "a") as process:
        with pytest.raises(RunError, match="is training it"), run_lock(tmp_path / "a"):
            pass
        process.kill()
    with run_lock(tmp_path / "a"):
        pass


def test_waiting_ends_when_the_holder_is_done(tmp_path: Path) -> None:
    with holder("model", tmp_path) as process:
        with pytest.raises(RunError, match="choose another run"), model_lock(tmp_path):
            pass
        process.communicate("")
    with holder("run", tmp_path / "a") as process:
        assert process.stdin is not None
        process.stdin.close()
        with run_lock(tmp_path / "a", patience=60):
            pass
