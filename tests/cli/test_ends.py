"""How the command line ends: signals, closed and odd outputs, too little memory, settings that fit no map."""

import errno
import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

import cli.__main__
from cli.__main__ import run
from cli.terminal import signals
from idif.errors import ConfigError, StoreMismatch
from tests.helpers.tiny_run import FAST
from tests.helpers.tiny_store import build_by_command

ROOT = Path(__file__).parents[2]
POSIX = pytest.mark.skipif(os.name != "posix", reason="Windows ends processes without a signal")


def start(*arguments: str, **options: Any) -> subprocess.Popen[str]:
    environment = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}
    return subprocess.Popen(
        [sys.executable, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        cwd=ROOT,
        **options,
    )


@POSIX
@pytest.mark.parametrize(("name", "code"), [("SIGINT", 130), ("SIGTERM", 143)])
@pytest.mark.parametrize("module", ["typer", "torch"])
def test_a_signal_inside_the_first_imports_ends_the_command(name: str, code: int, module: str) -> None:
    """A finder of modules sends it, at the worst moment."""
    probe = (
        "import os, sys, signal\n"
        "class Finder:\n"
        "    def find_spec(self, wanted, *_):\n"
        f"        if wanted == {module!r}:\n"
        f"            os.kill(os.getpid(), signal.{name})\n"
        "sys.meta_path.insert(0, Finder())\n"
        "sys.argv = ['idif', 'train', '--config=nowhere.yaml', '--json']\n"
        "from cli.start import main\n"
        "main()\n"
    )
    process = start("-c", probe, preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler))
    output, said = process.communicate(timeout=120)
    word = {"SIGINT": "interrupted", "SIGTERM": "terminated"}[name]
    assert (process.returncode, said) == (code, f"error: {word}\n")
    assert json.loads(output) == {"error": word, "exit_code": code}


@POSIX
def test_a_signal_inside_a_later_import_waits_for_its_end(tmp_path: Path) -> None:
    (tmp_path / "slow_module.py").write_text(
        "import os, signal, time\n"
        "try:\n"
        "    os.kill(os.getpid(), signal.SIGTERM)\n"
        "    time.sleep(0.2)\n"
        "except BaseException:\n"
        "    raise SystemExit('raised inside the import')\n"
    )
    probe = (
        "import sys, time\n"
        f"sys.path.insert(0, {str(tmp_path)!r})\n"
        "from cli.terminal import signals\n"
        "signals.listen()\n"
        "signals.begin()\n"
        "try:\n"
        "    import slow_module\n"
        "    time.sleep(60)\n"
        "except signals.Terminated:\n"
        "    print('closed')\n"
    )
    began = time.monotonic()
    output, said = start("-c", probe).communicate(timeout=120)
    assert (output, said) == ("closed\n", "")
    assert time.monotonic() - began < 30


def test_handlers_are_left_alone_where_the_parent_ignores_them(monkeypatch: pytest.MonkeyPatch) -> None:
    set_to: list[int] = []
    monkeypatch.setattr(signal, "signal", lambda number, _: set_to.append(number))
    monkeypatch.setattr(signal, "getsignal", lambda _: signal.SIG_IGN)
    signals.listen()
    signals.begin()
    assert set_to == [signal.SIGTERM]


def pipe(monkeypatch: pytest.MonkeyPatch, encoding: str) -> io.BytesIO:
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding=encoding, errors="backslashreplace", write_through=True)
    monkeypatch.setattr(sys, "stdout", stream)
    return raw


def test_an_output_without_unicode_gets_whole_json(monkeypatch: pytest.MonkeyPatch) -> None:
    raw = pipe(monkeypatch, "cp1252")
    assert run(["train", "--config=nowhere-\u5bc6.yaml", "--json"]) == 2
    assert "nowhere-\u5bc6.yaml" in json.loads(raw.getvalue())["error"]


@POSIX
def test_a_pipe_of_another_encoding_is_no_traceback(tmp_path: Path) -> None:
    run_folder = tmp_path / "\u5bc6-run"
    run_folder.mkdir()
    environment = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "cp1252"}
    process = subprocess.run(
        [sys.executable, "-m", "cli", "eval", str(run_folder)],
        capture_output=True,
        env=environment,
        cwd=ROOT,
        check=False,
    )
    assert process.returncode == 2
    assert b"\\u5bc6-run: not a run" in process.stderr
    assert b"Traceback" not in process.stderr


def raising(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr("cli.commands.runs.list_runs", fail)


def chained() -> SystemError:
    error = SystemError("<method 'load'> returned a result with an exception set")
    error.__cause__ = MemoryError()
    return error


ERRORS: list[tuple[Exception, int, str]] = [
    (MemoryError(), 3, "out of memory"),
    (chained(), 3, "out of memory"),
    (
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: 8 bytes"),
        3,
        "out of memory (",
    ),
    (RuntimeError("can't start new thread"), 3, "out of memory (can't start new thread)"),
    (ImportError("libtorch.so: failed to map segment from shared object"), 3, "out of memory ("),
    (OSError(errno.ENOMEM, "Cannot allocate memory"), 3, "out of memory"),
    (OSError(errno.ENOSPC, "No space left on device", "x.bin"), 3, "x.bin: no space left on the device"),
    (OSError(errno.EROFS, "Read-only file system", "x.bin"), 2, "x.bin: cannot be written (Read-only"),
    (OSError(errno.EIO, "Input/output error", "x.bin"), 3, "x.bin: cannot be read or written (Input/output"),
    (OSError(errno.EMFILE, "Too many open files", "x.bin"), 3, "x.bin: cannot be read or written (Too many"),
    (OSError(errno.EMFILE, "Too many open files"), 3, "cannot finish: Too many open files"),
    (
        PermissionError(errno.EACCES, "Permission denied", "x.bin"),
        2,
        "x.bin: no permission to read or write it",
    ),
]


@pytest.mark.parametrize(("error", "code", "text"), ERRORS, ids=lambda value: str(value)[:30])
def test_what_the_system_refuses_is_a_sentence(
    error: Exception,
    code: int,
    text: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    raising(monkeypatch, error)
    assert run(["runs", "--json"]) == code
    answer = json.loads(capsys.readouterr().out)
    assert answer["exit_code"] == code
    assert answer["error"].startswith(text)


def test_the_loss_of_another_process_is_a_sentence(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    raising(monkeypatch, RuntimeError("[gloo pair.cc:553] Connection closed by peer [127.0.0.1]"))
    with pytest.raises(RuntimeError):
        run(["runs"])
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert run(["runs"]) == 3
    assert "another process of this command has stopped" in " ".join(capsys.readouterr().err.split())


def test_a_bug_stays_a_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    raising(monkeypatch, SystemError("a bug"))
    monkeypatch.setattr(cli.__main__, "_is_limited", lambda: False)
    with pytest.raises(SystemError):
        run(["runs"])
    monkeypatch.setattr(cli.__main__, "_is_limited", lambda: True)
    assert run(["runs"]) == 3


@POSIX
@pytest.mark.parametrize(("where", "code"), [("closed", 141), ("/dev/full", 3)])
def test_an_output_that_takes_nothing_is_no_traceback(where: str, code: int, tmp_path: Path) -> None:
    if where == "closed":
        read, write = os.pipe()
        os.close(read)
    else:
        write = os.open(where, os.O_WRONLY)
    process = subprocess.run(
        [sys.executable, "-m", "cli", "runs", str(tmp_path), "--json"],
        stdout=write,
        stderr=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        cwd=ROOT,
        check=False,
        text=True,
    )
    os.close(write)
    assert process.returncode == code
    lines = process.stderr.lower().splitlines()
    assert len(lines) == (0 if code == 141 else 1)
    assert all("no space left on" in line for line in lines)


def test_a_score_over_more_pixels_than_a_map_has_is_refused(
    world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    many = ["--set=eval.score=topk", "--set=eval.top_k=2305", "--json"]
    new = f"--set=run.dir={json.dumps(str(tmp_path))}"
    of_run, photo = str(world / "runs" / "tiny"), str(next((world / "data").rglob("*_C1_*.jpg")))
    for arguments in (
        ["train", f"--config={world / 'c.yaml'}", new, *FAST],
        ["eval", of_run],
        ["sweep", "missing-views", of_run],
        ["predict", of_run, photo, "--category=cup"],
    ):
        assert run([*arguments, *many]) == ConfigError.exit_code
        error = json.loads(capsys.readouterr().out)["error"]
        assert error == "eval.top_k: expected at most 2,304, the pixels of a map of 48 px, got 2,305"
    assert list(tmp_path.glob("tiny/*")) == []


def test_features_of_another_storage_type_are_told_or_refused(
    world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = tmp_path / "uint8.zarr"
    assert build_by_command(world / "data", store, 48, "--dtype=uint8") == 0
    runs = tmp_path / "runs"
    config, new = f"--config={world / 'c.yaml'}", f"--set=run.dir={json.dumps(str(runs))}"
    assert run(["train", config, new, *FAST, "--set=data.categories=[cup]", "--set=run.tracking=none"]) == 0
    capsys.readouterr()
    other = f"--set=cache.store={json.dumps(str(store))}"
    assert run(["eval", str(runs / "tiny"), other]) == 0
    said = " ".join(capsys.readouterr().err.split())
    assert "features are uint8, the run was trained on float16; scores differ slightly" in said
    (runs / "tiny" / "cup" / "checkpoint").rename(runs / "aside")  # not finished any more
    again = ["train", config, new, other, *FAST, "--set=data.categories=[cup]", "--resume", "--json"]
    assert run(again) == StoreMismatch.exit_code
    error = json.loads(capsys.readouterr().out)["error"]
    assert "features are stored as uint8, but the run was trained on float16" in error
