"""Our PatchCore beside anomalib's on the same images and encoder weights, in one run, as one JSON object.

    python benchmarks/against_anomalib.py ROOT --weights resnet18.safetensors --anomalib ENV/bin/python
        [--category C] [--size 256] [--coreset 0.1] [--rounds 3] [--json]

ROOT is a dataset in the Real-IAD layout whose images have ``--size`` pixels a side. ENV is a virtual
environment of its own with anomalib (``pip install anomalib``). In every round, in turn, each in processes of
its own: anomalib fits and scores from the images (only its model: no metrics, no pictures); ``idif cache
build``, ``train`` and ``eval`` do the same from the images, metrics included, once with anomalib's settings
and once with our defaults; ``train`` and ``eval`` alone are the way from a store that exists. Seconds are of
the clock and of the processor, medians over the rounds; memory is the largest resident set of a process.
Metrics of both are computed by `idif.metrics`.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from idif.data.index import Index
from idif.datasets.realiad.files import RealIADLayout
from idif.datasets.realiad.reader import read_realiad
from idif.metrics import PixelMetrics, auroc


@dataclass(frozen=True)
class Cost:
    """Time and memory of one or more processes."""

    wall_s: float = 0.0
    cpu_s: float = 0.0
    peak_bytes: int = 0

    def __add__(self, other: "Cost") -> "Cost":
        peak = max(self.peak_bytes, other.peak_bytes)
        return Cost(self.wall_s + other.wall_s, self.cpu_s + other.cpu_s, peak)


def run(command: Sequence[str | Path], folder: Path) -> Cost:
    """Runs a command to its end.

    Raises:
        RuntimeError: it failed.
    """
    log = folder / "log.txt"
    began = time.perf_counter()
    with log.open("w") as file:
        process = subprocess.Popen([str(part) for part in command], cwd=folder, stdout=file, stderr=file)
        _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"{command} failed:\n{log.read_text()[-3000:]}")
    wall = time.perf_counter() - began
    unit = 1 if sys.platform == "darwin" else 1024
    return Cost(wall, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * unit)


def stage(index: Index, root: Path, folder: Path) -> dict[str, tuple[bool, Path | None]]:
    """Copies the views into train/good, test/good and test/bad.

    Returns:
        {file name of a test view: its label and its mask}.
    """
    told = {}
    for row, sample in enumerate(index.samples):
        for view in sample.views:
            if view is None:
                continue
            name = f"{row:05d}_{view.number}{Path(view.image).suffix}"
            place = folder / sample.split / ("bad" if view.label else "good")
            place.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(root / view.image, place / name)
            if sample.split == "test":
                told[name] = (view.label, None if view.mask is None else root / view.mask)
    return told


def score_anomalib(path: Path, told: dict[str, tuple[bool, Path | None]]) -> dict[str, float | None]:
    """I-AUROC, P-AUROC and AUPRO of the file that `anomalib_patchcore` wrote."""
    with np.load(path) as answer:
        files, scores, maps = answer["files"].tolist(), answer["scores"], answer["maps"]
    assert sorted(files) == sorted(told)
    metrics: dict[str, float | None] = {
        "i_auroc": float(auroc(scores, np.array([told[name][0] for name in files])))
    }
    if not any(mask for _, mask in told.values()):
        return metrics | {"p_auroc": None, "aupro": None}
    pixels = PixelMetrics()
    for name, values in zip(files, maps, strict=True):
        mask = told[name][1]
        marked = np.zeros(values.shape, bool) if mask is None else np.asarray(Image.open(mask)) > 0
        pixels.update(torch.from_numpy(values)[None], torch.from_numpy(marked)[None])
    return metrics | {name: float(pixels.compute()[name]) for name in ("p_auroc", "aupro")}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("root", type=Path)
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--anomalib", type=Path, required=True, help="a Python that has anomalib")
    parser.add_argument("--category", default=None)
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--coreset", type=float, default=0.1)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    root, weights = options.root.resolve(), options.weights.resolve()
    # a virtual environment's python is a link that must not be followed
    python = options.anomalib.absolute()
    layout = RealIADLayout(root)
    index = read_realiad(layout, categories=[options.category] if options.category else [])
    category = options.category or index.samples[0].category
    same = {"method.layers": "[layer2, layer3]", "method.unit_length": "false", "eval.score": "method"}
    settings = {
        "ours, anomalib's settings": same | {"method.coreset": str(options.coreset)},
        "ours, defaults": {},
    }
    costs: dict[str, list[Cost]] = defaultdict(list)
    metrics: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        told = stage(index, root, folder / "images")
        views = sum(view is not None for sample in index.samples for view in sample.views)
        worker = Path(__file__).with_name("anomalib_patchcore.py").resolve()
        for number in range(options.rounds):
            answer = folder / f"anomalib_{number}.npz"
            flags = ["--weights", weights, "--size", str(options.size), "--coreset", str(options.coreset)]
            costs["anomalib"].append(run([python, worker, folder / "images", answer, *flags], folder))
            metrics["anomalib"] = score_anomalib(answer, told)
            for name, keys in settings.items():
                place = folder / f"{number}-{len(keys)}"
                idif = [sys.executable, "-m", "cli"]
                build = ["cache", "build", "realiad", "--root", root, "--category", category]
                build += ["--store", place / "store.zarr", "--image-size", str(options.size)]
                built = run([*idif, *build, "--teacher-weights", weights], folder)
                config = {
                    "cache": {"store": str(place / "store.zarr")},
                    "method": {"name": "patchcore"},
                    "run": {"name": "run", "dir": str(place), "tracking": "none"},
                }
                (folder / "config.yaml").write_text(json.dumps(config))
                chosen = [part for key, value in keys.items() for part in ("--set", f"{key}={value}")]
                fitted = run([*idif, "train", "--config", folder / "config.yaml", *chosen], folder)
                evaluated = run([*idif, "eval", place / "run"], folder)
                costs[f"{name}, from images"].append(built + fitted + evaluated)
                costs[f"{name}, from a store"].append(fitted + evaluated)
                found = json.loads((place / "run" / "metrics.json").read_text())["mean"]
                metrics[name] = {key: found[key] for key in ("i_auroc", "p_auroc", "aupro")}
                shutil.rmtree(place)
        with np.load(folder / "anomalib_0.npz") as answer_file:
            version = str(answer_file["version"])
    result = {
        "anomalib": version,
        "threads": torch.get_num_threads(),
        "images": {"train": views - len(told), "test": len(told)},
        "metrics": metrics,
        "cost": {
            name: {
                "wall_s": statistics.median(cost.wall_s for cost in values),
                "cpu_s": statistics.median(cost.cpu_s for cost in values),
                "peak_bytes": max(cost.peak_bytes for cost in values),
            }
            for name, values in costs.items()
        },
    }
    print(json.dumps(result, indent=None if options.json else 2))


if __name__ == "__main__":
    main()
