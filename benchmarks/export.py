"""Times a run's exported files beside the run itself and compares their maps on photographs, as JSON.

    python benchmarks/export.py --json --run RUN --images FOLDER [--parts 8] [--rounds 7] [--set KEY=VALUE]

FOLDER holds photographs as `idif predict` takes them. Every round judges one part by each way in turn, from
images already decoded and resized; seconds are medians over rounds, on the CPU. The run encodes only views
that are there, so a part with one view missing is timed too: the files always compute all views.
"""

import argparse
import json
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import onnxruntime
import torch

from idif.data.images import load_image
from idif.inference.export_file import SUFFIXES, write_deployment
from idif.inference.photo_grouping import find_parts
from idif.runs.deployment import deployment_of
from idif.runs.run import open_run


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--run", type=Path, required=True)
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--parts", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--set", action="append", default=[])
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    run = open_run(options.run, options.set)
    category = run.known_categories()[0]
    given = deployment_of(run, category)
    size, numbers = given.features.image_size, given.view_numbers
    assert size is not None
    parts = [p for p in find_parts([options.images], numbers, (category,)) if None not in p.images]
    parts = parts[:: max(1, len(parts) // options.parts)][: options.parts]
    images = torch.from_numpy(
        np.stack([np.stack([load_image(path, size)[0] for path in p.images if path]) for p in parts])
    )
    whole = torch.ones(images.shape[:2], dtype=torch.bool)
    short = whole.clone()
    for row in range(len(parts)):
        short[row, row % len(numbers)] = False

    result: dict[str, Any] = {"parts": len(parts), "views": len(numbers), "image_size": size}
    with tempfile.TemporaryDirectory() as folder, torch.inference_mode():
        files = {}
        for kind, suffix in SUFFIXES.items():
            files[kind] = Path(folder) / f"{category}{suffix}"
            began, spent = time.perf_counter(), time.process_time()
            with torch.inference_mode(mode=False):
                write_deployment(given, files[kind], kind)
            result[f"write_{kind}_s"] = round(time.perf_counter() - began, 1)
            result[f"write_{kind}_cpu_s"] = round(time.process_time() - spent, 1)
            result[f"{kind}_mb"] = round(files[kind].stat().st_size / 1e6, 1)
        ways = {
            "run": given.maps,
            "onnx": with_onnx(files["onnx"]),
            "torchscript": with_script(files["torchscript"]),
        }
        for name, mask in (("whole", whole), ("one_view_missing", short)):
            wanted = given.maps(images, mask)
            result[name] = {
                way: {"difference": float((judge(images, mask) - wanted).abs().max()), **times}
                for (way, judge), times in zip(
                    ways.items(), timed(ways, images, mask, options.rounds), strict=True
                )
            }
    result["threads"] = torch.get_num_threads()
    print(json.dumps(result, indent=None if options.json else 2))


def timed(
    ways: dict[str, Callable[..., torch.Tensor]], images: torch.Tensor, mask: torch.Tensor, rounds: int
) -> list[dict[str, float]]:
    """Median seconds a part, of the wall and of the CPU, by each way, taking turns."""
    wall: dict[str, list[float]] = {way: [] for way in ways}
    cpu: dict[str, list[float]] = {way: [] for way in ways}
    for turn in range(rounds):
        row = slice(turn % len(images), turn % len(images) + 1)
        for way, judge in ways.items():
            began, spent = time.perf_counter(), time.process_time()
            judge(images[row], mask[row])
            wall[way].append(time.perf_counter() - began)
            cpu[way].append(time.process_time() - spent)
    return [{"s": round(median(wall[way]), 4), "cpu_s": round(median(cpu[way]), 4)} for way in ways]


def with_onnx(path: Path) -> Callable[..., torch.Tensor]:
    """onnxruntime with as many threads as torch."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return lambda x, mask: torch.from_numpy(
        session.run(["maps"], {"images": x.numpy(), "view_mask": mask.numpy()})[0]
    )


def with_script(path: Path) -> Callable[..., torch.Tensor]:
    """torch.jit, warmed up: its first calls compile."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # torch's own, of the format
        loaded = torch.jit.load(path)
    return lambda x, mask: loaded(x, mask)[0]


if __name__ == "__main__":
    main()
