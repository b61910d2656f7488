"""The test pass of a run: every category's predictions into one file, and the metrics computed from it."""

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from idif.config import Config, EvalConfig
from idif.datasets.index import Split
from idif.features import FeatureSource
from idif.methods import Method
from idif.metrics import PixelMetrics
from idif.metrics.category import category_metrics, mean_metrics, update_pixels
from idif.metrics.sample import ranking_metrics
from idif.predictions import Predictions, PredictionsWriter, half_maps
from idif.progress import Progress, silent
from idif.score import Calibration, final_scores, score_batches


@dataclass(frozen=True)
class Subject:
    """One category to evaluate."""

    category: str
    method: Method
    source: FeatureSource
    calibration: Calibration | None


def protocol(config: Config) -> dict[str, Any]:
    """The choices behind the numbers, as metrics.json and reports state them."""
    evaluation = config.eval
    top = f"mean of the top {evaluation.top_k} pixels" if evaluation.score == "topk" else "max over pixels"
    return {
        "head": config.method.head,
        "map": f"cosine distance per scale, upsampled bilinearly, {config.method.combine} of scales",
        "view_score": top,
        "sample_score": f"{evaluation.sample_score} over the views present",
        "sample_label": "anomalous when any present view is",
        "calibrate": evaluation.calibrate,
        "epoch": "last",
        "pixels": "present views, maps stored as float16, masks resized by nearest neighbour",
        "aupro": "8-connected regions, normal pixels pooled, interpolated at the limit",
        "fpr_limits": list(evaluation.fpr_limits),
    }


def write_predictions(
    config: Config,
    subjects: Iterable[Subject],
    path: Path,
    view_numbers: tuple[int, ...],
    image_size: int,
    device: torch.device,
    *,
    split: Split = "test",
    maps: bool = True,
    progress: Progress = silent,
) -> dict[str, PixelMetrics]:
    """One pass over every category into ``path`` (`idif.predictions`).

    Args:
        split: where the samples are from, for the protocol.
        maps: whether anomaly maps and masks are kept in the file.

    Returns:
        The streaming pixel count of each category, equal to what the file's maps would give.
    """
    pixels: dict[str, PixelMetrics] = {}
    calibrations: dict[str, Any] = {}
    stated = protocol(config) | {"split": split, "calibrations": calibrations}
    with PredictionsWriter(path, view_numbers, image_size, maps, stated) as writer:
        for subject in subjects:
            if subject.calibration is not None:
                calibrations[subject.category] = asdict(subject.calibration)
            pixels[subject.category] = _predict(
                config.eval, subject, writer, device, count=not maps, progress=progress
            )
    return pixels


def _predict(
    config: EvalConfig,
    subject: Subject,
    writer: PredictionsWriter,
    device: torch.device,
    *,
    count: bool,
    progress: Progress,
) -> PixelMetrics:
    pixels = PixelMetrics(fpr_limits=config.fpr_limits)
    source, samples = subject.source, subject.source.index.samples
    rows = range(len(samples))
    what = f"evaluating {subject.category}"
    for scored in score_batches(config, subject.method, source, rows, device, progress=progress, what=what):
        batch = scored.batch.to(torch.device("cpu"))
        chosen = [samples[row] for row in batch.rows.tolist()]
        present = batch.view_mask.numpy()
        views, whole = final_scores(config, scored.scores.numpy(), present, subject.calibration)
        writer.append(chosen, views, whole, scored.maps, batch.masks)
        if count:
            has_mask = np.array([s.has_mask for s in chosen], dtype=np.bool_)
            half, masks = half_maps(scored.maps), batch.masks.numpy()
            update_pixels(pixels, half, masks, present, batch.labels.numpy(), has_mask)
    return pixels


def metrics_of(
    predictions: Predictions, fpr_limits: tuple[float, ...], pixels: dict[str, PixelMetrics] | None = None
) -> dict[str, Any]:
    """``metrics.json``: every category's metrics, their mean, and the protocol they were computed by.

    Args:
        predictions: the file of a test pass.
        fpr_limits: limits of AUPRO.
        pixels: each category's streaming count, for a file without maps.
    """
    categories: dict[str, dict[str, Any]] = {}
    for name in dict.fromkeys(predictions.category):
        counted = None if pixels is None or predictions.has_maps else pixels.get(name)
        categories[name] = category_metrics(predictions, name, pixel=counted, fpr_limits=fpr_limits)
        calibration = predictions.protocol.get("calibrations", {}).get(name)
        if calibration is not None:
            categories[name]["s_auroc_raw"] = _uncalibrated(predictions, name, calibration)
    return {"mean": mean_metrics(categories), "categories": categories, "protocol": predictions.protocol}


def _uncalibrated(predictions: Predictions, category: str, fitted: dict[str, Any]) -> float | None:
    """S-AUROC as it would be without calibration: the file's view scores, taken back to the maps' scale."""
    rows = predictions.rows(category)
    present, labels = predictions.present[rows], predictions.labels[rows]
    raw = predictions.view_scores[rows] * np.asarray(fitted["spread"]) + np.asarray(fitted["mean"])
    rule = EvalConfig(sample_score=predictions.protocol["sample_score"].split()[0])
    _, samples = final_scores(rule, raw.astype(np.float32), present, None)
    seen = np.any(present, axis=1)
    values, _ = ranking_metrics("s", samples[seen], np.any(labels, axis=1)[seen], "samples")
    return values["s_auroc"]
