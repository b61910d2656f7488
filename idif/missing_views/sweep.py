"""Missing-view sweeps: metrics of a trained method under every choice of cameras, and each camera's value."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from idif.data.batch import Batch, presence_and_labels
from idif.data.features import FeatureSource
from idif.data.index import Index
from idif.evaluation.category_metrics import update_pixels
from idif.evaluation.scoring import Scorer, SourceScores, reduce_maps, require_finite
from idif.methods.protocol import ScoresSubsets
from idif.metrics import PixelMetrics, auroc
from idif.metrics.mean import mean_defined
from idif.missing_views.camera_value import (
    MAX_EXACT_CAMERAS,
    best_subsets,
    camera_orders,
    camera_subsets,
    leave_one_out,
    missing_intervals,
    shapley,
    shapley_sampled,
    standard_error,
)
from idif.missing_views.imputation import hide, per_view_arrays
from idif.progress import Progress, silent
from idif.randomness import numpy_rng

Bools = npt.NDArray[np.bool_]

MASKS_AT_ONCE = 32
"""Number of view masks scored at once, whose maps are in memory together."""

NO_SUBSETS = dict.fromkeys(("view_value", "view_value_se", "leave_one_out", "best_subsets"))
"""Keys that are None in a sweep over random choices of views."""


@dataclass(frozen=True)
class MaskedScores:
    """The scores of every sample under one choice of views."""

    visible: Bools
    """bool [N,V]."""
    scores: npt.NDArray[np.float32]
    """float32 [N]: sample scores; NaN without visible views."""
    pixels: PixelMetrics

    def metrics(self, labels: Bools) -> dict[str, Any]:
        """S-AUROC, P-AUROC and counts; samples without visible views are excluded and counted.

        Args:
            labels: bool [N,V], labels of all views, visible or not.
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
    present, labels = presence_and_labels(index, range(len(index)))
    return present.numpy(), labels.numpy()


@torch.inference_mode()
def score_masks(
    scorer: Scorer,
    source: FeatureSource,
    masks: Sequence[Bools],
    *,
    progress: Progress = silent,
    title: str = "sweeping",
) -> list[MaskedScores]:
    """Score every sample of ``source`` under each view mask bool [N,V]."""
    method = scorer.method.eval()
    count, views = len(source.index), len(source.index.view_numbers)
    scores = np.zeros((len(masks), count, views), np.float32)
    own = np.full((len(masks), count), np.nan, np.float32)
    pixels = [PixelMetrics(fpr_limits=()) for _ in masks]
    has_mask = np.array([s.has_mask for s in source.index.samples], dtype=np.bool_)
    done = 0
    for batch in source.batches(range(count), scorer.config.batch_size):
        rows = batch.rows.cpu().numpy()
        moved = batch.to(scorer.device)
        if method.independent_views:
            parts = _score_once(scorer, moved, [mask[rows] for mask in masks])
        elif isinstance(method, ScoresSubsets):
            parts = _score_together(scorer, method, moved, [mask[rows] for mask in masks])
        else:
            parts = _score_one_by_one(scorer, source, moved, [mask[rows] for mask in masks])
        for number, part in enumerate(parts):
            require_finite(part.views, batch, source)
            scores[number, rows] = part.views.numpy()
            if part.samples is not None:
                own[number, rows] = part.samples
            if part.maps is not None:
                truths = (batch.masks.cpu().numpy(), batch.labels.cpu().numpy(), has_mask[rows])
                _count_pixels(pixels[number], part.maps, part.visible, *truths)
        done += len(batch)
        progress(done, count, title)
    given = np.isfinite(own).any()
    return [
        MaskedScores(mask, scorer.final(SourceScores(s, mask, samples if given else None))[1], pixel)
        for mask, s, samples, pixel in zip(masks, scores, own, pixels, strict=True)
    ]


class _SubsetScores(NamedTuple):
    """The scores of a batch under one view mask."""

    visible: Bools
    """[B,V]."""
    views: Tensor
    """float32 [B,V] on the CPU, zero where not visible."""
    samples: npt.NDArray[np.float32] | None
    """[B], NaN without visible views; None: sample scores are reduced from the views."""
    maps: Tensor | None
    """float16 [P,H,W] of the visible views, in the order of ``visible.nonzero()``."""


def _score_once(scorer: Scorer, batch: Batch, masks: Sequence[Bools]) -> Iterator[_SubsetScores]:
    """Score with a method whose views are independent: every present view once."""
    scored = scorer.score(batch)
    halves = None if scored.maps is None else scored.maps.half()
    for mask in masks:
        visible = torch.from_numpy(mask)
        maps = None if halves is None else halves[visible.to(halves.device)]
        yield _SubsetScores(mask, scored.views * visible, None, maps)


def _score_together(
    scorer: Scorer, method: ScoresSubsets, batch: Batch, masks: Sequence[Bools]
) -> Iterator[_SubsetScores]:
    """Score with a method that shares work among choices of views."""
    encoded = method.encode_batch(batch)
    for start in range(0, len(masks), MASKS_AT_ONCE):
        visible = torch.from_numpy(np.stack(masks[start : start + MASKS_AT_ONCE]))
        maps = method.score_subsets(encoded, batch, visible.to(scorer.device))
        views = torch.zeros(visible.shape)
        views[visible] = reduce_maps(scorer.config, scorer.method, maps[:, None])[:, 0].cpu()
        halves = torch.split(maps.half(), visible.flatten(1).sum(dim=1).tolist())
        for shown, of_views, half in zip(visible, views, halves, strict=True):
            yield _SubsetScores(shown.numpy(), of_views, None, half)


def _score_one_by_one(
    scorer: Scorer, source: FeatureSource, batch: Batch, masks: Sequence[Bools]
) -> Iterator[_SubsetScores]:
    """Score with any other method, by hiding the views that are not chosen."""
    names = per_view_arrays(source.spec)
    for mask in masks:
        visible = torch.from_numpy(mask)
        seen = visible.any(dim=1)
        views = torch.zeros(visible.shape)
        samples: npt.NDArray[np.float32] | None = None
        maps = None
        if seen.any():
            rows = seen.nonzero()[:, 0].to(scorer.device)
            chosen = batch.take(rows)
            scored = scorer.score(hide(chosen, visible[seen].to(scorer.device), names))
            views[seen] = scored.views * visible[seen]
            if scored.samples is not None:
                samples = np.full(len(batch), np.nan, np.float32)
                samples[seen.numpy()] = scored.samples.numpy()
            if scored.maps is not None:
                maps = scored.maps.half()[visible[seen].to(scored.maps.device)]
        yield _SubsetScores(mask, views, samples, maps)


def _count_pixels(
    pixels: PixelMetrics, maps: Tensor, visible: Bools, defects: Bools, labels: Bools, has_mask: Bools
) -> None:
    """Count the pixels of float16 maps [P,H,W] of the ``visible`` [B,V] views."""
    # every visible view counts as a sample with one view
    truths = (defects[visible], visible[visible], labels[visible], has_mask[visible])
    update_pixels(pixels, maps[:, None], *(truth[:, None] for truth in truths))


def random_masks(index: Index, seed: int) -> list[Bools]:
    """The paper's protocol: masks bool [N,V] with 0, 1, ... V-1 views of each sample hidden.

    The choice depends only on the sample's id and ``seed``; larger sets of hidden views include smaller ones.
    """
    present, _ = presence(index)
    views = present.shape[1]
    masks = [present.copy() for _ in range(views)]
    for row, sample in enumerate(index.samples):
        order = numpy_rng("missing views", seed, sample.sample_id).permutation(views)
        for missing in range(views):
            masks[missing][row, order[:missing]] = False
    return masks


def sweep_all(
    scorer: Scorer,
    source: FeatureSource,
    *,
    progress: Progress = silent,
) -> dict[str, Any]:
    """Evaluate every subset of `camera_subsets`; returns one category's part of ``sweep.json``."""
    numbers = source.index.view_numbers
    present, labels = presence(source.index)
    subsets = camera_subsets(numbers)
    masks = [present & np.isin(numbers, subset) for subset in subsets]
    scored = score_masks(scorer, source, masks, progress=progress)
    results = [
        {"views": list(subset), **scores.metrics(labels)}
        for subset, scores in zip(subsets, scored, strict=True)
    ]
    found = summarise_subsets(results, numbers)
    alike: dict[int, list[npt.NDArray[np.float32]]] = {}
    for subset, scores in zip(subsets, scored, strict=True):
        alike.setdefault(len(numbers) - len(subset), []).append(scores.scores)
    for missing, ends in missing_intervals(alike, np.any(labels, axis=1)).items():
        found["by_missing"][str(missing)] |= ends
    return found


def summarise_subsets(subsets: list[dict[str, Any]], numbers: Sequence[int]) -> dict[str, Any]:
    """``subsets`` with the mean by number of missing cameras and the value of each camera.

    If the subsets are a sample of all, ``s_auroc_se`` and ``view_value_se`` are the standard errors of the
    sampling.
    """
    orders = camera_orders(numbers) if len(numbers) > MAX_EXACT_CAMERAS else None
    worth = {frozenset(s["views"]): s["s_auroc"] for s in subsets}
    by_missing = {}
    for missing in range(len(numbers)):
        size = len(numbers) - missing
        chosen = [s for s in subsets if len(s["views"]) == size]
        by_missing[str(missing)] = mean_of(chosen)
        if orders is not None:
            drawn = [worth[frozenset(order[:size])] for order in orders]
            known = [value for value in drawn if value is not None]
            by_missing[str(missing)]["s_auroc_se"] = standard_error(known) if len(known) > 1 else None
    if orders is None:
        value, error = shapley(worth, numbers), None
    else:
        value, error = shapley_sampled(worth, orders) or (None, None)
    return {
        "subsets": subsets,
        "by_missing": by_missing,
        "view_value": value,
        "view_value_se": error,
        "leave_one_out": leave_one_out(worth, numbers),
        "best_subsets": best_subsets(worth),
    }


def sweep_paper(
    scorer: Scorer,
    source: FeatureSource,
    *,
    seed: int,
    progress: Progress = silent,
) -> dict[str, Any]:
    """The paper's protocol: 0..V-1 views of each sample are missing, chosen by its id and ``seed``."""
    _, labels = presence(source.index)
    masks = random_masks(source.index, seed)
    scored = score_masks(scorer, source, masks, progress=progress)
    by_missing = {str(missing): scores.metrics(labels) for missing, scores in enumerate(scored)}
    alike = {missing: [scores.scores] for missing, scores in enumerate(scored)}
    for missing, ends in missing_intervals(alike, np.any(labels, axis=1)).items():
        by_missing[str(missing)] |= ends
    return {"subsets": [], "by_missing": by_missing, **NO_SUBSETS}


def mean_of(results: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The mean of each metric over the results that define it (None if none does); counts are summed."""
    mean: dict[str, Any] = {}
    for key in ("s_auroc", "s_auroc_visible", "p_auroc"):
        mean[key], _ = mean_defined(result[key] for result in results)
    for key in ("samples", "unscorable"):
        mean[key] = sum(result[key] for result in results)
    return mean


def mean_sweep(categories: Mapping[str, dict[str, Any]], numbers: Sequence[int]) -> dict[str, Any]:
    """Sweeps of all categories and their mean: the content of ``sweep.json``."""
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
        whole = {"subsets": [], "by_missing": by_missing, **NO_SUBSETS}
    if len(sweeps) == 1:
        # the interval of a mean is not the mean of the intervals; a single category keeps its own
        for missing, values in whole["by_missing"].items():
            values |= {key: sweeps[0]["by_missing"][missing][key] for key in ("s_auroc_ci", "loss_ci")}
    return {**whole, "categories": dict(categories)}
