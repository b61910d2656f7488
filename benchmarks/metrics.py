"""Pixels per second of `PixelMetrics`, with its deviation from the exact values, beside scikit-learn.

    python benchmarks/metrics.py [--json] [--images 400] [--side 256]

Maps are smooth noise, some with raised regions, half of the images anomalous, all made beforehand. Ours
computes P-AUROC, P-AP, P-F1max and AUPRO at four limits; scikit-learn the AUROC and the average precision,
one call each, on the same pixels in the same run. Threads: whatever the environment allows.
"""

import argparse
import json
import os
import sys
import time
from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
from sklearn.metrics import average_precision_score, roc_auc_score

from idif.metrics import PixelMetrics

LIMITS = (0.3, 0.1, 0.05, 0.01)
BATCH = 40


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


def timed(work: Callable[[], Any]) -> tuple[float, Any]:
    start = time.perf_counter()
    result = work()
    return time.perf_counter() - start, result


def stream(maps: np.ndarray, masks: np.ndarray, **options: Any) -> PixelMetrics:
    pixel = PixelMetrics(LIMITS, **options)
    for i in range(0, len(maps), BATCH):
        pixel.update(maps[i : i + BATCH], masks[i : i + BATCH])
    pixel.compute()
    return pixel


def measure(maps: np.ndarray, masks: np.ndarray) -> dict[str, Any]:
    """One storage type: speeds in Mpixel/s, values, bounds, and deviations from the exact values."""
    million = maps.size / 1e6
    seconds, pixel = min((timed(lambda: stream(maps, masks)) for _ in range(2)), key=lambda run: run[0])
    exact = stream(maps, masks, max_distinct=maps.size + 2)
    values, true = pixel.compute(), exact.compute()
    flat, truth = maps.astype(np.float32).ravel(), masks.ravel()
    auroc_seconds, auroc = timed(lambda: roc_auc_score(truth, flat))
    ap_seconds, ap = timed(lambda: average_precision_score(truth, flat))
    return {
        "ours_mpixel_s": million / seconds,
        "sklearn_auroc_mpixel_s": million / auroc_seconds,
        "sklearn_ap_mpixel_s": million / ap_seconds,
        "values": values,
        "deviation_from_exact": {
            name: abs(values[name] - true[name]) for name in true if name != "error_bound"
        },
        "bounds": {name: estimate.error for name, estimate in pixel.estimates().items()},
        "exact_minus_sklearn": {"p_auroc": true["p_auroc"] - auroc, "p_ap": true["p_ap"] - ap},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")
    parser.add_argument("--images", type=int, default=400)
    parser.add_argument("--side", type=int, default=256)
    args = parser.parse_args()
    maps, masks = generate(args.images, args.side)
    found = {
        "cores": os.cpu_count(),
        "images": args.images,
        "side": args.side,
        "mpixel": maps.size / 1e6,
        "float16": measure(maps.astype(np.float16), masks),
        "float32": measure(maps, masks),
    }
    if args.json:
        json.dump(found, sys.stdout)
        print()
        return
    print(f"{args.images} maps of {args.side}x{args.side}, {found['cores']} cores")
    for name in ("float16", "float32"):
        r = found[name]
        print(
            f"{name}: ours {r['ours_mpixel_s']:.0f} Mpixel/s (everything), scikit-learn "
            f"{r['sklearn_auroc_mpixel_s']:.1f} (AUROC) and {r['sklearn_ap_mpixel_s']:.1f} (AP); "
            f"greatest deviation {max(r['deviation_from_exact'].values()):.1e}, "
            f"bound {max(r['bounds'].values()):.1e}"
        )


if __name__ == "__main__":
    main()
