"""Everything but rendering works without the extra `synthetic`."""

import subprocess
import sys
from pathlib import Path

from tests.helpers.tiny_data import make_tiny_realiad, tiny_index, write_annotations

# None in sys.modules makes an import fail as if the package were not installed
BLOCK = "import sys; sys.modules['pyvista'] = sys.modules['vtkmodules'] = None\n"
RUN = BLOCK + "from cli.__main__ import run; sys.exit(run(sys.argv[1:]))"

IMPORT_ALL = """
import importlib, pkgutil, sys
import idif.datasets
for module in pkgutil.walk_packages(idif.datasets.__path__, "idif.datasets."):
    importlib.import_module(module.name)
print([name for name in sys.modules if name.split(".")[0] in ("pyvista", "vtkmodules")])
"""


def python(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False
    )


def test_importing_every_module_of_the_datasets_imports_neither_pyvista_nor_vtk() -> None:
    result = python(IMPORT_ALL)
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip() == "[]"


def test_a_dataset_is_checked_without_pyvista(tmp_path: Path) -> None:
    index = tiny_index(train=10, test=10)
    make_tiny_realiad(tmp_path, index)
    write_annotations(tmp_path, index)
    result = python(RUN, "data", "check", "realiad", f"--root={tmp_path}")
    assert result.returncode == 0, result.stderr
    assert "sound" in result.stdout


def test_rendering_without_pyvista_names_the_extra(tmp_path: Path) -> None:
    out = tmp_path / "out"
    result = python(RUN, "data", "synth", str(out), "--categories=1", "--train=1", "--test=2", "--size=64")
    assert result.returncode == 2
    assert result.stderr.splitlines() == [
        'error: rendering needs pyvista, which is not installed; run `pip install "idif[synthetic]"`'
    ]
    assert list(tmp_path.iterdir()) == []
