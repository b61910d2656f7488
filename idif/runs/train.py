"""`train`: trains a run from a feature source, for scripts and notebooks."""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol, runtime_checkable

import torch
from lightning_fabric import Fabric

from idif.config.sections import Config
from idif.data.features import FeatureSource, FeatureSpec
from idif.data.index import Sample, Split
from idif.data.subset import Subset
from idif.encoders.encode import EncoderSet
from idif.errors import ConfigError
from idif.methods.catalog import METHODS
from idif.methods.protocol import ResourceRequest
from idif.progress import Notify, Progress, silent, unheard
from idif.runs.api import TrainedRun, load_run, resolve_device
from idif.runs.lock import run_lock
from idif.runs.run import starting_checkpoint
from idif.runs.session import TrainingSession
from idif.runs.start import TrainingData, check_folder, make_task, model_groups
from idif.training.labels import require_labels
from idif.training.precision import fabric_precision
from idif.training.tracking import require_tracker
from idif.training.validation import validation_split


@runtime_checkable
class HasEncoders(Protocol):
    """A feature source with frozen encoders: a store, or live features."""

    def encoder_set(self) -> EncoderSet:
        """The frozen encoders behind its features."""
        ...


def train(
    config: Config,
    source: FeatureSource,
    *,
    validation: FeatureSource | None = None,
    resume: bool = False,
    device: torch.device | str | None = None,
    progress: Progress = silent,
    notify: Notify = unheard,
) -> TrainedRun:
    """Train every model of one run, in this process; returns the finished run.

    Args:
        config: e.g. from `idif.load_config`. Results are written to ``config.folder``; ``data`` and ``cache``
            are recorded, not read.
        source: training samples, e.g. ``FeatureStore.open(path, split="train")``; for a method that learns
            from labels those of ``val`` too.
        validation: samples scored every ``train.eval_every`` epochs: those of the split ``val`` if the source
            has one, else of ``test``. Without them ``train.patience`` has no effect.
        resume: continue an existing run.
        device: None means the accelerator if there is one, else the CPU.
        progress: called with the steps done, the number of steps, and the loss.
        notify: called with each message to the user.

    Raises:
        RunError: the run exists and ``resume`` is false, or it was started with another config.
        ConfigError: a setting cannot be used, or ``source`` has no ``encoder_set``.
        StoreMismatch: ``source`` lacks arrays that the method needs for training.
        CannotFinish: the loss is no longer finite, or memory ran out.
    """
    require_tracker(config.run.tracking)
    if not isinstance(source, HasEncoders):
        raise ConfigError("source: expected a store or live features, which know their encoders")
    chosen = resolve_device(device)
    precision = fabric_precision(config.train.precision, chosen)
    fabric = Fabric(accelerator=chosen.type, devices=1, precision=precision)
    sources = _GivenSource(config, source, source.encoder_set(), progress)

    def bar(title: str, unit: str) -> AbstractContextManager[Progress]:
        return nullcontext(progress)

    session = TrainingSession(config, sources, fabric, bar, notify)
    with run_lock(config.folder):
        _train_models(session, validation, resume=resume)
    return load_run(config.folder, device=fabric.device, progress=progress, notify=notify)


def _train_models(session: TrainingSession, validation: FeatureSource | None, *, resume: bool) -> None:
    """`train` behind the run's lock."""
    config, sources = session.config, session.sources
    check_folder(config, session.fabric, resume=resume)
    groups = model_groups(config, sources.categories())
    # before the folder is written: a run that cannot start leaves none
    for name, members in groups.items():
        require_labels(config, sources.samples(members), name)
    starts = {name: starting_checkpoint(config, name) for name in groups}
    split: Split = "test"
    if validation is not None:
        found = {sample.split for sample in validation.index.samples}
        split = validation_split(config.train, found) if len(found) > 1 else "val"
    resources = session.start(next(iter(groups.values())), resume=resume)
    for name, members in groups.items():
        part = sources.unplaced(members, *config.method.learns_from)
        task = make_task(config, name, part, members, resources, starts[name])
        scored = None
        if validation is not None and config.train.eval_every:
            scored = partial(_members, validation, members, split)
        session.train(task, scored)


@dataclass(frozen=True)
class _GivenSource:
    """The `TrainingSources` of a feature source that a caller has opened."""

    config: Config
    source: FeatureSource
    encoder_set: EncoderSet
    progress: Progress

    def categories(self) -> tuple[str, ...]:
        return tuple(sorted(self.source.index.categories))

    def samples(self, categories: Sequence[str]) -> list[Sample]:
        return [sample for sample in self.source.index.samples if sample.category in categories]

    def unplaced(self, categories: Sequence[str], *splits: Split) -> FeatureSource:
        return _members(self.source, categories, *splits)

    def encoders(self) -> EncoderSet:
        return self.encoder_set

    def resources(self, features: FeatureSpec) -> dict[str, Any]:
        config = self.config
        request = ResourceRequest(config.corruption, features, config.run.dir, self.progress)
        return METHODS[config.method.name].resources(config.method, request)

    def training_data(
        self, source: FeatureSource, identities: Mapping[str, Mapping[str, str | None]]
    ) -> TrainingData:
        index, fingerprint = self.source.index, getattr(self.source, "fingerprint", None)
        return TrainingData(
            features=source.spec,
            view_numbers=index.view_numbers,
            categories=self.categories(),
            encoders=self.encoder_set,
            fingerprint=fingerprint,
            identities=identities,
            cameras=index.camera_names,
        )


def _members(source: FeatureSource, categories: Sequence[str], *splits: Split) -> FeatureSource:
    """The samples of some categories, restricted to ``splits`` if the source has several splits."""
    found = {sample.split for sample in source.index.samples}
    rows = source.index.rows(lambda s: s.category in categories and (len(found) == 1 or s.split in splits))
    return source if len(rows) == len(source.index) else Subset(source, tuple(rows))
