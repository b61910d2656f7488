"""Pixels per second of `PixelMetrics`, and deviations from the exact values, beside other tools.

    python benchmarks/metrics.py [--json] [--images 400] [--side 256] [--passes 1] [--threads 1]
    python benchmarks/metrics.py --real-iad float32 [--json]

Maps are smooth noise, skewed like cosine distances, some with raised regions, half of the images
anomalous, all made beforehand. Ours computes P-AUROC, P-AP, P-F1max and AUPRO at four limits from
``--passes`` times these maps; every other tool what it has, one pass, on the same pixels in the same run.
scikit-learn is always there; torchmetrics and ADEval are measured where they are installed
(``pip install --no-deps --target DIR torchmetrics lightning-utilities ADEval``, DIR on PYTHONPATH; nothing
in idif needs them). ADEval is given the exact least and greatest score, and numpy's new name for ``trapz``.
Speeds are by wall clock and by processor time; on a shared machine the second says more. Ours counts in
``--threads``; torch and OpenCV take what the environment allows (OMP_NUM_THREADS).

``--real-iad`` counts as many maps as the whole Real-IAD test set has (114,585 of 256x256), made on the fly,
and reports the time of counting and computing alone, and the process's peak memory.
"""

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import cv2
import numpy as np
import torch
from sklearn.metrics import average_precision_score, roc_auc_score

from idif.metrics import PixelMetrics
from idif.metrics.curves import BoundedValue

LIMITS = (0.3, 0.1, 0.05, 0.01)
BATCH = 40
REAL_IAD_MAPS, REAL_IAD_SIDE = 114_585, 256


def generate(images: int, side: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """float32 maps [N,H,W], skewed like cosine distances, and bool masks."""
    rng = np.random.default_rng(seed)
    maps, masks = np.empty((images, side, side), np.float32), np.zeros((images, side, side), bool)
    for i in range(images):
        if i % 2:
            for _ in range(rng.integers(1, 4)):
                height, width = rng.integers(side // 40 + 1, side // 8, 2)
                y, x = rng.integers(0, side - height), rng.integers(0, side - width)
                masks[i, y : y + height, x : x + width] = True
        coarse = rng.standard_normal((side // 4, side // 4), np.float32)
        smooth = cv2.resize(coarse, (side, side), interpolation=cv2.INTER_LINEAR)
        maps[i] = 0.1 * np.exp(0.2 * smooth + 0.3 * masks[i] + 0.05 * rng.standard_normal())
    return maps, masks


class Clock:
    """Wall and processor seconds of the blocks it is entered for."""

    def __init__(self) -> None:
        self.wall = self.cpu = 0.0

    def __enter__(self) -> None:
        self._start = time.perf_counter(), time.process_time()

    def __exit__(self, *_: object) -> None:
        self.wall += time.perf_counter() - self._start[0]
        self.cpu += time.process_time() - self._start[1]

    def speed(self, pixels: int) -> dict[str, float]:
        """Millions of pixels per second, by both clocks."""
        return {"mpixel_s": pixels / 1e6 / self.wall, "mpixel_cpu_s": pixels / 1e6 / self.cpu}


def stream(maps: np.ndarray, masks: np.ndarray, passes: int = 1, **options: Any) -> PixelMetrics:
    pixel = PixelMetrics(LIMITS, **options)
    for _ in range(passes):
        for i in range(0, len(maps), BATCH):
            pixel.update(maps[i : i + BATCH], masks[i : i + BATCH])
    pixel.compute()
    return pixel


def others(maps: np.ndarray, masks: np.ndarray) -> Iterator[tuple[str, Callable[[], dict[str, float]]]]:
    """Each tool's name and a call that gives what it knows, under our names."""
    scores, truth = maps.astype(np.float32), masks.ravel()
    flat = scores.ravel()
    yield "scikit-learn AUROC", lambda: {"p_auroc": roc_auc_score(truth, flat)}
    yield "scikit-learn AP", lambda: {"p_ap": average_precision_score(truth, flat)}
    try:
        from torchmetrics.functional.classification import binary_auroc, binary_average_precision
    except ImportError:
        pass
    else:
        given = torch.from_numpy(flat), torch.from_numpy(truth.astype(np.int64))
        for name, thresholds in (("torchmetrics", None), ("torchmetrics, 200 thresholds", 200)):
            yield (
                f"{name}, AUROC",
                lambda t=thresholds: {"p_auroc": float(binary_auroc(*given, thresholds=t))},
            )
            yield (
                f"{name}, AP",
                lambda t=thresholds: {"p_ap": float(binary_average_precision(*given, thresholds=t))},
            )
    try:
        from adeval import EvalAccumulator
    except ImportError:
        return
    # ADEval calls the function by the name it had before numpy 2.
    np.trapz = np.trapezoid  # noqa: NPY201

    def adeval() -> dict[str, float]:
        found = EvalAccumulator(float(flat.min()), float(flat.max()))
        found.add_anomap_batch(scores, masks.astype(np.uint8))
        acc = found._pixel_acc
        return {"p_auroc": found._auroc(acc), "p_ap": found._aupr(acc), "aupro": found._aupro()}

    yield "ADEval (AUROC, AP, AUPRO)", adeval


def measure(maps: np.ndarray, masks: np.ndarray, passes: int, threads: int = 1) -> dict[str, Any]:
    """One storage type: speeds, values, bounds, and deviations from the exact values."""
    pixel = stream(maps, masks)
    exact = stream(maps, masks, exact_pixels=maps.size)
    true: dict[str, BoundedValue] = exact.estimates()
    clock = Clock()
    with clock:
        stream(maps, masks, passes, threads=threads)
    found: dict[str, Any] = {
        "ours, everything": {
            **clock.speed(maps.size * passes),
            "passes": passes,
            "deviation": {name: abs(e.value - true[name].value) for name, e in pixel.estimates().items()},
            "bound": {name: e.error for name, e in pixel.estimates().items()},
        }
    }
    for name, call in others(maps, masks):
        clock = Clock()
        with clock:
            values = call()
        deviation = {key: abs(value - true[key].value) for key, value in values.items()}
        found[name] = {**clock.speed(maps.size), "deviation": deviation}
    return found


def whole_real_iad(dtype: str) -> dict[str, Any]:
    """As many pixels as the whole test set has, through one `PixelMetrics`."""
    import resource

    base, masks = generate(BATCH, REAL_IAD_SIDE)
    rng, clock, pixel = np.random.default_rng(1), Clock(), PixelMetrics(LIMITS)
    for start in range(0, REAL_IAD_MAPS, BATCH):
        count = min(BATCH, REAL_IAD_MAPS - start)
        gain = np.exp(0.1 * rng.standard_normal((count, 1, 1))).astype(np.float32)
        maps = (base[:count] * gain).astype(dtype)
        with clock:
            pixel.update(maps, masks[:count])
    with clock:
        pixel.compute()
    pixels = REAL_IAD_MAPS * REAL_IAD_SIDE**2
    assert pixel.normal_pixels + pixel.anomalous_pixels == pixels
    return {
        "dtype": dtype,
        "maps": REAL_IAD_MAPS,
        "gpixel": pixels / 1e9,
        "seconds": clock.wall,
        "cpu_seconds": clock.cpu,
        **clock.speed(pixels),
        "peak_gb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9,
        "bound": {name: e.error for name, e in pixel.estimates().items()},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")
    parser.add_argument("--images", type=int, default=400)
    parser.add_argument("--side", type=int, default=256)
    parser.add_argument("--threads", type=int, default=1, help="that ours counts in")
    parser.add_argument("--passes", type=int, default=1, help="times ours counts the maps")
    parser.add_argument("--real-iad", choices=("float16", "float32"), help="count 7.5 gigapixels")
    args = parser.parse_args()
    found: dict[str, Any] = {"cores": os.cpu_count(), "threads": torch.get_num_threads()}
    found["load"] = os.getloadavg()[0]
    if args.real_iad:
        found["real_iad"] = whole_real_iad(args.real_iad)
    else:
        maps, masks = generate(args.images, args.side)
        found |= {"images": args.images, "side": args.side, "mpixel": maps.size / 1e6}
        for dtype in ("float16", "float32"):
            found[dtype] = measure(maps.astype(dtype), masks, args.passes, args.threads)
    if args.json:
        json.dump(found, sys.stdout)
        print()
        return
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
