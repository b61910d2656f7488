"""Records what IDIF does on the tiny dataset: store bytes, losses, predictions and metrics, for comparison.

``python -m tests.golden tests/golden_idif.json`` writes the file that `tests/test_golden.py` compares with.
Only the command line and the files it leaves are used, so that a record outlives every change of the code's
structure.
"""

import contextlib
import hashlib
import io
import json
import platform
import sys
import tempfile
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch

from cli.__main__ import run
from tests.helpers.tiny_data import make_tiny_realiad, tiny_index, write_annotations

SMALL = [
    "data.categories=[cup]",
    "method.voxel={depth: 2, height: 2, width: 2, channels: 16}",
    "method.heads=2",
    "method.blocks=1",
    "train.epochs=5",
    "train.batch_size=2",
    "corruption.textures=procedural",
    "run.tracking=none",
]
VARIANTS: dict[str, list[str]] = {
    "cosine-batch": [],
    "cosine-group": ["method.norm=group", "train.dropout={probability: 0.3}"],
    "segmentation-batch": ["method.head=segmentation", "HEAD_EPOCHS=5"],
    "segmentation-group": ["method.head=segmentation", "HEAD_EPOCHS=5", "method.norm=group"],
    "unified-ema": ["train.mode=unified", "train.ema=0.9", "method.fusion=none"],
    "calibrated": [
        "method.bottleneck=false",
        "train.holdout=0.5",
        "eval.calibrate=per-view",
        "eval.score=topk",
    ],
}
HEAD_EPOCHS = "train.head_epochs"


def machine() -> dict[str, str]:
    """Facts that decide the bits of a float computation, apart from the code."""
    return {
        "torch": torch.__version__,
        "numpy": np.__version__,
        "machine": platform.machine(),
        "processor": _processor(),
        "capability": torch.backends.cpu.get_cpu_capability(),
    }


def _processor() -> str:
    path = Path("/proc/cpuinfo")
    if not path.exists():
        return platform.processor()
    lines = dict(line.split(":", 1) for line in path.read_text().split("\n\n")[0].splitlines() if ":" in line)
    plain = {key.strip(): value.strip() for key, value in lines.items()}
    return " ".join(plain.get(key, "?") for key in ("model name", "cpu family", "model", "stepping"))


def record(home: Path, variants: dict[str, list[str]] = VARIANTS) -> dict[str, Any]:
    """Build, train, evaluate and sweep below ``home``; returns what came of it, ready for JSON."""
    torch.set_num_threads(1)
    index = tiny_index(categories=("cup", "bolt"), train=8, test=4)
    make_tiny_realiad(home / "data", index)
    write_annotations(home / "data", index)
    store = home / "store.zarr"
    build = ["cache", "build", "realiad", f"--root={home / 'data'}", f"--store={store}", "--image-size=48"]
    _run([*build, "--teacher-weights=untrained"])
    found: dict[str, Any] = {"machine": machine(), "store": _store(store), "runs": {}}
    for name, settings in variants.items():
        config = home / f"{name}.yaml"
        config.write_text(
            f"cache: {{store: '{store.as_posix()}'}}\n"
            f"run: {{name: {name}, dir: '{(home / 'runs').as_posix()}'}}\n",
            encoding="utf-8",
        )
        chosen = [s.replace("HEAD_EPOCHS", HEAD_EPOCHS) for s in SMALL + settings]
        _run(["train", f"--config={config}", *(f"--set={s}" for s in chosen)])
        folder = home / "runs" / name
        _run(["eval", str(folder)])
        _run(["sweep", "missing-views", str(folder)])
        found["runs"][name] = _run_record(folder)
    return found


def _run(arguments: list[str]) -> None:
    with contextlib.redirect_stdout(io.StringIO()):
        code = run(arguments)
    assert code == 0, (arguments, code)


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:16]


def _store(store: Path) -> dict[str, str]:
    """Digest of every file."""
    files = sorted(p for p in store.rglob("*") if p.is_file())
    return {p.relative_to(store).as_posix(): _sha256(p.read_bytes()) for p in files}


def _run_record(folder: Path) -> dict[str, Any]:
    losses = {}
    for log in sorted(folder.rglob("log.jsonl")):
        lines = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
        steps = [line for line in lines if "loss" in line]
        losses[log.parent.relative_to(folder).as_posix()] = [
            {key: line[key] for key in ("loss", "grad_norm", "lr")} for line in steps[:20]
        ]
    with h5py.File(folder / "predictions.h5") as file:
        maps = file["maps"][:]
        record = {
            "losses": losses,
            "view_scores": _numbers(file["view_scores"][:]),
            "sample_scores": _numbers(file["sample_scores"][:]),
            "maps": _sha256(np.ascontiguousarray(maps).tobytes()),
            "map_means": _numbers(maps.astype(np.float64).mean(axis=(2, 3))),
        }
    metrics = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    sweep = json.loads((folder / "sweep.json").read_text(encoding="utf-8"))
    record["metrics"] = {key: value for key, value in metrics["mean"].items() if isinstance(value, float)}
    record["by_missing"] = {
        missing: {key: values[key] for key in ("s_auroc", "s_auroc_visible", "p_auroc", "samples")}
        for missing, values in sweep["by_missing"].items()
    }
    record["view_value"] = sweep["view_value"]
    return record


def _numbers(values: Any) -> list[Any]:
    flat = [None if np.isnan(v) else float(v) for v in values.ravel().tolist()]
    return [list(values.shape), flat]


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as temporary:
        text = json.dumps(record(Path(temporary)), indent=None, separators=(",", ":"))
    Path(sys.argv[1]).write_text(text + "\n", encoding="utf-8")
