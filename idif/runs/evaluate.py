"""Evaluation of a run: thresholds, calibration, predictions and metrics."""

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from idif.config.sections import EvalConfig
from idif.data.features import FeatureSource
from idif.data.index import Split, concatenate
from idif.datasets.contamination import contamination
from idif.errors import ConfigError, DatasetError, StoreDamaged, StoreError
from idif.evaluation.brightness import Brightness, brightness_warning
from idif.evaluation.calibration import Calibration, fit_calibration
from idif.evaluation.normal_scores import normal_scores
from idif.evaluation.predictions import Predictions
from idif.evaluation.rescoring import rescore
from idif.evaluation.scoring import Scorer
from idif.evaluation.test_pass import CategoryTask, PixelCounts, metrics_of, write_predictions
from idif.evaluation.thresholds import normal_thresholds, validation_thresholds
from idif.progress import Notify, Progress, silent, unheard
from idif.runs.files import CONFIG_FILE, METRICS_FILE, PREDICTIONS_FILE, read_config, read_facts
from idif.runs.outdated import MODELS, check_results, model_digests
from idif.runs.run import Run, run_home
from idif.sealed_json import write_sealed
from idif.training.feature_mean import FEATURE_DISTANCE, distances_of, untrained_warning
from idif.training.held_out import held_out_notes, uses_normals
from idif.training.labels import LEARNED_FROM, labels_note
from idif.training.sampling import training_normals

OpenSource = Callable[[str, Split], FeatureSource]
"""(category, split) -> source of its samples."""


@dataclass(frozen=True)
class Evaluation:
    """A run with the sources it is evaluated on."""

    run: Run
    categories: Sequence[str]
    """All categories of the data."""
    open_source: OpenSource
    device: torch.device
    progress: Progress = silent
    notify: Notify = unheard

    def scorer(self, category: str, source: FeatureSource) -> Scorer:
        """The category's trained method on the device, calibrated if the config requires it."""
        scorer = self.run.scorer(category, source, self.device)
        return scorer.calibrated(self._calibration(scorer, category))

    def scorers(self, split: Split = "test") -> Iterator[tuple[str, FeatureSource, Scorer]]:
        """Yield (category, its samples of the split, its scorer) for every category to evaluate.

        Raises:
            RunError: a category has no model yet.
            ConfigError: a category has too few held-out training normals for what is fitted on them.
        """
        models = self.run.models(self.categories)
        self._check_normals([category for category, _ in models])
        for category, _ in models:
            source = self.open_source(category, split)
            yield category, source, self.scorer(category, source)

    def tasks(self, split: Split) -> Iterator[CategoryTask]:
        """The category tasks, with thresholds and score statistics from training normals if required."""
        settings = self.run.config.eval
        for category, source, scorer in self.scorers(split):
            self._warn_contaminated_normals(category)
            thresholds = normals = None
            if settings.threshold == "false-positive-rate" or settings.record_normal_scores:
                training = self.open_source(category, "train")
                kept, held = training_normals(self.run.config, training.index)
                if settings.threshold == "false-positive-rate":
                    thresholds = normal_thresholds(scorer, training, held)
                if settings.record_normal_scores:
                    # held-out normals if there are any: a model scores the ones it was trained on lower
                    rows, apart = held or kept, bool(held)
                    normals = normal_scores(scorer, training, rows, held_out=apart, progress=self.progress)
            validated = None
            if settings.chooses_on_val:
                validated = validation_thresholds(scorer, self._validation(category))
            dark = self._brightness(category)
            yield CategoryTask(
                category,
                scorer,
                source,
                thresholds,
                validated=validated,
                normals=normals,
                brightness=dark,
            )

    def _validation(self, category: str) -> FeatureSource:
        """The category's samples of the split ``val``.

        Raises:
            ConfigError: there are none. StoreDamaged: the store is damaged.
        """
        needed = (
            f"eval.threshold: {self.run.config.eval.threshold} needs samples of {category} in the split val"
        )
        try:
            source = self.open_source(category, "val")
        except StoreDamaged:
            raise
        except (StoreError, DatasetError) as error:
            raise ConfigError(f"{needed} ({error})") from error
        if not len(source.index):
            raise ConfigError(f"{needed}, found none")
        return source

    def _check_normals(self, categories: Sequence[str]) -> None:
        """Check the held-out training normals of all categories before the first is scored."""
        if not uses_normals(self.run.config.eval):
            return
        indexes = [self.open_source(category, "train").index for category in categories]
        for line in held_out_notes(self.run.config, concatenate(indexes), categories):
            self.notify(f"note: {line}")

    def _brightness(self, category: str) -> Brightness | None:
        """The brightness of the category's training images; None if there are none at hand."""
        try:
            return Brightness.of(self.open_source(category, "train"))
        except (ConfigError, StoreError, DatasetError):
            return None

    def _calibration(self, scorer: Scorer, category: str) -> Calibration | None:
        """The category's calibration on held-out training normals; None if the config does not require it."""
        if self.run.config.eval.calibrate == "none":
            return None
        training = self.open_source(category, "train")
        _, held = training_normals(self.run.config, training.index)
        scores = scorer.collect(training, held, title="calibrating")
        prior = self.run.config.eval.calibrate_prior
        return fit_calibration(scores.views, scores.present, training.index.view_numbers, prior)

    def _warn_contaminated_normals(self, category: str) -> None:
        """Notify the user if training samples used as normals are labeled anomalous."""
        if not uses_normals(self.run.config.eval):
            return
        index = self.open_source(category, "train").index
        kept, held = training_normals(self.run.config, index)
        dirty = contamination(index.samples[row] for row in held or kept)
        if dirty is not None:
            self.notify(f"note: {category}: of the samples behind calibration, thresholds and scale, {dirty}")


def evaluate(evaluation: Evaluation, *, split: Split = "test", maps: bool = True) -> dict[str, Any]:
    """Write ``predictions.h5`` into the run's results, then `measure`.

    Args:
        maps: whether the file contains anomaly maps and masks.

    Raises:
        RunError: a category is not trained yet, or a checkpoint is damaged.
        CannotFinish: a score is not finite, or the disk is full.
    """
    results = evaluation.run.results
    if split in evaluation.run.config.method.learns_from:
        evaluation.notify(f"note: the samples of the split {split} are those that the run learned from")
    pixels = write_predictions(
        evaluation.run.config,
        evaluation.tasks(split),
        results / PREDICTIONS_FILE,
        split=split,
        maps=maps,
        derived=[results / METRICS_FILE],
        provenance={MODELS: _model_digests(evaluation), **_epoch(evaluation.run), **_labels(evaluation.run)},
        progress=evaluation.progress,
    )
    return measure(
        results,
        evaluation.run.config.eval,
        pixels,
        notify=evaluation.notify,
        progress=evaluation.progress,
    )


def measure_again(
    results: Path,
    settings: EvalConfig,
    given: Collection[str],
    *,
    notify: Notify = unheard,
    progress: Progress = silent,
) -> dict[str, Any]:
    """As `measure`, from stored predictions, whose scores are computed again if ``given`` demands it.

    Args:
        settings: the section ``eval`` with its overrides.
        given: dotted keys of the overrides, e.g. ``eval.score``.
        progress: called with the number of samples.

    Raises:
        RunError: as `measure`; a key given demands a new test pass.
    """
    path = results / PREDICTIONS_FILE
    predictions = Predictions.open(path)
    check_results(path, predictions.protocol, run_home(results))
    again = rescore(
        predictions, settings, given, results, derived=[results / METRICS_FILE], progress=progress
    )
    if again is not None:
        notify(f"note: the scores of {path} were computed again: {again}")
    return measure(results, settings, notify=notify, progress=progress)


def measure(
    results: Path,
    settings: EvalConfig,
    pixels: dict[str, PixelCounts] | None = None,
    *,
    notify: Notify = unheard,
    progress: Progress = silent,
) -> dict[str, Any]:
    """Compute the metrics of ``predictions.h5`` in ``results`` and write ``metrics.json`` beside it.

    Raises:
        RunError: the predictions are damaged, or are those of an earlier training.
    """
    predictions = Predictions.open(results / PREDICTIONS_FILE)
    check_results(predictions.path, predictions.protocol, run_home(results))
    metrics = metrics_of(predictions, settings, pixels, progress=progress)
    home = run_home(results)
    if (home / CONFIG_FILE).is_file():
        distances = distances_of(read_config(home), home, metrics["categories"])
        for category, found in distances.items():
            metrics["categories"][category][FEATURE_DISTANCE] = found
    metrics = write_sealed(results / METRICS_FILE, metrics)
    _notify_of_missing_views(metrics, notify)
    for warning in (
        labels_note(metrics["protocol"]),
        brightness_warning(metrics),
        untrained_warning(metrics),
    ):
        if warning is not None:
            notify(f"note: {warning}")
    return metrics


def _epoch(run: Run) -> dict[str, str]:
    """The protocol's ``epoch`` of weights that are not those of the last one."""
    text = run.epoch_text()
    return {} if text is None else {"epoch": f"{text} (training is not finished)"}


def _labels(run: Run) -> dict[str, str]:
    """The protocol's sentence on labels that the run learned from."""
    facts = read_facts(run.folder) if run.config.method.uses_labels else {}
    return {LEARNED_FROM: facts[LEARNED_FROM]} if LEARNED_FROM in facts else {}


def _model_digests(evaluation: Evaluation) -> dict[str, str]:
    run = evaluation.run
    return model_digests(run.folder, [model for _, model in run.models(evaluation.categories)])


def _notify_of_missing_views(metrics: dict[str, Any], notify: Notify) -> None:
    """Notify the user if samples lack views and are thus scored by fewer cameras or not at all."""
    counts = [values["counts"] for values in metrics["categories"].values()]
    lacking, unseen = (sum(c[key] for c in counts) for key in ("incomplete_samples", "unscorable"))
    if lacking:
        of = sum(c["samples"] for c in counts)
        notify(f"note: {lacking:,} of {of:,} samples lack views and are scored by those they have")
    if unseen:
        notify(f"note: {unseen:,} samples have no view at all and are left out")
