"""View scores from maps, sample scores from views, S- and I-metrics, and reasons of undefined ones."""

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from idif.metrics.bootstrap import bootstrap_auroc, percentile_interval
from idif.metrics.curves import auroc, average_precision, f1_max, one_class_reason
from idif.metrics.score_counts import Array, BoolArray

ViewRule = Literal["max", "topk", "topshare"]
SampleRule = Literal["max", "mean"]


def view_scores(maps: Tensor, rule: ViewRule = "max", top_k: int = 100, top_share: float = 0.01) -> Tensor:
    """One score a view from its anomaly map.

    Args:
        maps: [B,V,H,W] floating point, any device.
        rule: the greatest pixel, the mean of the ``top_k`` greatest, or of the greatest ``top_share``.
        top_k: in 1..H*W, for ``topk`` only.
        top_share: in (0, 1], for ``topshare`` only.

    Returns:
        float32 [B,V].

    Raises:
        ValueError: ``top_k`` does not fit the maps.
    """
    pixels = maps.flatten(-2).float()
    if rule == "max":
        return pixels.amax(-1)
    if rule == "topshare":
        top_k = max(1, round(top_share * pixels.shape[-1]))
    if not 1 <= top_k <= pixels.shape[-1]:
        raise ValueError(f"top_k must lie in 1..{pixels.shape[-1]} (pixels of a map), not {top_k}")
    return pixels.topk(top_k, dim=-1, sorted=False).values.mean(-1)


def sample_scores(view_scores: Tensor, present: Tensor, rule: SampleRule = "max") -> Tensor:
    """One score a sample, over the views that are present.

    Args:
        view_scores: [N,V]; scores of absent views are ignored.
        present: bool [N,V].
        rule: the greatest view score, or their mean.

    Returns:
        float32 [N]; NaN for a sample without any view.
    """
    scores, unscorable = view_scores.float(), ~present.any(-1)
    if rule == "max":
        found = scores.masked_fill(~present, -torch.inf).amax(-1)
    else:
        found = scores.masked_fill(~present, 0.0).sum(-1) / present.sum(-1).clamp(min=1)
    return found.masked_fill(unscorable, torch.nan)


def ranking_metrics(
    prefix: str, scores: Array, labels: BoolArray, items: str
) -> tuple[dict[str, float | None], dict[str, str]]:
    """``<prefix>_auroc``, ``_ap`` and ``_f1_max`` of flat scores, and the reason of each that is None.

    ``items`` names what is ranked, for the reasons.
    """
    values = {
        f"{prefix}_auroc": auroc(scores, labels),
        f"{prefix}_ap": average_precision(scores, labels),
        f"{prefix}_f1_max": f1_max(scores, labels),
    }
    anomalous = int(labels.sum())
    reason = one_class_reason(labels.size - anomalous, anomalous, items)
    return values, {} if reason is None else dict.fromkeys(values, reason)


def sample_metrics(
    view_scores: Array,
    sample_scores: Array,
    labels: BoolArray,
    present: BoolArray,
    view_numbers: Sequence[int],
    sample_labels: BoolArray | None = None,
    scorable: BoolArray | None = None,
    resamples: int = 1000,
) -> dict[str, Any]:
    """S- and I-metrics of one category.

    Args:
        view_scores: [N,V], finite where present.
        sample_scores: [N], finite where any view is present.
        labels: bool [N,V], true where a view is anomalous.
        present: bool [N,V].
        view_numbers: V camera numbers.
        sample_labels: bool [N]; none means: anomalous when any present view is.
        scorable: bool [N], the samples that have a score; none means: those with a view.
        resamples: of the bootstrap; 0 leaves the interval out.

    Returns:
        ``s_auroc, s_ap, s_f1_max`` over samples with any view, ``s_auroc_ci`` [low, high] (95 %),
        ``i_auroc, i_ap, i_f1_max`` over all present views together, ``per_view`` {"1": the I-metrics of
        camera 1}, ``counts``, and ``reasons`` of what is None (``per_view.1.i_auroc`` for camera 1).

    Raises:
        ValueError: a score that is used is not finite.
    """
    if scorable is None:
        scorable = np.any(present, axis=1)
    flags: BoolArray = np.any(labels & present, axis=1) if sample_labels is None else sample_labels
    samples, truth = sample_scores[scorable], flags[scorable]
    found: dict[str, Any] = {}
    values, reasons = ranking_metrics("s", samples, truth, "samples")
    found.update(values)
    if resamples:
        # With those left out in their places, as in a sweep: the same draws give the same interval there.
        scored = np.where(scorable, sample_scores, np.nan)
        draws = bootstrap_auroc([scored], flags, resamples=resamples)
        found["s_auroc_ci"] = percentile_interval(draws)
        if found["s_auroc_ci"] is None:
            reasons["s_auroc_ci"] = reasons["s_auroc"]
    values, why = ranking_metrics("i", view_scores[present], labels[present], "views")
    found.update(values)
    reasons.update(why)
    found["per_view"] = {}
    for slot, number in enumerate(view_numbers):
        there = present[:, slot]
        values, why = ranking_metrics(
            "i", view_scores[there, slot], labels[there, slot], f"views of camera {number}"
        )
        found["per_view"][str(number)] = values
        reasons.update({f"per_view.{number}.{name}": text for name, text in why.items()})
    found["counts"] = {
        "samples": int(scorable.sum()),
        "anomalous_samples": int(truth.sum()),
        "incomplete_samples": int((scorable & ~present.all(axis=1)).sum()),
        "unscorable": int((~scorable).sum()),
        "views": int(present.sum()),
        "anomalous_views": int((labels & present).sum()),
    }
    found["reasons"] = reasons
    return found
