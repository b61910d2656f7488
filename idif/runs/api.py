"""`TrainedRun`: the Python interface of a finished run."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from idif.config.sections import Config
from idif.data.features import FeatureSource
from idif.data.index import Split
from idif.data.subset import Subset, select
from idif.errors import ConfigError
from idif.inference.export_file import Format, require_packages, write_deployment
from idif.inference.photo_grouping import find_parts, is_automatic
from idif.inference.predict import (
    Prediction,
    Thresholds,
    decode_part,
    predict,
    require_images,
    without_score,
)
from idif.progress import Notify, Progress, silent, unheard
from idif.runs.category_probe import recognize_parts, require_probe
from idif.runs.deployment import deployment_of
from idif.runs.evaluate import Evaluation, evaluate
from idif.runs.files import read_facts
from idif.runs.fitted import fitted_scorer, load_decision
from idif.runs.identity import check_identity, data_identity
from idif.runs.run import Run, open_run
from idif.runs.sweep import Subsets, sweep_missing_views


@dataclass(frozen=True)
class TrainedRun:
    """A finished run; its methods compute on ``device`` and write the same files as the commands."""

    run: Run
    device: torch.device
    progress: Progress = silent
    notify: Notify = unheard

    @property
    def config(self) -> Config:
        """The resolved config."""
        return self.run.config

    @property
    def categories(self) -> tuple[str, ...]:
        """The categories of the training data."""
        return self.run.known_categories()

    def thresholds(self, category: str) -> Thresholds:
        """The decision thresholds chosen by `evaluate`; None if the run was not evaluated."""
        return load_decision(self.run, category, self.notify).thresholds

    def evaluate(
        self,
        test: FeatureSource,
        training: FeatureSource | None = None,
        *,
        split: Split = "test",
        maps: bool = True,
    ) -> dict[str, Any]:
        """Score samples, write ``predictions.h5`` and ``metrics.json``, and return the metrics.

        Args:
            test: samples of the run's categories, e.g. ``FeatureStore.open(path, split="test")``.
            training: the training samples, for configs that calibrate or choose thresholds on held-out ones.
            split: the split of ``test`` to score.
            maps: whether the file contains anomaly maps and masks.

        Raises:
            RunError: a checkpoint is damaged. StoreMismatch: ``test`` lacks arrays. CannotFinish: a score is
            not finite. ConfigError: the config needs training samples, and there are none. StoreMismatch:
            ``training`` has other samples than the run was trained on.
        """
        return evaluate(self._evaluation(test, training), split=split, maps=maps)

    def sweep(
        self,
        test: FeatureSource,
        training: FeatureSource | None = None,
        *,
        subsets: Subsets = "all",
        seed: int = 0,
    ) -> dict[str, Any]:
        """Compute metrics under every choice of cameras, write ``sweep.json`` and return its content.

        Raises:
            As `evaluate`; ConfigError: the samples have no views.
        """
        return sweep_missing_views(self._evaluation(test, training), subsets=subsets, seed=seed)

    def predict(self, photographs: Sequence[Path | str], category: str | None = None) -> Iterator[Prediction]:
        """Score photographs; needs neither store nor dataset.

        Args:
            photographs: image files or folders of them, grouped into parts as `idif predict` does.
            category: category of images whose file name does not contain it, or ``auto`` for the one that the
                run's probe tells; required for runs with several categories.

        Raises:
            ConfigError: the run does not score photographs. DatasetError: nothing to score, or photographs
            that cannot be grouped. WeightsError: the run's encoder is missing. RunError: ``auto``, and the
            run has one category or no probe.
        """
        require_images(self.run.features())
        numbers, encoders = self.run.view_numbers(), self.run.encoders()
        parts = find_parts(
            [Path(p) for p in photographs], numbers, self.categories, category, self.run.named_cameras()
        )
        if is_automatic(category, self.categories):
            probe = require_probe(self.run, _no_samples)
            parts = recognize_parts(self.run, probe, parts, self.device, progress=self.progress)
        for part in parts:
            if is_automatic(part.category, self.categories):  # none of its photographs is readable
                yield without_score(decode_part(part, encoders))
        for name in dict.fromkeys(part.category for part in parts):
            if is_automatic(name, self.categories):
                continue
            scorer, _ = fitted_scorer(self.run, name, self.device, self.notify)
            chosen = [part for part in parts if part.category == name]
            yield from predict(scorer, encoders, chosen, progress=self.progress)

    def export(self, path: Path | str, category: str, kind: Format = "onnx") -> float:
        """Write one graph from photographs to maps and scores, as `idif export` does.

        Args:
            path: the new file, e.g. ``audiojack.onnx``.
            category: of the run.
            kind: ``onnx`` or ``torchscript``.

        Returns:
            Largest difference of any map value from the run's own, on random images.

        Raises:
            ConfigError: the method cannot be exported, or a package that ``kind`` needs is missing.
            CannotFinish: the file's maps differ from the run's. PathError: it cannot be written.
        """
        require_packages(kind)
        return write_deployment(deployment_of(self.run, category, self.notify), Path(path), kind)

    def _check_training(self, training: FeatureSource) -> None:
        """Refuse training samples of another run; compared where all splits that it learns from are there."""
        recorded, learns_from = read_facts(self.run.folder).get("data", {}), self.config.method.learns_from
        for category in training.index.categories:
            samples = enumerate(training.index.samples)
            rows = [row for row, s in samples if s.category == category and s.split in learns_from]
            part = Subset(training, tuple(rows))
            if {sample.split for sample in part.index.samples} == set(learns_from):
                check_identity(recorded, data_identity(part, category), category, "training")

    def _evaluation(self, test: FeatureSource, training: FeatureSource | None) -> Evaluation:
        def open_source(category: str, split: Split) -> FeatureSource:
            source = test if split in {sample.split for sample in test.index.samples} else training
            if source is None:
                raise ConfigError(f"expected {split} samples of {category}, got none: pass `training`")
            return select(source, category, split)

        if training is not None:
            self._check_training(training)
        return Evaluation(
            self.run, test.index.categories, open_source, self.device, self.progress, self.notify
        )


def _no_samples() -> FeatureSource:
    raise ConfigError("no training samples are given")


def load_run(
    path: Path | str,
    overrides: Sequence[str] = (),
    *,
    device: torch.device | str | None = None,
    progress: Progress = silent,
    notify: Notify = unheard,
) -> TrainedRun:
    """Open a finished run, or one category's folder inside it.

    Args:
        path: folder written by `idif train` or `idif.train`.
        overrides: ``KEY=VALUE`` settings, e.g. ``eval.score=topk``.
        device: None means the accelerator if there is one, else the CPU.
        progress: progress callback.
        notify: called with each message to the user.

    Raises:
        RunError: not a run, or not trained to its last epoch.
    """
    return TrainedRun(open_run(Path(path), overrides), resolve_device(device), progress, notify)


def resolve_device(device: torch.device | str | None) -> torch.device:
    """The given device; if None, the accelerator if there is one, else the CPU."""
    if device is not None:
        return torch.device(device)
    return torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")
