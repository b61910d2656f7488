"""The test pass of a run: every category's predictions into one file, and the metrics computed from it."""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from idif.config.sections import Config, EvalConfig
from idif.data.features import FeatureSource
from idif.data.index import Split
from idif.errors import CannotFinish
from idif.evaluation.calibration import Calibration, final_scores
from idif.evaluation.category_metrics import category_metrics, mean_metrics, update_pixels
from idif.evaluation.normal_scores import NormalScores
from idif.evaluation.predictions import Predictions
from idif.evaluation.predictions_writer import PredictionsWriter
from idif.evaluation.scoring import score_batches
from idif.evaluation.thresholds import sample_labels_of, thresholds_of
from idif.methods.protocol import Method
from idif.metrics import PixelMetrics, auroc
from idif.metrics.score_counts import BoolArray, IntArray
from idif.progress import Progress, silent


@dataclass(frozen=True)
class CategoryTask:
    """One category to evaluate."""

    category: str
    method: Method
    source: FeatureSource
    calibration: Calibration | None
    false_positive: dict[str, Any] | None = None
    """`idif.evaluation.thresholds.normal_thresholds`, where the config asks for them."""
    normals: NormalScores | None = None
    """Scores of training normals, where the config asks for them."""


def scoring_protocol(config: Config) -> dict[str, Any]:
    """The choices behind the scores, as the predictions file, metrics.json and reports state them.

    What people read is prose; ``rules`` holds what programs read.
    """
    evaluation = config.eval
    top = f"mean of the top {evaluation.top_k} pixels" if evaluation.score == "topk" else "max over pixels"
    maps = {
        "cosine": f"cosine distance per scale, upsampled bilinearly, {config.method.combine} of scales",
        "segmentation": "probability of a defect from the segmentation head, upsampled bilinearly",
    }[config.method.head]
    ema = config.train.ema
    mean = f"exponential mean over steps, decay min({ema}, (1 + n) / (10 + n)) after n steps"
    return {
        "head": config.method.head,
        "map": maps,
        "weights": mean if ema else "the last step's",
        "view_score": top,
        "sample_score": f"{evaluation.sample_score} over the views present",
        "calibrate": evaluation.calibrate,
        "epoch": "last",
        "pixels": "present views, maps stored as float16, masks resized by nearest neighbour",
        "rules": {
            "view_score": evaluation.score,
            "top_k": evaluation.top_k if evaluation.score == "topk" else None,
            "sample_score": evaluation.sample_score,
        },
    }


def metric_protocol(settings: EvalConfig) -> dict[str, Any]:
    """The choices made when metrics are computed from scores, anew at every ``--from-predictions``."""
    area = {
        "interpolated": "interpolated at the limit",
        "rescaled": "200 thresholds, points at or above the limit dropped, the rest rescaled",
    }[settings.aupro]
    labels = {"views": "any present view is", "folder": "its images lie in NG"}[settings.sample_label]
    threshold = {
        "f1-max": "greatest F1 on the evaluated split (an oracle)",
        "false-positive-rate": f"{settings.target_fpr} of held-out training normals score as high",
    }.get(str(settings.threshold), "fixed")
    return {
        "sample_label": f"anomalous when {labels}",
        "aupro": f"8-connected regions, normal pixels pooled, {area}",
        "fpr_limits": list(settings.fpr_limits),
        "threshold": threshold,
    }


def write_predictions(
    config: Config,
    subjects: Iterable[CategoryTask],
    path: Path,
    view_numbers: tuple[int, ...],
    image_size: int,
    device: torch.device,
    *,
    split: Split = "test",
    maps: bool = True,
    derived: Sequence[Path] = (),
    progress: Progress = silent,
) -> dict[str, PixelMetrics]:
    """One pass over every category into ``path`` (`idif.evaluation.predictions`).

    Args:
        split: where the samples are from, for the protocol.
        maps: whether anomaly maps and masks are kept in the file.
        derived: files to remove when the new file replaces an old one.

    Returns:
        The streaming pixel count of each category, equal to what the file's maps would give.
    """
    pixels: dict[str, PixelMetrics] = {}
    calibrations: dict[str, Any] = {}
    false_positive: dict[str, Any] = {}
    normals: dict[str, Any] = {}
    learned = {"calibrations": calibrations, "false_positive": false_positive, "normals": normals}
    stated = scoring_protocol(config) | {"split": split} | learned
    with PredictionsWriter(path, view_numbers, image_size, maps, stated, derived) as writer:
        for subject in subjects:
            if subject.calibration is not None:
                calibrations[subject.category] = asdict(subject.calibration)
            if subject.false_positive is not None:
                false_positive[subject.category] = subject.false_positive
            if subject.normals is not None:
                normals[subject.category] = asdict(subject.normals)
            pixels[subject.category] = _predict(
                config.eval, subject, writer, device, count=not maps, progress=progress
            )
    return pixels


def _predict(
    config: EvalConfig,
    subject: CategoryTask,
    writer: PredictionsWriter,
    device: torch.device,
    *,
    count: bool,
    progress: Progress,
) -> PixelMetrics:
    pixels = PixelMetrics(config.fpr_limits, aupro_rule=config.aupro)
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
            # halved where they are, as the file would keep them
            half, masks = scored.maps.half(), batch.masks.numpy()
            try:
                update_pixels(pixels, half, masks, present, batch.labels.numpy(), has_mask)
            except ValueError as error:
                sound = torch.isfinite(half).all(dim=(2, 3)).cpu().numpy() | ~present
                bad = [s.sample_id for s, fine in zip(chosen, sound.all(axis=1), strict=True) if not fine]
                raise CannotFinish(f"{', '.join(bad)}: anomaly map in float16: {error}") from error
    return pixels


def metrics_of(
    predictions: Predictions, settings: EvalConfig, pixels: dict[str, PixelMetrics] | None = None
) -> dict[str, Any]:
    """``metrics.json``: every category's metrics, their mean, and the protocol they were computed by.

    Args:
        predictions: the file of a test pass.
        settings: how to measure: limits and rule of AUPRO, labels, thresholds, pooling.
        pixels: each category's streaming count, for a file without maps.

    Raises:
        RunError: the file lacks what a setting asks for, or holds a score that is not finite.
    """
    counted = pixels if pixels is not None and not predictions.has_maps else {}
    labels = sample_labels_of(predictions, np.arange(len(predictions)), settings)

    def measured(category: str | None, pixel: PixelMetrics | None) -> dict[str, Any]:
        rows = slice(None) if category is None else predictions.rows(category)
        return category_metrics(
            predictions,
            category,
            pixel=pixel,
            sample_labels=labels[rows],
            fpr_limits=settings.fpr_limits,
            aupro_rule=settings.aupro,
        )

    categories: dict[str, dict[str, Any]] = {}
    for name in dict.fromkeys(predictions.category):
        found = categories[name] = measured(name, counted.get(name))
        rows = predictions.rows(name)
        found["thresholds"], why = thresholds_of(predictions, name, labels[rows], settings)
        found["reasons"].update(why)
        calibration = predictions.protocol.get("calibrations", {}).get(name)
        if calibration is not None:
            found["s_auroc_raw"] = _uncalibrated(predictions, rows, labels[rows], calibration)
    whole: dict[str, Any] = {"mean": mean_metrics(categories), "categories": categories}
    if settings.pooled:
        whole["pooled"] = measured(None, _pool(list(counted.values()), settings))
    return whole | {"protocol": predictions.protocol | metric_protocol(settings)}


def _pool(pixels: list[PixelMetrics], settings: EvalConfig) -> PixelMetrics | None:
    """One count of all categories' pixels; None where there are none."""
    if not pixels:
        return None
    pooled = PixelMetrics(settings.fpr_limits, aupro_rule=settings.aupro)
    for pixel in pixels:
        pooled.merge(pixel)
    return pooled


def _uncalibrated(
    predictions: Predictions, rows: IntArray, labels: BoolArray, fitted: dict[str, Any]
) -> float | None:
    """S-AUROC as it would be without calibration: the file's view scores, taken back to the maps' scale."""
    present = predictions.present[rows]
    raw = predictions.view_scores[rows] * np.asarray(fitted["spread"]) + np.asarray(fitted["mean"])
    rule = EvalConfig(sample_score=predictions.protocol["rules"]["sample_score"])
    _, samples = final_scores(rule, raw.astype(np.float32), present, None)
    seen = np.any(present, axis=1)
    return auroc(samples[seen], labels[seen])
