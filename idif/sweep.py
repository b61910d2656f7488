"""Missing views: what a trained method is worth when cameras fail, and what each camera is worth.

The encoder runs once per view; each view mask then costs only what depends on it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from math import factorial
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from idif.config import EvalConfig
from idif.datasets.index import Index
from idif.features import FeatureSource
from idif.live import truth
from idif.methods import Method
from idif.metrics import PixelMetrics, auroc
from idif.metrics.category import update_pixels
from idif.metrics.sample import view_scores
from idif.predictions import half_maps
from idif.progress import Progress, silent
from idif.score import Calibration, final_scores, require_finite
from idif.seeding import numpy_rng
from idif.views import all_subsets

Bools = npt.NDArray[np.bool_]

WORTH_OF_NOTHING = 0.5
"""S-AUROC of no camera at all, the start of every Shapley sum."""


@dataclass(frozen=True)
class MaskedScores:
    """What a method said of every sample under one choice of views."""

    visible: Bools
    """bool [N,V]: the views seen."""
    scores: npt.NDArray[np.float32]
    """float32 [N]: sample scores; NaN where no view is seen."""
    pixels: PixelMetrics

    def metrics(self, labels: Bools) -> dict[str, Any]:
        """S-AUROC, P-AUROC and counts; samples of which no view is seen are left out and counted.

        Args:
            labels: bool [N,V], of all views, seen or not.
        """
        seen: Bools = np.any(self.visible, axis=1, keepdims=False)
        any_view, visible_only = np.any(labels, axis=1), np.any(labels & self.visible, axis=1)
        return {
            "s_auroc": auroc(self.scores[seen], any_view[seen]),
            "s_auroc_visible": auroc(self.scores[seen], visible_only[seen]),
            "p_auroc": self.pixels.compute()["p_auroc"],
            "samples": int(seen.sum()),
            "unscorable": int((~seen).sum()),
        }


def presence(index: Index) -> tuple[Bools, Bools]:
    """(present, labels) of all rows, both bool [N,V]."""
    present, labels = truth(index, range(len(index)))
    return present.numpy(), labels.numpy()


@torch.inference_mode()
def score_masks(
    config: EvalConfig,
    method: Method,
    source: FeatureSource,
    masks: Sequence[Bools],
    device: torch.device,
    *,
    calibration: Calibration | None = None,
    progress: Progress = silent,
    what: str = "sweeping",
) -> list[MaskedScores]:
    """Score every sample of ``source`` under each view mask bool [N,V]."""
    method.eval()
    count, views = len(source.index), len(source.index.view_numbers)
    scores = [np.zeros((count, views), np.float32) for _ in masks]
    pixels = [PixelMetrics(fpr_limits=()) for _ in masks]
    has_mask = np.array([s.has_mask for s in source.index.samples], dtype=np.bool_)
    done = 0
    for batch in source.batches(range(count), config.batch_size):
        rows = batch.rows.cpu().numpy()
        moved = batch.to(device)
        encoded = method.encode(moved.images.float() / 255, moved.view_mask)
        defects, labels = batch.masks.cpu().numpy(), batch.labels.cpu().numpy()
        for mask, into, pixel in zip(masks, scores, pixels, strict=True):
            visible = torch.from_numpy(mask[rows])
            # a sample that nobody sees is decoded from what is there, and its scores are thrown away
            decoded = torch.where(visible.any(dim=1, keepdim=True), visible, batch.view_mask.cpu())
            maps = method.anomaly_maps(encoded, moved.features, decoded.to(device))
            of_views = view_scores(maps, config.score, config.top_k).cpu()
            require_finite(of_views, batch, source)
            into[rows] = of_views.numpy()
            update_pixels(pixel, half_maps(maps), defects, visible.numpy(), labels, has_mask[rows])
        done += len(batch)
        progress(done, count, what)
    return [
        MaskedScores(mask, final_scores(config, s, mask, calibration)[1], pixel)
        for mask, s, pixel in zip(masks, scores, pixels, strict=True)
    ]


def sweep_all(
    config: EvalConfig,
    method: Method,
    source: FeatureSource,
    device: torch.device,
    *,
    calibration: Calibration | None = None,
    progress: Progress = silent,
) -> dict[str, Any]:
    """Every non-empty subset of the cameras, exactly; one category's part of ``sweep.json``."""
    numbers = source.index.view_numbers
    present, labels = presence(source.index)
    subsets = all_subsets(len(numbers))
    masks = []
    for subset in subsets:
        chosen = np.zeros(len(numbers), np.bool_)
        chosen[list(subset)] = True
        masks.append(present & chosen)
    scored = score_masks(config, method, source, masks, device, calibration=calibration, progress=progress)
    results = [
        {"views": [numbers[slot] for slot in subset], **scores.metrics(labels)}
        for subset, scores in zip(subsets, scored, strict=True)
    ]
    return summarise_subsets(results, numbers)


def summarise_subsets(subsets: list[dict[str, Any]], numbers: Sequence[int]) -> dict[str, Any]:
    """``subsets`` with the mean by number of missing cameras and each camera's value."""
    by_missing = {}
    for missing in range(len(numbers)):
        chosen = [s for s in subsets if len(s["views"]) == len(numbers) - missing]
        by_missing[str(missing)] = mean_of(chosen)
    worth = {frozenset(s["views"]): s["s_auroc"] for s in subsets}
    return {"subsets": subsets, "by_missing": by_missing, "view_value": shapley(worth, numbers)}


def sweep_paper(
    config: EvalConfig,
    method: Method,
    source: FeatureSource,
    device: torch.device,
    *,
    seed: int,
    calibration: Calibration | None = None,
    progress: Progress = silent,
) -> dict[str, Any]:
    """The paper's protocol: every sample loses 0..V-1 views chosen at random, by its id and ``seed``."""
    present, labels = presence(source.index)
    views = present.shape[1]
    masks = [present.copy() for _ in range(views)]
    for row, sample in enumerate(source.index.samples):
        order = numpy_rng("missing views", seed, sample.sample_id).permutation(views)
        for missing in range(views):
            masks[missing][row, order[:missing]] = False
    scored = score_masks(config, method, source, masks, device, calibration=calibration, progress=progress)
    by_missing = {str(missing): scores.metrics(labels) for missing, scores in enumerate(scored)}
    return {"subsets": [], "by_missing": by_missing, "view_value": None}


def shapley(worth: Mapping[frozenset[int], float | None], numbers: Sequence[int]) -> dict[str, float] | None:
    """Shapley value of each camera for S-AUROC: its mean gain over all orders in which cameras are added.

    The values add up to the worth of all cameras less `WORTH_OF_NOTHING`. None where a subset's worth is
    undefined.
    """
    if any(value is None for value in worth.values()):
        return None
    count = len(numbers)
    values = {}
    for camera in numbers:
        others = [n for n in numbers if n != camera]
        total = 0.0
        for size in range(count):
            weight = factorial(size) * factorial(count - size - 1) / factorial(count)
            for before in combinations(others, size):
                base = worth[frozenset(before)] if before else WORTH_OF_NOTHING
                gained = worth[frozenset((*before, camera))]
                assert base is not None
                assert gained is not None
                total += weight * (gained - base)
        values[str(camera)] = total
    return values


def mean_of(results: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The mean of each metric over results in which it is defined (None where in none); counts add up."""
    mean: dict[str, Any] = {}
    for key in ("s_auroc", "s_auroc_visible", "p_auroc"):
        defined = [result[key] for result in results if result[key] is not None]
        mean[key] = sum(defined) / len(defined) if defined else None
    for key in ("samples", "unscorable"):
        mean[key] = sum(result[key] for result in results)
    return mean


def mean_sweep(categories: Mapping[str, dict[str, Any]], numbers: Sequence[int]) -> dict[str, Any]:
    """All categories' sweeps and their mean: the whole of ``sweep.json``."""
    sweeps = list(categories.values())
    subsets = [
        {"views": parts[0]["views"], **mean_of(parts)}
        for parts in zip(*(sweep["subsets"] for sweep in sweeps), strict=True)
    ]
    if subsets:
        whole = summarise_subsets(subsets, numbers)
    else:
        keys = sweeps[0]["by_missing"]
        by_missing = {key: mean_of([sweep["by_missing"][key] for sweep in sweeps]) for key in keys}
        whole = {"subsets": [], "by_missing": by_missing, "view_value": None}
    return {**whole, "categories": dict(categories)}
