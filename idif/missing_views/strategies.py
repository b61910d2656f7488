"""Strategies against missing views (Fig. 4): leave them out, retrieve them, or inpaint them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch

from idif.data.features import FeatureSource
from idif.evaluation.category_metrics import update_pixels
from idif.evaluation.scoring import Scorer, SourceScores
from idif.metrics import PixelMetrics, auroc
from idif.metrics.bootstrap import bootstrap_auroc, percentile_interval
from idif.metrics.mean import mean_defined
from idif.missing_views.imputation import ImputedSource, Imputer
from idif.missing_views.sweep import Bools, presence, random_masks
from idif.progress import Progress, silent

STRATEGIES = ("dropout", "retrieve", "reconstruct")
"""Score the views present alone; impute the missing ones from the nearest training samples; inpaint them."""


@dataclass(frozen=True)
class Strategy:
    """A strategy for missing views."""

    imputer: Imputer | None
    """None leaves the views missing."""
    score_imputed: bool = False
    """Whether imputed views are scored in addition to the present ones."""


def score_strategy(
    scorer: Scorer,
    source: FeatureSource,
    strategy: Strategy,
    *,
    seed: int,
    progress: Progress = silent,
    title: str = "scoring",
) -> dict[str, Any]:
    """Evaluate one strategy on one category with 0, 1, ... V-1 random views of each sample missing.

    A sample is anomalous if any of its views is, visible or not, as in the paper.

    Args:
        scorer: the trained method and its scoring rules.
        source: test samples.
        seed: seed of the masks, see `random_masks`.
        progress: called with the samples done, over all masks.
        title: text of the progress bar.

    Returns:
        {"0": {"s_auroc", "s_auroc_ci", "p_auroc", "samples", "unscorable"}, ...}; ``p_auroc`` is over the
        pixels of the views present.
    """
    masks, labels = random_masks(source.index, seed), presence(source.index)[1]
    curve: dict[str, Any] = {}
    for missing, visible in enumerate(masks):
        listen = partial(_of_all, progress, missing, len(masks), title)
        curve[str(missing)] = _score_mask(scorer, source, strategy, visible, labels, listen)
    return curve


def _of_all(
    progress: Progress, before: int, parts: int, title: str, done: int, total: int, what: str = ""
) -> None:
    """Report the progress of one mask as progress over all masks."""
    progress(before * total + done, parts * total, title)


def _score_mask(
    scorer: Scorer,
    source: FeatureSource,
    strategy: Strategy,
    visible: Bools,
    labels: Bools,
    progress: Progress,
) -> dict[str, Any]:
    seen: Bools = np.any(visible, axis=1)
    rows = np.flatnonzero(seen).tolist()
    imputed = ImputedSource(source, visible, strategy.imputer)
    scores, counted = np.zeros(visible.shape, np.float32), visible.copy()
    own = np.full(len(visible), np.nan, np.float32)
    pixels = PixelMetrics(fpr_limits=())
    has_mask = np.array([s.has_mask for s in source.index.samples], dtype=np.bool_)
    for scored in scorer.batches(imputed, rows, progress=progress):
        batch = scored.batch.to(torch.device("cpu"))
        here = batch.rows.numpy()
        scores[here] = scored.views.numpy()
        if scored.samples is not None:
            own[here] = scored.samples.numpy()
        if strategy.score_imputed:
            counted[here] = batch.view_mask.numpy()
        if scored.maps is not None:
            maps, defects = scored.maps.half(), batch.masks.numpy()
            update_pixels(pixels, maps, defects, visible[here], labels[here], has_mask[here])
    given = own if np.isfinite(own).any() else None
    _, reduced = scorer.final(SourceScores(scores, counted, given))
    any_view: Bools = np.any(labels, axis=1)
    return {
        "s_auroc": auroc(reduced[seen], any_view[seen]),
        "s_auroc_ci": percentile_interval(bootstrap_auroc([reduced], any_view)),
        "p_auroc": pixels.compute()["p_auroc"],
        "samples": int(seen.sum()),
        "unscorable": int((~seen).sum()),
    }


def mean_curve(categories: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """The mean over categories of the results of `score_strategy`; a single category keeps its interval."""
    parts: Sequence[Mapping[str, Any]] = list(categories.values())
    mean: dict[str, Any] = {}
    for missing in parts[0]:
        values = [part[missing] for part in parts]
        mean[missing] = {"s_auroc_ci": values[0]["s_auroc_ci"] if len(values) == 1 else None}
        for key in ("s_auroc", "p_auroc"):
            mean[missing][key], _ = mean_defined(value[key] for value in values)
        for key in ("samples", "unscorable"):
            mean[missing][key] = sum(value[key] for value in values)
    return mean
