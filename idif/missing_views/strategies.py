"""What to do about missing views (Fig. 4): score what is there, borrow the rest, or paint it."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch

from idif.config.sections import EvalConfig
from idif.data.features import FeatureSource
from idif.evaluation.calibration import Calibration, final_scores
from idif.evaluation.category_metrics import update_pixels
from idif.evaluation.scoring import score_batches
from idif.methods.protocol import Method
from idif.metrics import PixelMetrics, auroc
from idif.metrics.bootstrap import interval, mean_auroc_draws
from idif.missing_views.imputation import ImputedSource, Imputer
from idif.missing_views.sweep import Bools, presence, random_masks
from idif.progress import Progress, silent

STRATEGIES = ("dropout", "retrieve", "reconstruct")
"""Score the views present alone; fill the missing ones in from the nearest training samples; paint them."""


def score_strategy(
    config: EvalConfig,
    method: Method,
    source: FeatureSource,
    device: torch.device,
    *,
    seed: int,
    filler: Imputer | None,
    score_filled: bool = False,
    calibration: Calibration | None = None,
    progress: Progress = silent,
    what: str = "scoring",
) -> dict[str, Any]:
    """One strategy on one category with 0, 1, ... V-1 random views of each sample missing.

    A sample is anomalous when any of its views is, seen or not, as in the paper.

    Args:
        config: scoring rules.
        method: trained.
        source: test samples.
        device: the method's.
        seed: of the masks, see `random_masks`.
        filler: what stands in for missing views; None leaves them out.
        score_filled: whether those count beside the views present.
        calibration: of view scores.
        progress: told samples done, of all masks together.
        what: the progress bar's words.

    Returns:
        {"0": {"s_auroc", "s_auroc_ci", "p_auroc", "samples", "unscorable"}, ...}; ``p_auroc`` is over the
        pixels of the views present.
    """
    masks, labels = random_masks(source.index, seed), presence(source.index)[1]
    found: dict[str, Any] = {}
    for missing, visible in enumerate(masks):
        listen = partial(_of_all, progress, missing, len(masks), what)
        found[str(missing)] = _score_mask(
            config, method, source, device, visible, labels, filler, score_filled, calibration, listen
        )
    return found


def _of_all(
    progress: Progress, before: int, parts: int, title: str, done: int, total: int, what: str = ""
) -> None:
    """Progress of one mask as progress of all."""
    progress(before * total + done, parts * total, title)


def _score_mask(
    config: EvalConfig,
    method: Method,
    source: FeatureSource,
    device: torch.device,
    visible: Bools,
    labels: Bools,
    filler: Imputer | None,
    score_filled: bool,
    calibration: Calibration | None,
    progress: Progress,
) -> dict[str, Any]:
    seen: Bools = np.any(visible, axis=1)
    rows = np.flatnonzero(seen).tolist()
    filled = ImputedSource(source, visible, filler)
    scores, counted = np.zeros(visible.shape, np.float32), visible.copy()
    pixels = PixelMetrics(fpr_limits=())
    has_mask = np.array([s.has_mask for s in source.index.samples], dtype=np.bool_)
    for scored in score_batches(config, method, filled, rows, device, progress=progress):
        batch = scored.batch.to(torch.device("cpu"))
        here = batch.rows.numpy()
        scores[here] = scored.scores.numpy()
        if score_filled:
            counted[here] = batch.view_mask.numpy()
        maps, defects = scored.maps.half(), batch.masks.numpy()
        update_pixels(pixels, maps, defects, visible[here], labels[here], has_mask[here])
    _, of_samples = final_scores(config, scores, counted, calibration)
    any_view: Bools = np.any(labels, axis=1)
    return {
        "s_auroc": auroc(of_samples[seen], any_view[seen]),
        "s_auroc_ci": interval(mean_auroc_draws([of_samples], any_view)),
        "p_auroc": pixels.compute()["p_auroc"],
        "samples": int(seen.sum()),
        "unscorable": int((~seen).sum()),
    }


def mean_curve(categories: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """The mean over categories of what `score_strategy` gave each; one category keeps its interval."""
    parts: Sequence[Mapping[str, Any]] = list(categories.values())
    mean: dict[str, Any] = {}
    for missing in parts[0]:
        values = [part[missing] for part in parts]
        mean[missing] = {"s_auroc_ci": values[0]["s_auroc_ci"] if len(values) == 1 else None}
        for key in ("s_auroc", "p_auroc"):
            known = [value[key] for value in values if value[key] is not None]
            mean[missing][key] = sum(known) / len(known) if known else None
        for key in ("samples", "unscorable"):
            mean[missing][key] = sum(value[key] for value in values)
    return mean
