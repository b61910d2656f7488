"""The metrics of one category from a predictions file, and their mean over categories."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from idif.data.index import NORMAL_CLASS
from idif.errors import RunError
from idif.evaluation.predictions import Predictions
from idif.methods.maps import MAP
from idif.metrics.curves import AuproRule, auroc, one_class_reason
from idif.metrics.mean import mean_defined
from idif.metrics.pixel import PixelMetrics, metric_name
from idif.metrics.regions import Connectivity
from idif.metrics.sample import sample_metrics
from idif.metrics.score_counts import ArrayLike, BoolArray, IntArray

_BLOCK = 8
CURVE_POINTS = 100
"""Number of points of the recorded per-region-overlap curve."""


def category_metrics(
    predictions: Predictions,
    category: str | None = None,
    *,
    pixels: Mapping[str, PixelMetrics] | None = None,
    fpr_limits: Sequence[float] = (0.3,),
    connectivity: Connectivity = 8,
    aupro_rule: AuproRule = "interpolated",
    sample_labels: BoolArray | None = None,
    resamples: int = 1000,
    advance: Callable[[int], None] | None = None,
) -> dict[str, Any]:
    """All metrics of one category for ``metrics.json``, as JSON values.

    Args:
        predictions: an open predictions file.
        category: category to measure; None pools all rows.
        pixels: {map: pixel counts} of a streaming pass over the same rows, for files without maps; None
            reads the file's maps, to which ``fpr_limits``, ``connectivity`` and ``aupro_rule`` apply.
        fpr_limits: limits of AUPRO.
        connectivity: connectivity of regions, 8 or 4.
        aupro_rule: see `idif.metrics.aupro`.
        sample_labels: bool [N] of these rows; none means: anomalous when any present view is.
        resamples: of the bootstrap interval; 0 leaves it out.
        advance: called with the number of maps read since the last call, counted per sample.

    Returns:
        The keys of `sample_metrics`, those of `PixelMetrics.compute` with ``error_bound`` as
        ``p_error_bound``, the ``pro_curve`` where it is defined (AUPRO and curve are those of
        `Predictions.region_map`), ``maps`` {map: all its pixel metrics} where there are several,
        ``per_defect`` {defect: S- and I-AUROC of its samples and views against all
        normal ones}, pixel counts in ``counts`` and ``reasons`` of all that is None.

    Raises:
        RunError: a score is not finite (the sample is named), no such category, or a damaged file.
        ValueError: an invalid limit or connectivity.
    """
    rows = np.arange(len(predictions)) if category is None else predictions.rows(category)
    if not rows.size:
        raise RunError(
            f"{predictions.path}: expected rows of category {category!r}; "
            f"the file holds {', '.join(dict.fromkeys(predictions.category)) or 'none'}"
        )
    _check_finite(predictions, rows)
    found = sample_metrics(
        predictions.view_scores[rows],
        predictions.sample_scores[rows],
        predictions.labels[rows],
        predictions.present[rows],
        predictions.view_numbers,
        predictions.sample_labels[rows] if sample_labels is None else sample_labels,
        scorable=predictions.scorable[rows],
        resamples=resamples,
    )
    reasons: dict[str, str] = found.pop("reasons")
    found["per_defect"], why = _per_defect(predictions, rows)
    reasons.update(why)
    counts: dict[str, int] = found.pop("counts")
    if pixels is None and not predictions.has_maps:
        names = ["p_auroc", "p_ap", "p_f1_max", *map(metric_name, fpr_limits)]
        found.update(dict.fromkeys([*names, "p_error_bound"]))
        why_not = "the predictions file holds no maps (--no-maps)"
        if predictions.protocol.get("draws_maps") is False:
            why_not = "the method scores whole samples and draws no maps"
        reasons.update(dict.fromkeys(names, why_not))
    else:
        if pixels is None:
            pixels = {
                name: pixel_metrics(predictions, rows, fpr_limits, connectivity, aupro_rule, name, advance)
                for name in (MAP, *predictions.other_maps)
            }
        values, why = _values_of_maps(pixels, predictions.region_map, [*map(metric_name, fpr_limits)])
        found.update(values)
        reasons.update(why)
        pixel = pixels[MAP]
        counts["normal_pixels"], counts["anomalous_pixels"] = pixel.normal_pixels, pixel.anomalous_pixels
        counts["regions"] = pixel.regions
    return {**found, "counts": counts, "reasons": reasons}


def _values_of_maps(
    pixels: Mapping[str, PixelMetrics], region_map: str, region_metrics: Sequence[str]
) -> tuple[dict[str, Any], dict[str, str]]:
    """Pixel metrics of the anomaly map, ``region_metrics`` of ``region_map``, and why any is None."""
    computed = {name: pixel.compute() for name, pixel in pixels.items()}
    bounds = [computed[name].pop("error_bound") for name in {MAP: None, region_map: None}]
    known = [bound for bound in bounds if bound is not None]
    of_regions, reasons = pixels[region_map], pixels[MAP].reasons
    values: dict[str, Any] = {"p_error_bound": max(known, default=None), **computed[MAP]}
    for name in region_metrics:
        values[name] = computed[region_map][name]
        reasons.pop(name, None)
        if name in of_regions.reasons:
            reasons[name] = of_regions.reasons[name]
    if "p_auroc" not in of_regions.reasons:
        values["pro_curve"] = of_regions.pro_curve(CURVE_POINTS)
    if len(computed) > 1:
        values["maps"] = computed
    return values, reasons


def pixel_metrics(
    predictions: Predictions,
    rows: IntArray,
    fpr_limits: Sequence[float] = (0.3,),
    connectivity: Connectivity = 8,
    aupro_rule: AuproRule = "interpolated",
    name: str = MAP,
    advance: Callable[[int], None] | None = None,
) -> PixelMetrics:
    """Pixel counts of the map ``name`` of the present views of the given rows, from a file with maps.

    Args:
        advance: called with the number of samples of each block.
    """
    pixel = PixelMetrics(fpr_limits, connectivity, aupro_rule=aupro_rule)
    for block, maps, masks in predictions.iter_maps(rows, _BLOCK, name):
        p = predictions
        try:
            update_pixels(pixel, maps, masks, p.present[block], p.labels[block], p.has_mask[block])
        except ValueError as error:
            sound = np.isfinite(maps).all(axis=(2, 3)) | ~p.present[block]
            bad = [p.sample_id[row] for row in block[~sound.all(axis=1)]]
            raise RunError(f"{p.path}: maps of sample {', '.join(bad)}: {error}") from error
        if advance is not None:
            advance(len(block))
    return pixel


def update_pixels(
    pixel: PixelMetrics,
    maps: ArrayLike,
    masks: BoolArray,
    present: BoolArray,
    labels: BoolArray,
    has_mask: BoolArray,
) -> None:
    """Count the present views of some samples, or declare the metrics undefined if a mask is missing.

    Args:
        pixel: the counts to update.
        maps: [B,V,H,W], on any device; float16 as in the predictions file, so that both give equal results.
        masks: bool [B,V,H,W].
        present: bool [B,V].
        labels: bool [B,V].
        has_mask: bool [B,V]: the data has a mask of the view.
    """
    if (present & labels & ~has_mask).any():
        pixel.declare_undefined("an anomalous view has no mask")
    if pixel.undefined is None:
        shown = torch.from_numpy(present).to(maps.device) if isinstance(maps, Tensor) else present
        pixel.update(maps[shown], masks[present])


def mean_metrics(categories: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """The mean over categories of every metric that is a number, skipping and counting nulls.

    Returns:
        Each metric's mean, None if it is None in every category; ``counts`` {"categories": number};
        ``nulls`` {metric: number of skipped categories}; ``reasons`` of the means that are None.
    """
    # The interval of a mean is not the mean of the intervals.
    names = dict.fromkeys(
        name
        for values in categories.values()
        for name in values
        if name not in ("s_auroc_ci", "decision")
        and all(isinstance(other.get(name), float | None) for other in categories.values())
    )
    mean: dict[str, Any] = {}
    nulls: dict[str, int] = {}
    reasons: dict[str, str] = {}
    for name in names:
        mean[name], undefined = mean_defined(values.get(name) for values in categories.values())
        if undefined:
            nulls[name] = undefined
        if mean[name] is None:
            # of a single category its own reason, which says more
            only = next(iter(categories.values())).get("reasons", {}) if len(categories) == 1 else {}
            reasons[name] = only.get(name, f"null in all {len(categories)} categories")
    maps = [values["maps"] for values in categories.values() if "maps" in values]
    if maps:
        mean["maps"] = {
            name: {key: mean_defined(of[name].get(key) for of in maps)[0] for key in values}
            for name, values in maps[0].items()
        }
    return {**mean, "counts": {"categories": len(categories)}, "nulls": nulls, "reasons": reasons}


def _check_finite(predictions: Predictions, rows: IntArray) -> None:
    p = predictions
    bad = (p.present[rows] & ~np.isfinite(p.view_scores[rows])).any(axis=1)
    bad |= p.scorable[rows] & ~np.isfinite(p.sample_scores[rows])
    if bad.any():
        row = rows[np.argmax(bad)]
        raise RunError(
            f"{p.path}: expected finite scores, found NaN or infinity in {int(bad.sum())} of {rows.size} "
            f"samples, the first {p.sample_id[row]}"
        )


def _per_defect(predictions: Predictions, rows: IntArray) -> tuple[dict[str, Any], dict[str, str]]:
    """Metrics per defect: its samples and views against all normal ones, and the reasons of None values."""
    p = predictions
    present, views, samples = p.present[rows], p.view_scores[rows], p.sample_scores[rows]
    anomalous = p.labels[rows] & present
    classes = np.array([p.anomaly_class[row] for row in rows], dtype=object)
    own = np.array([p.sample_class[row] for row in rows], dtype=object)
    normal_sample, normal_view = p.scorable[rows] & ~p.sample_labels[rows], present & ~anomalous
    found: dict[str, Any] = {}
    reasons: dict[str, str] = {}
    for defect in sorted({*classes[anomalous], *own} - {"", NORMAL_CLASS}):
        view = anomalous & (classes == defect)
        sample = view.any(axis=1) | (own == defect)
        pools = {"s_auroc": (samples, normal_sample, sample), "i_auroc": (views, normal_view, view)}
        found[defect] = {
            name: auroc(scores[normal | flagged], flagged[normal | flagged])
            for name, (scores, normal, flagged) in pools.items()
        }
        found[defect]["samples"], found[defect]["views"] = int(sample.sum()), int(view.sum())
        for (name, (_, normal, flagged)), items in zip(pools.items(), ("samples", "views"), strict=True):
            reason = one_class_reason(int(normal.sum()), int(flagged.sum()), items)
            if reason:
                reasons[f"per_defect.{defect}.{name}"] = reason
    return found, reasons
