"""Starting the command line: what it imports, `python -m idif`, hidden packages, the version."""

import errno
import json
import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import torch
import typer

import idif
from cli.__main__ import run
from cli.main import COMMANDS, LazyCommand, load_command
from cli.terminal.signals import Terminated
from idif.package_names import hiding_files

ROOT = Path(__file__).parents[2]
HEAVY = ("torch", "torchvision", "vtkmodules", "pyvista", "tensorstore", "scipy", "cv2", "h5py", "numba")


def python(*arguments: str, folder: Path = ROOT, path: Path = ROOT) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": str(path), "COLUMNS": "80", "PYTHONIOENCODING": "utf-8"}
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        encoding="utf-8",
        check=False,
    )


def imported_by(arguments: list[str]) -> set[str]:
    """Modules that a command line imports in a process of its own."""
    probe = (
        "import json, sys; from cli.__main__ import run; code = run(json.loads(sys.argv[1])); "
        "print(json.dumps([code, *sys.modules]), file=sys.stderr)"
    )
    process = python("-c", probe, json.dumps(arguments))
    code, *modules = json.loads(process.stderr.splitlines()[-1])
    assert code == (0 if arguments else 2), process.stderr
    return set(modules)


@pytest.mark.parametrize("arguments", [[], ["--help"], ["-h"], ["--version"]])
def test_help_and_version_import_no_library_that_computes(arguments: list[str]) -> None:
    assert imported_by(arguments).isdisjoint({*HEAVY, "numpy", "pydantic"})


def test_questions_to_stores_and_runs_import_no_torch(world: Path, tmp_path: Path) -> None:
    # a run of its own folder: other tests add runs of several stages, whose method has to be asked
    shutil.copytree(world / "runs" / "tiny", tmp_path / "tiny")
    assert imported_by(["cache", "info", str(world / "store.zarr")]).isdisjoint(HEAVY)
    assert imported_by(["runs", str(tmp_path)]).isdisjoint({*HEAVY, "numpy"})


def test_methods_and_commands_that_train_nothing_skip_the_slow_imports() -> None:
    seconds = {"torchvision", "torch._dynamo", "lightning_fabric", "scipy", "timm", "diffusers"}
    code = (
        "import sys, cli.main, idif.methods.catalog; print(*sys.modules); "
        "from cli.commands import app, eval, export, fuse, predict, report, sweep; print(*sys.modules)"
    )
    process = python("-c", code)
    catalog, commands = (set(line.split()) for line in process.stdout.splitlines())
    assert "torch" in catalog
    assert catalog & {*seconds, "cv2"} == set()
    assert commands & seconds == set()


def test_a_wrong_command_is_told_without_torch() -> None:
    process = python("-X", "importtime", "-m", "cli", "trian", "--json")
    assert process.returncode == 2
    assert json.loads(process.stdout)["error"].startswith("No such command 'trian'. Did you mean 'train'?")
    assert " torch\n" not in process.stderr


@pytest.mark.parametrize("name", COMMANDS)
def test_the_list_of_commands_says_what_each_command_says(name: str) -> None:
    summary = " ".join(load_command(name).help.split("\n\n")[0].split())
    assert COMMANDS[name].summary == summary


def test_every_command_module_is_listed() -> None:
    listed = {command.module for command in COMMANDS.values()}
    modules = {f"cli.commands.{path.stem}" for path in (ROOT / "cli" / "commands").glob("[!_]*.py")}
    groups = {"cli.commands.cache_build", "cli.commands.data_check"}
    assert modules - listed == groups, "which are inside `idif cache` and `idif data`"


def test_a_command_is_imported_when_it_is_invoked(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(COMMANDS, "eval", LazyCommand("tests.cli.test_startup", "greet", "not shown"))
    assert run(["eval", "you"]) == 0
    assert run(["eval", "-h"]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("hello you")
    assert "Greet one person." in printed
    assert "idif eval" in printed


FAILURES: dict[str, tuple[BaseException, int, str]] = {
    "memory": (MemoryError(), 3, "out of memory"),
    "device": (torch.OutOfMemoryError("CUDA out of memory"), 3, "out of memory"),
    "allocator": (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"), 3, "out of memory"),
    "full": (OSError(errno.ENOSPC, "No space left on device", "maps.h5"), 3, "maps.h5: no space left"),
    "quota": (OSError(errno.EDQUOT, "Disk quota exceeded", "maps.h5"), 3, "maps.h5: no space left"),
    "rights": (PermissionError(errno.EACCES, "Permission denied", "maps.h5"), 2, "maps.h5: no permission"),
    "ctrl-c": (KeyboardInterrupt(), 130, "interrupted"),
    "sigterm": (Terminated(), 143, "terminated"),
}
"""Error that leaves a command, exit code, and the sentence."""


def fail(kind: str) -> None:
    """Raise an error."""
    raise FAILURES[kind][0]


@pytest.mark.parametrize("kind", FAILURES)
def test_what_leaves_a_command_is_a_sentence(
    kind: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(COMMANDS, "eval", LazyCommand("tests.cli.test_startup", "fail", "not shown"))
    _, code, sentence = FAILURES[kind]
    assert run(["eval", kind]) == code
    printed = capsys.readouterr().err
    assert f"error: {sentence}" in printed
    assert "Traceback" not in printed


def greet(name: str) -> None:
    """Greet one person."""
    typer.echo(f"hello {name}")


def test_no_command_prints_the_help_and_no_error(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in ([], ["sweep"]):
        assert run(arguments) == 2
        printed = capsys.readouterr()
        assert "Usage: idif" in printed.out
        assert printed.err == ""


def test_help_fits_into_80_columns_and_lists_every_command() -> None:
    lines = python("-m", "idif", "--help").stdout.splitlines()
    assert max(map(len, lines)) <= 80
    listed = lines[lines.index("Commands:") + 1 :]
    assert [line.split()[0] for line in listed if line.startswith("  ") and line[2] != " "] == [*COMMANDS]


def test_shells_complete_names_without_importing_commands() -> None:
    completion = (
        "import os, sys; os.environ |= {'_IDIF_COMPLETE': 'complete_bash', 'COMP_WORDS': 'idif s', "
        "'COMP_CWORD': '1'}\n"
        "from cli.__main__ import run\n"
        "try:\n    run([])\n"
        "finally:\n    print('torch' in sys.modules, file=sys.stderr)"
    )
    process = python("-c", completion)
    assert process.stdout.split() == ["sweep"]
    assert process.stderr.splitlines()[-1] == "False"


def test_modules_of_the_user_do_not_reach_python_m_idif(tmp_path: Path) -> None:
    for name in ("cache.py", "cli.py"):
        (tmp_path / name).write_text("raise SystemExit('the wrong module')")
    process = python("-m", "idif", "--version", folder=tmp_path)
    assert (process.returncode, process.stdout) == (0, f"idif {idif.__version__}\n"), process.stderr


@pytest.mark.parametrize(
    ("hiding", "command", "on_path"),
    [("cache.py", "cli", False), ("cache/__init__.py", "cli", False), ("cli.py", "idif", True)],
)
def test_a_hidden_package_is_named(hiding: str, command: str, on_path: bool, tmp_path: Path) -> None:
    (tmp_path / hiding).parent.mkdir(exist_ok=True)
    (tmp_path / hiding).write_text("")
    path = Path(f"{tmp_path}{os.pathsep}{ROOT}") if on_path else ROOT
    process = python("-m", command, "--version", folder=tmp_path, path=path)
    assert process.returncode == 2
    assert process.stderr.startswith(f"error: {tmp_path.resolve() / hiding}: hides the package ")
    assert process.stderr.count("\n") == 1


def test_files_that_would_hide_a_package_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert hiding_files(tmp_path) == []
    assert hiding_files(ROOT) == [], "these are ours"
    (tmp_path / "cli.py").write_text("")
    (tmp_path / "cache").mkdir()
    monkeypatch.setattr(sys, "path", [str(ROOT), *sys.path])
    assert hiding_files(tmp_path) == [tmp_path / "cli.py"], "a bare folder comes after ours"
    monkeypatch.setattr(sys, "path", [])
    assert hiding_files(tmp_path) == [tmp_path / "cache", tmp_path / "cli.py"]


def test_two_processes_of_torchrun_start_without_dash_m(tmp_path: Path) -> None:
    (tmp_path / "cli.py").write_text("raise SystemExit('the wrong module')")
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "--no-python"]
    process = python(*launch, sys.executable, "-m", "idif", "--version", folder=tmp_path)
    assert process.returncode == 0, process.stderr
    assert process.stdout.count(f"idif {idif.__version__}") == 2


def test_a_tilde_in_an_option_is_the_home_folder(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    assert run(["runs", "~/none"]) == 2
    assert str(tmp_path / "none") in capsys.readouterr().err
    assert run(["train", "--config=~/c.yaml"]) == 2
    assert str(tmp_path / "c.yaml") in capsys.readouterr().err


def test_the_version_is_written_once() -> None:
    project: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert "version" not in project["project"]
    assert project["tool"]["setuptools"]["dynamic"]["version"] == {"attr": "idif.version.__version__"}
    citation = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert f"\nversion: {idif.__version__}\n" in citation, "which no build writes"
    found = python("-S", "-c", "import idif; print(idif.__version__)", folder=ROOT)
    assert found.stdout == f"{idif.__version__}\n", "without installed metadata and site-packages"
