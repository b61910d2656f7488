"""The rooms' one direction: import-linter passes on the code and fails on a planted upward import."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def lint(folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", "from importlinter.cli import lint_imports_command; lint_imports_command()"],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(folder), "PYTHONUTF8": "1"},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize(
    ("planted", "statement"),
    [
        (None, ""),
        ("idif/data/planted.py", "import cache"),
        ("cache/planted.py", "from cli import main"),
        ("idif/data/planted.py", "from idif.training import loop"),
        ("idif/methods/planted/__init__.py", "from idif.evaluation import scoring"),
        ("idif/training/planted.py", "from idif.methods.idif import model"),
        ("cli/workflow/planted.py", "from idif.methods.idif.config import IDIFConfig"),
        ("cli/workflow/planted.py", "from cli.commands import train"),
    ],
)
def test_imports_point_one_way(tmp_path: Path, planted: str | None, statement: str) -> None:
    for room in ("idif", "cache", "cli"):
        shutil.copytree(ROOT / room, tmp_path / room, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    if planted is not None:
        (tmp_path / planted).parent.mkdir(exist_ok=True)
        (tmp_path / planted).write_text(statement + "\n", encoding="utf-8")
    done = lint(tmp_path)
    assert (done.returncode == 0) == (planted is None), done.stdout + done.stderr
    if planted is not None:
        assert "planted" in done.stdout
