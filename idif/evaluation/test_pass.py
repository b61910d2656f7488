"""The test pass of a run: predictions of all categories in one file, and the metrics computed from it."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import chain
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from idif.config.sections import Config, EvalConfig
from idif.data.batch import Batch
from idif.data.features import FeatureSource
from idif.data.index import Sample, Split
from idif.errors import CannotFinish
from idif.evaluation.brightness import Brightness, brightness_metrics
from idif.evaluation.calibration import final_scores
from idif.evaluation.category_metrics import category_metrics, mean_metrics, update_pixels
from idif.evaluation.class_scores import class_scores
from idif.evaluation.decision import VALIDATION_TEXTS, decisions_of
from idif.evaluation.normal_scores import NormalScores
from idif.evaluation.predictions import Predictions
from idif.evaluation.predictions_writer import PredictionsWriter
from idif.evaluation.scoring import Scorer
from idif.evaluation.thresholds import sample_labels_of, thresholds_of
from idif.files import require_space
from idif.methods.maps import MAP
from idif.metrics import PixelMetrics, auroc
from idif.metrics.score_counts import BoolArray, IntArray
from idif.progress import Progress, Tally, silent

PixelCounts = dict[str, PixelMetrics]
"""{map: counts of its pixels}."""


BEST_EPOCH = "best on the split val"
"""``epoch`` of the protocol of weights that `train.patience` chose."""


@dataclass(frozen=True)
class CategoryTask:
    """One category to evaluate."""

    category: str
    scorer: Scorer
    source: FeatureSource
    false_positive: dict[str, Any] | None = None
    """Result of `idif.evaluation.thresholds.normal_thresholds`, if the config requires it."""
    validated: dict[str, Any] | None = None
    """Result of `idif.evaluation.thresholds.validation_thresholds`, if the config requires it."""
    normals: NormalScores | None = None
    """Scores of training normals, if the config requires them."""
    brightness: Brightness | None = None
    """Brightness of training images; None if there are none."""


def scoring_protocol(config: Config, described: Mapping[str, str], region_map: str = MAP) -> dict[str, Any]:
    """The settings behind the scores, as recorded in the predictions file, metrics.json and reports.

    Texts are for display; ``rules`` is machine-readable.

    Args:
        described: result of `idif.methods.protocol.Method.describe`.
        region_map: the map that AUPRO is computed from.
    """
    ema = config.train.ema
    mean = f"exponential mean over steps, decay min({ema}, (1 + n) / (10 + n)) after n steps"
    fitted = config.method.fitted
    learned = "fitted in one pass" if fitted else mean if ema else "the last step's"
    regions = "" if region_map == MAP else f"; AUPRO from the map {region_map}, the rest from map"
    return {
        **described,
        "weights": learned,
        **score_texts(config.eval),
        **{key: text for key, text in described.items() if key == "sample_score"},
        "calibrate": config.eval.calibrate,
        **({"calibrate_prior": config.eval.calibrate_prior} if config.eval.calibrate_prior else {}),
        **({} if fitted else {"epoch": BEST_EPOCH if config.train.patience else "last"}),
        "pixels": "present views, maps stored as float16, masks resized by nearest neighbor" + regions,
        "rules": {
            **score_rules(config.eval),
            **({} if region_map == MAP else {"region_map": region_map}),
        },
    }


def score_texts(settings: EvalConfig) -> dict[str, str]:
    """The rules of `score_rules` for display."""
    view = {
        "topk": f"mean of the top {settings.top_k} pixels",
        "topshare": f"mean of the top {100 * settings.top_share:g} % of the pixels",
        "max": "max over pixels",
        "method": "the method's own rule",
    }[settings.score]
    return {"view_score": view, "sample_score": f"{settings.sample_score} over the views present"}


def score_rules(settings: EvalConfig) -> dict[str, Any]:
    """The rules that reduce maps to view scores and these to sample scores, machine-readable."""
    rules = {
        "view_score": settings.score,
        "top_k": settings.top_k if settings.score == "topk" else None,
        "sample_score": settings.sample_score,
    }
    # recorded only where it applies: results of versions without it stay comparable
    return rules | ({"top_share": settings.top_share} if settings.score == "topshare" else {})


def metric_protocol(settings: EvalConfig) -> dict[str, Any]:
    """The settings of computing metrics from scores, applied again at every ``--from-predictions``."""
    area = {
        "interpolated": "interpolated at the limit",
        "rescaled": "200 thresholds, points at or above the limit dropped, the rest rescaled",
    }[settings.aupro]
    labels = {"views": "any present view is", "folder": "its images lie in NG"}[settings.sample_label]
    threshold = {
        "f1-max": "greatest F1 on the evaluated split (an oracle)",
        **VALIDATION_TEXTS,
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
    tasks: Iterable[CategoryTask],
    path: Path,
    *,
    split: Split = "test",
    maps: bool = True,
    derived: Sequence[Path] = (),
    provenance: Mapping[str, Any] = MappingProxyType({}),
    progress: Progress = silent,
) -> dict[str, PixelCounts]:
    """Score every category and write the predictions file ``path`` (`idif.evaluation.predictions`).

    Args:
        tasks: at least one; all have the same cameras and image size.
        split: split of the samples, for the protocol.
        maps: whether the file contains anomaly maps and masks, for methods with maps.
        derived: files to remove when the new file replaces an old one.
        provenance: further entries of the protocol, e.g. the digests of the weights.

    Returns:
        The streaming pixel counts of each category, equal to those of the file's maps; empty if the file has
        maps or the method has none.
    """
    pixels: dict[str, PixelCounts] = {}
    calibrations: dict[str, Any] = {}
    false_positive: dict[str, Any] = {}
    validated: dict[str, Any] = {}
    normals: dict[str, Any] = {}
    learned = {"calibrations": calibrations, "false_positive": false_positive, "normals": normals}
    if config.eval.chooses_on_val:
        learned["validated"] = validated
    remaining = iter(tasks)
    first = next(remaining)
    method = first.scorer.method
    stated = scoring_protocol(config, method.describe(), method.region_map)
    stated = {**stated, "split": split, **provenance, **learned}
    index, size = first.source.index, first.source.spec.image_size
    classes = any(sample.sample_class is not None for sample in index.samples)
    views = [view for sample in index.samples for view in sample.views if view is not None]
    origins = sorted({sample.origin for sample in index.samples if sample.origin is not None})
    if origins:
        stated["imported_from"] = origins
    if cameras := index.camera_names:
        stated["cameras"] = cameras
    drawn = maps and method.draws_maps
    if not method.draws_maps:
        stated["draws_maps"] = False
    writer = PredictionsWriter(
        path,
        index.view_numbers,
        size,
        drawn,
        stated,
        derived,
        classes,
        method.other_maps,
        first.brightness is not None,
        any(view.source is not None for view in views),
    )
    with writer:
        for task in chain([first], remaining):
            if task.scorer.calibration is not None:
                calibrations[task.category] = asdict(task.scorer.calibration)
            if task.false_positive is not None:
                false_positive[task.category] = task.false_positive
            if task.validated is not None:
                validated[task.category] = task.validated
            if task.normals is not None:
                normals[task.category] = asdict(task.normals)
            if drawn:
                _require_space(path, task)
            counted = _predict(task, writer, count=not maps, progress=progress)
            if counted:
                pixels[task.category] = counted
    return pixels


def _require_space(path: Path, task: CategoryTask) -> None:
    """Refuse a category whose maps do not fit on the disk, before it is scored; raises `CannotFinish`."""
    index, size = task.source.index, task.source.spec.image_size or 0
    maps = 1 + len(task.scorer.method.other_maps)
    values = size**2 * maps * sum(sum(sample.present) for sample in index.samples)
    # two bytes each, which compression seldom halves
    require_space(path.parent, values, f"the file of the anomaly maps of {task.category}")


def _predict(
    task: CategoryTask, writer: PredictionsWriter, *, count: bool, progress: Progress
) -> PixelCounts:
    """Score a category into the file; counts its pixels if ``count`` is true and there are maps."""
    config = task.scorer.config
    pixels: PixelCounts = {}
    source, samples = task.source, task.source.index.samples
    title = f"evaluating {task.category}"
    for scored in task.scorer.batches(source, range(len(samples)), progress=progress, title=title):
        batch = scored.batch.to(torch.device("cpu"))
        chosen = [samples[row] for row in batch.rows.tolist()]
        views, reduced = task.scorer.final(scored.without_maps())
        dark = None if task.brightness is None else task.brightness.scores(batch)
        masks = batch.arrays.get("masks")
        writer.append(
            chosen, views, reduced, scored.maps, masks, other_maps=scored.other_maps, brightness=dark
        )
        if count and scored.maps is not None:
            for name, maps in {MAP: scored.maps, **scored.other_maps}.items():
                pixel = pixels.setdefault(name, PixelMetrics(config.fpr_limits, aupro_rule=config.aupro))
                _count_pixels(pixel, maps, batch, chosen)
    return pixels


def _count_pixels(pixels: PixelMetrics, maps: Tensor, batch: Batch, samples: Sequence[Sample]) -> None:
    """Count the pixels of a batch with the precision of the file.

    Raises:
        CannotFinish: a map is not finite in float16; its samples are named.
    """
    has_mask = np.array([sample.has_mask for sample in samples], dtype=np.bool_)
    present = batch.view_mask.numpy()
    half = maps.half()  # still on the maps' device
    try:
        update_pixels(pixels, half, batch.masks.numpy(), present, batch.labels.numpy(), has_mask)
    except ValueError as error:
        sound = torch.isfinite(half).all(dim=(2, 3)).cpu().numpy() | ~present
        bad = [s.sample_id for s, fine in zip(samples, sound.all(axis=1), strict=True) if not fine]
        raise CannotFinish(f"{', '.join(bad)}: anomaly map in float16: {error}") from error


def metrics_of(
    predictions: Predictions,
    settings: EvalConfig,
    pixels: dict[str, PixelCounts] | None = None,
    *,
    progress: Progress = silent,
) -> dict[str, Any]:
    """Content of ``metrics.json``: metrics of every category, their mean, and the protocol.

    Args:
        predictions: the file of a test pass.
        settings: limits and rule of AUPRO, labels, thresholds, pooling.
        pixels: streaming pixel counts of each category, for a file without maps.
        progress: called with the number of samples whose maps were read.

    Raises:
        RunError: the file lacks data that a setting requires, or contains a score that is not finite.
    """
    counted = pixels if pixels is not None and not predictions.has_maps else {}
    labels = sample_labels_of(predictions, np.arange(len(predictions)), settings)
    passes = (1 + len(predictions.other_maps)) * (2 if settings.pool_categories else 1)
    read = Tally(progress, len(predictions) * passes)

    def measured(category: str | None, of_maps: PixelCounts | None) -> dict[str, Any]:
        rows = slice(None) if category is None else predictions.rows(category)
        return category_metrics(
            predictions,
            category,
            pixels=of_maps,
            sample_labels=labels[rows],
            fpr_limits=settings.fpr_limits,
            aupro_rule=settings.aupro,
            advance=lambda samples: read.add(samples, f"measuring {category or 'all categories'}"),
        )

    categories: dict[str, dict[str, Any]] = {}
    for name in dict.fromkeys(predictions.category):
        found = categories[name] = measured(name, counted.get(name))
        rows = predictions.rows(name)
        found["thresholds"], why = thresholds_of(predictions, name, labels[rows], settings)
        found["reasons"].update(why)
        rate = predictions.protocol.get("false_positive", {}).get(name, {}).get("target_fpr")
        decided = decisions_of(predictions, rows, labels[rows], found["thresholds"]["sample"], rate)
        found["decision"] = None if decided is None else decided.to_json()
        found["class_scores"] = class_scores(predictions, rows)
        if predictions.brightness is not None:
            found["brightness"] = brightness_metrics(predictions.brightness[rows], labels[rows])
        calibration = predictions.protocol.get("calibrations", {}).get(name)
        if calibration is not None:
            found["s_auroc_raw"] = _uncalibrated(predictions, rows, labels[rows], calibration)
    whole: dict[str, Any] = {"mean": mean_metrics(categories), "categories": categories}
    if settings.pool_categories:
        whole["pooled"] = measured(None, _pool(list(counted.values()), settings))
    return whole | {"protocol": predictions.protocol | metric_protocol(settings)}


def _pool(pixels: list[PixelCounts], settings: EvalConfig) -> PixelCounts | None:
    """Pooled pixel counts of all categories; None if there are none."""
    if not pixels:
        return None
    pooled: PixelCounts = {}
    for of_maps in pixels:
        for name, pixel in of_maps.items():
            kept = pooled.setdefault(name, PixelMetrics(settings.fpr_limits, aupro_rule=settings.aupro))
            kept.merge(pixel)
    return pooled


def _uncalibrated(
    predictions: Predictions, rows: IntArray, labels: BoolArray, fitted: dict[str, Any]
) -> float | None:
    """S-AUROC without calibration, from the file's view scores with the calibration inverted."""
    present = predictions.present[rows]
    raw = predictions.view_scores[rows] * np.asarray(fitted["spread"]) + np.asarray(fitted["mean"])
    rule = EvalConfig(sample_score=predictions.protocol["rules"]["sample_score"])
    _, samples = final_scores(rule, raw.astype(np.float32), present, None)
    seen = np.any(present, axis=1)
    return auroc(samples[seen], labels[seen])
