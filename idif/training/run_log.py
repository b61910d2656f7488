"""What a run writes about itself: its training log and the environment it ran in."""

import json
import os
import platform
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

LIBRARIES = (
    "torch",
    "torchvision",
    "numpy",
    "numba",
    "zarr",
    "tensorstore",
    "h5py",
    "scikit-learn",
    "pyvista",
)


def write_json(path: Path, value: Any) -> None:
    """Write JSON beside ``path``, then rename. NaN and infinity are refused: they are not JSON."""
    beside = path.with_name(path.name + ".part")
    text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False)
    beside.write_text(text + "\n", encoding="utf-8")
    os.replace(beside, path)


class RunLog:
    """``log.jsonl``: one JSON object a line, appended while training.

    Continuing at a step drops what was logged behind it, so that a resumed log reads like one never
    interrupted.
    """

    def __init__(self, path: Path, *, after_step: int = 0) -> None:
        self.path = path
        kept = [line for line in read_log(path) if line["step"] <= after_step] if path.exists() else []
        beside = path.with_name(path.name + ".part")
        beside.write_text("".join(json.dumps(line) + "\n" for line in kept), encoding="utf-8")
        os.replace(beside, path)

    def write(self, *lines: dict[str, Any]) -> None:
        """Append lines; each needs a ``step``."""
        with self.path.open("a", encoding="utf-8") as file:
            file.writelines(json.dumps(line) + "\n" for line in lines)


def read_log(path: Path) -> list[dict[str, Any]]:
    """The lines of a log; a last line cut short by a crash is left out."""
    lines = []
    for text in path.read_text(encoding="utf-8").splitlines():
        try:
            lines.append(json.loads(text))
        except json.JSONDecodeError:
            break
    return lines


def environment(device: torch.device, **facts: Any) -> dict[str, Any]:
    """What a result may depend on beside the config: versions, machine, git revision, and ``facts``."""
    versions: dict[str, str | None] = {}
    for name in LIBRARIES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            versions[name] = None
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor()
    return {
        "python": sys.version.split()[0],
        "platform": platform.platform(),
        "device": str(device),
        "device_name": name or platform.machine(),
        "cpu_count": os.cpu_count(),
        "torch_threads": torch.get_num_threads(),
        "libraries": versions,
        "git_revision": _git_revision(),
        **facts,
    }


def _git_revision() -> str | None:
    """Revision of the source tree this package runs from, ``+`` behind it where files are changed."""
    source = Path(__file__).resolve().parent.parent
    if not (source / ".git").exists():
        return None

    def git(*arguments: str) -> str:
        done = subprocess.run(
            ["git", *arguments], cwd=source, capture_output=True, text=True, check=True, timeout=10
        )
        return done.stdout.strip()

    try:
        return git("rev-parse", "HEAD") + ("+" if git("status", "--porcelain", "-uno") else "")
    except (OSError, subprocess.SubprocessError):
        return None
