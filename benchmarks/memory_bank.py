"""A memory bank in the manner of PatchCore on multi-view data: the baseline that learns nothing.

One bank per camera of the training views' layer2 and layer3 features; a view's score is its farthest patch's
distance to the nearest one in the bank, a sample's the maximum or mean over its views. ``--run`` sets an
evaluated run beside it, on the same test samples.

    python benchmarks/memory_bank.py --root DATA --category cable_gland --teacher-weights FILE --run RUN
"""

import argparse
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from sklearn.metrics import roc_auc_score
from torch import Tensor
from torch.nn import functional as F

from idif.data.images import load_image
from idif.data.index import Index
from idif.datasets.realiad.files import RealIADLayout
from idif.datasets.realiad.reader import read_realiad
from idif.encoders.frozen import FrozenEncoder, load_encoder
from idif.evaluation.predictions import Predictions
from idif.metrics.bootstrap import bootstrap_auroc, percentile_interval


def patches(encoder: FrozenEncoder, root: Path, paths: Sequence[str], size: int) -> Tensor:
    """float32 [N,h*w,384]: layer2 beside layer3, each averaged over 3x3, layer3 on layer2's grid."""
    found = []
    for start in range(0, len(paths), 16):
        loaded = [load_image(root / path, size)[0] for path in paths[start : start + 16]]
        features = encoder(torch.from_numpy(np.stack(loaded)))
        fine, coarse = (F.avg_pool2d(features[name], 3, 1, 1) for name in ("layer2", "layer3"))
        coarse = F.interpolate(coarse, size=fine.shape[-2:], mode="bilinear", align_corners=False)
        found.append(torch.cat([fine, coarse], 1).flatten(2).transpose(1, 2))
    return torch.cat(found)


def nearest(queries: Tensor, bank: Tensor) -> Tensor:
    """[N,P,d], [M,d] -> [N]: per view, the largest of its patches' distances to their nearest bank entry."""
    scores = [torch.cdist(view, bank).amin(1).amax() for view in queries]
    return torch.stack(scores)


def score(
    index: Index, root: Path, encoder: FrozenEncoder, size: int, keep: float, width: int, seed: int
) -> np.ndarray:
    """float [N,V]: the score of each test view, NaN where it is absent."""
    train = index.take(index.rows(lambda sample: sample.split == "train"))
    test = index.take(index.rows(lambda sample: sample.split == "test"))
    scores = np.full((len(test), len(index.view_numbers)), np.nan)
    for slot in range(len(index.view_numbers)):
        generator = torch.Generator().manual_seed(seed + slot)
        known = [view.image for s in train.samples if (view := s.views[slot]) is not None]
        asked = [
            (row, view.image) for row, s in enumerate(test.samples) if (view := s.views[slot]) is not None
        ]
        bank = patches(encoder, root, known, size).flatten(0, 1)
        bank = bank[torch.randperm(len(bank), generator=generator)[: max(1, int(keep * len(bank)))]]
        queries = patches(encoder, root, [path for _, path in asked], size)
        projection = torch.randn(bank.shape[1], width, generator=generator) / width**0.5
        found = nearest(queries @ projection, bank @ projection)
        scores[[row for row, _ in asked], slot] = found.numpy()
        print(f"camera {index.view_numbers[slot]}: bank of {len(bank)} patches", file=sys.stderr)
    return scores


def beside(
    run: Path, ids: Sequence[str], labels: np.ndarray, banks: dict[str, np.ndarray]
) -> dict[str, object]:
    """The run's S-AUROC, and by how much it exceeds the bank's: 95 % intervals of the paired difference."""
    predictions = Predictions.open(run / "predictions.h5")
    row = {sample: number for number, sample in enumerate(predictions.sample_id)}
    scores = np.array([predictions.sample_scores[row[sample]] for sample in ids], np.float32)
    ours = bootstrap_auroc([scores], labels, resamples=10_000)
    found: dict[str, object] = {"run": run.name, "s_auroc_run": float(roc_auc_score(labels, scores))}
    for rule, of_bank in banks.items():
        theirs = bootstrap_auroc([of_bank.astype(np.float32)], labels, resamples=10_000)
        if ours is not None and theirs is not None:
            found[f"run_minus_{rule}_ci"] = percentile_interval(ours - theirs)
            found[f"run_above_{rule}_share"] = float(np.mean(ours > theirs))
    return found


def by_views(
    scores: np.ndarray, labels: np.ndarray, numbers: Sequence[int], views: Sequence[int]
) -> dict[str, float]:
    """S-AUROC of some views' scores alone."""
    chosen = scores[:, [numbers.index(number) for number in views]]
    rules = {"max": np.nanmax(chosen, axis=1), "mean": np.nanmean(chosen, axis=1)}
    return {f"s_auroc_{rule}": float(roc_auc_score(labels, found)) for rule, found in rules.items()}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--root", type=Path, required=True)
    parser.add_argument("--category", required=True)
    parser.add_argument("--teacher-weights", default="imagenet")
    parser.add_argument("--images", default="realiad_256")
    parser.add_argument("--image-size", type=int, default=256)
    parser.add_argument("--keep", type=float, default=0.1, help="share of the training patches in the bank")
    parser.add_argument("--width", type=int, default=128, help="dimensions of the random projection")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--of", type=int, nargs="+", action="append", help="also score these views alone; may be repeated"
    )
    parser.add_argument("--run", type=Path, help="an evaluated run of the same test samples")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()

    start = time.perf_counter()
    index = read_realiad(RealIADLayout(options.root, images=options.images), categories=[options.category])
    encoder = load_encoder(options.teacher_weights)
    scores = score(
        index, options.root, encoder, options.image_size, options.keep, options.width, options.seed
    )
    test = [sample for sample in index.samples if sample.split == "test"]
    labels = np.array([sample.label for sample in test], np.bool_)
    banks = {"max": np.nanmax(scores, axis=1), "mean": np.nanmean(scores, axis=1)}
    result: dict[str, object] = {
        "category": options.category,
        "s_auroc_max": float(roc_auc_score(labels, banks["max"])),
        "s_auroc_mean": float(roc_auc_score(labels, banks["mean"])),
        "train_samples": len(index) - len(labels),
        "test_samples": len(labels),
        "keep": options.keep,
        "width": options.width,
        "seed": options.seed,
        "seconds": round(time.perf_counter() - start, 1),
    }
    if options.of:
        result["of"] = {
            ",".join(map(str, views)): by_views(scores, labels, index.view_numbers, views)
            for views in options.of
        }
    if options.run is not None:
        result |= beside(options.run, [sample.sample_id for sample in test], labels, banks)
    if options.json:
        print(json.dumps(result))
    else:
        print("\n".join(f"{key:14} {value}" for key, value in result.items()))


if __name__ == "__main__":
    main()
