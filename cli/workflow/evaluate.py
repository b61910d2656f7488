"""Evaluation of a run: thresholds, calibration, predictions and metrics."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from cli.terminal.console import note, progress_bar
from cli.workflow.device import evaluation_device
from cli.workflow.sources import Sources
from idif.config.sections import EvalConfig
from idif.data.index import Split
from idif.datasets.contamination import contamination
from idif.evaluation.calibration import Calibration, fit_calibration
from idif.evaluation.normal_scores import NormalScores, normal_scores
from idif.evaluation.predictions import Predictions
from idif.evaluation.test_pass import CategoryTask, metrics_of, write_predictions
from idif.evaluation.thresholds import normal_thresholds
from idif.files import write_json
from idif.methods.protocol import Method
from idif.metrics.pixel import PixelMetrics
from idif.progress import Progress
from idif.runs.run import Run, load_method
from idif.training.sampling import training_rows


def evaluate_run(run: Run, *, split: Split = "test", maps: bool = True) -> dict[str, Any]:
    """Write ``predictions.h5``, then as `measure`."""
    device = evaluation_device()
    sources = Sources(run.config, device)
    first = sources.unplaced([run.models(sources.categories())[0][0]], split)
    with progress_bar("evaluating", "samples") as listen:
        pixels = write_predictions(
            run.config,
            _subjects(run, sources, split, device, listen),
            run.results / "predictions.h5",
            first.index.view_numbers,
            first.spec.image_size,
            device,
            split=split,
            maps=maps,
            derived=[run.results / "metrics.json"],
            progress=listen,
        )
    return measure(run.results, run.config.eval, pixels)


def measure(
    results: Path, settings: EvalConfig, pixels: dict[str, PixelMetrics] | None = None
) -> dict[str, Any]:
    """Compute the metrics of ``predictions.h5`` in ``results`` and write ``metrics.json`` beside it."""
    metrics = metrics_of(Predictions.open(results / "predictions.h5"), settings, pixels)
    write_json(results / "metrics.json", metrics)
    _say_what_is_missing(metrics)
    return metrics


def _say_what_is_missing(metrics: dict[str, Any]) -> None:
    """One line where samples lack views: they are scored by fewer cameras, or not at all."""
    counts = [values["counts"] for values in metrics["categories"].values()]
    lacking, unseen = (sum(c[key] for c in counts) for key in ("incomplete_samples", "unscorable"))
    if lacking:
        of = sum(c["samples"] for c in counts)
        note(f"note: {lacking:,} of {of:,} samples lack views and are scored by those they have")
    if unseen:
        note(f"note: {unseen:,} samples have no view at all and are left out")


def _subjects(
    run: Run, sources: Sources, split: Split, device: torch.device, listen: Progress
) -> Iterator[CategoryTask]:
    for category, name in run.models(sources.categories()):
        source = sources.placed([category], split)
        method = load_method(run, name, source.spec, source.index.view_numbers).to(device)
        _warn_contaminated_normals(run, sources, category)
        fitted = calibration(run, sources, category, method, device)
        chosen, normals = _training_normals(run, sources, category, method, device, fitted, listen)
        yield CategoryTask(category, method, source, fitted, chosen, normals)


def _warn_contaminated_normals(run: Run, sources: Sources, category: str) -> None:
    """One line where training samples that are taken for normal are not."""
    settings = run.config.eval
    if settings.calibrate == "none" and settings.threshold != "false-positive-rate" and not settings.normals:
        return
    index = sources.unplaced([category], "train").index
    kept, held = training_rows(run.config, index)
    dirty = contamination(index.samples[row] for row in held or kept)
    if dirty is not None:
        note(f"note: {category}: of the samples behind calibration, thresholds and scale, {dirty}")


def calibration(
    run: Run, sources: Sources, category: str, method: Method, device: torch.device
) -> Calibration | None:
    """The category's calibration on training normals held out of training; None where not asked for."""
    if run.config.eval.calibrate == "none":
        return None
    source = sources.unplaced([category], "train")  # each row is read once, so there is nothing to keep
    _, held = training_rows(run.config, source.index)
    return fit_calibration(run.config.eval, method, source, held, device)


def _training_normals(
    run: Run,
    sources: Sources,
    category: str,
    method: Method,
    device: torch.device,
    fitted: Calibration | None,
    listen: Progress,
) -> tuple[dict[str, Any] | None, NormalScores | None]:
    """What training normals say of a category: thresholds on those held out, and how they score.

    Each is None where not asked for. Scores are those of held-out ones where there are any, else of all.
    """
    settings, chosen, scores = run.config.eval, None, None
    thresholds = settings.threshold == "false-positive-rate"
    if thresholds or settings.normals:
        source = sources.unplaced([category], "train")
        kept, held = training_rows(run.config, source.index)
        if thresholds:
            chosen = normal_thresholds(settings, method, source, held, device, fitted)
        if settings.normals:
            scores = normal_scores(
                settings,
                method,
                source,
                held or kept,
                device,
                fitted,
                held_out=bool(held),
                progress=listen,
            )
    return chosen, scores
