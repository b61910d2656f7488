"""`benchmarks/gpu.sh` on the CPU at tiny sizes: every phase gives its figures."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from cli.__main__ import run
from tests.helpers.tiny_data import make_tiny_realiad, tiny_index, write_annotations

ROOT = Path(__file__).parent.parent
TINY = ("--size=32", "--batch-size=2", "--samples=4", "--rounds=1", "--steps=1", "--maps=4", "--peak-side=64")


def measured(out: Path, *options: str) -> dict[str, Any]:
    """Result of the command, run as a user runs it but for the Python, which is that of the tests."""
    command = [str(ROOT / "benchmarks" / "gpu.sh"), *TINY, "--smallest", f"--out={out}", *options]
    path = f"{Path(sys.executable).parent}:/usr/bin:/bin"
    environment = {"PATH": path, "OMP_NUM_THREADS": "1", "HOME": str(out.parent)}
    environment["WHEELS"] = str(out.parent / "none")
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr + done.stdout
    found: dict[str, Any] = json.loads(done.stdout)
    assert json.loads(out.read_text(encoding="utf-8")) == found
    return found


def test_every_phase_gives_its_figures(tmp_path: Path) -> None:
    found = measured(tmp_path / "gpu.json", "--no-compile")
    assert found["device"] == "cpu"
    assert found["loss"]["float32"]["largest_relative_difference"] == 0
    assert found["loss"]["bfloat16"]["equal"]
    for precision in ("float32", "bfloat16"):
        assert found["peak"][precision] > 0
        assert found["step"][f"{precision}_eager"]["ms_per_step"] > 0
    assert found["store"]["disk_ms_per_step"] > 0
    assert found["store"]["device_ms_per_step"] > 0
    assert found["epoch"]["samples_per_s"] > 0
    assert found["metrics"]["equal"]
    assert "gland" not in found


@pytest.mark.long
def test_a_used_up_time_leaves_phases_out(tmp_path: Path) -> None:
    found = measured(tmp_path / "gpu.json", "--seconds=0")
    assert "s of 0 were left" in found["step"]["left_out"]


@pytest.mark.long
def test_compiled_steps_and_a_training_on_a_store(tmp_path: Path) -> None:
    index = tiny_index(categories=("cup",), train=8, test=4)
    make_tiny_realiad(tmp_path / "data", index)
    write_annotations(tmp_path / "data", index)
    store = tmp_path / "s.zarr"
    build = [
        "cache",
        "build",
        "realiad",
        f"--root={tmp_path / 'data'}",
        f"--store={store}",
        "--image-size=64",
    ]
    assert run([*build, "--teacher-weights=untrained"]) == 0
    trained = (f"--gland={store}", "--student-steps=3", "--head-steps=2", "--top-k=40")
    found = measured(tmp_path / "gpu.json", "--backend=eager", *trained)
    assert found["step"]["float32_compiled"]["ms_per_step"] > 0
    assert "CUDA device" in found["step"]["float32_cuda_graphs"]["left_out"]
    assert found["gland"]["steps"] == [3, 2]
    assert 0 <= found["gland"]["p_auroc"] <= 1
    assert found["gland"]["train"]["runs"][0]["models"][0]["steps"] == 2
