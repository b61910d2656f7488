"""`train`: trains a run from a feature source, for scripts and notebooks."""

from collections.abc import Sequence
from functools import partial
from typing import Protocol, runtime_checkable

import torch
from lightning_fabric import Fabric

from idif.config.sections import Config
from idif.data.features import FeatureSource
from idif.data.index import Split
from idif.data.subset import Subset
from idif.encoders.encode import EncoderSet
from idif.encoders.frozen import FrozenEncoder
from idif.errors import ConfigError
from idif.files import make_folder
from idif.methods.catalog import METHODS
from idif.methods.protocol import ResourceRequest
from idif.progress import Notify, Progress, silent, unheard
from idif.runs.api import TrainedRun, load_run, resolve_device
from idif.runs.category_probe import keep_probe
from idif.runs.identity import data_identity
from idif.runs.lock import model_lock, run_lock
from idif.runs.run import starting_checkpoint
from idif.runs.start import (
    TrainingData,
    TrainingStart,
    caveats,
    check_folder,
    check_variants,
    make_task,
    model_groups,
    resumed_otherwise,
    write_run_folder,
)
from idif.training.feature_mean import FeatureMean, distances_of, not_trained_warning
from idif.training.held_out import held_out_notes
from idif.training.labels import labels_text, require_labels
from idif.training.painted_validation import paint
from idif.training.precision import fabric_precision
from idif.training.sampling import training_normals
from idif.training.stages import train_stages
from idif.training.tracking import require_tracker
from idif.training.validation import Validation, validation_split


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
    encoders = source.encoder_set()
    with run_lock(config.folder):
        _train_models(
            config, source, encoders, validation, fabric, resume=resume, progress=progress, notify=notify
        )
    return load_run(config.folder, device=fabric.device, progress=progress, notify=notify)


def _train_models(
    config: Config,
    source: FeatureSource,
    encoders: EncoderSet,
    validation: FeatureSource | None,
    fabric: Fabric,
    *,
    resume: bool,
    progress: Progress,
    notify: Notify,
) -> None:
    """`train` behind the run's lock."""
    check_folder(config, fabric, resume=resume)
    categories = tuple(sorted(source.index.categories))
    groups = model_groups(config, categories)
    # before the folder is written: a run that cannot start leaves none
    check_variants(config, source.spec)
    for name, members in groups.items():
        require_labels(config, [s for s in source.index.samples if s.category in members], name)
    starts = {name: starting_checkpoint(config, name) for name in groups}
    learns_from = config.method.learns_from
    training = _members(source, categories, *learns_from).index
    few = held_out_notes(config, training, categories)
    request = ResourceRequest(config.corruption, source.spec, config.run.dir, progress)
    resources = METHODS[config.method.name].resources(config.method, request)
    lines = caveats(config, source.spec, resources, training.samples) + few
    lines += resumed_otherwise(config, fabric)
    start = TrainingStart(resources, tuple(dict.fromkeys(lines)), labels_text(config, training.samples))
    for line in start.caveats:
        notify(f"note: {line}")
    fingerprint = getattr(source, "fingerprint", None)
    identities = {c: data_identity(_members(source, [c], *learns_from), c) for c in categories}
    numbers = source.index.view_numbers
    names = source.index.camera_names
    data = TrainingData(source.spec, numbers, categories, encoders, fingerprint, identities, names)
    write_run_folder(config, data, start, fabric)
    keep_probe(config.folder, _members(source, categories, "train"), progress=progress, notify=notify)
    chosen: Split = "test"
    if validation is not None:
        found = {sample.split for sample in validation.index.samples}
        chosen = validation_split(config.train, found) if len(found) > 1 else "val"
    on_device = {name: resource.to(fabric.device) for name, resource in resources.items()}
    for name, members in groups.items():
        part = _members(source, members, *learns_from)
        task = make_task(config, name, part, members, on_device, starts[name])

        test = None
        if validation is not None and config.train.eval_every:
            test = partial(_members, validation, members, chosen)
        painted = normals = None
        if config.train.validate_every and not config.method.fitted:
            kept, held_out = training_normals(config, part.index)
            painted = paint(part, kept, held_out, encoders, fabric.device, config.train.seed)
            normals = FeatureMean.of(part, kept, held_out)
        trained = partial(Subset, part, tuple(task.rows))
        after_epoch = Validation(config, fabric.device, test, painted, normals, trained)

        def loaded() -> tuple[FrozenEncoder, ...]:
            return encoders.encoders

        make_folder(task.folder)
        with model_lock(task.folder):
            train_stages(config, task, loaded, fabric, progress=progress, after_epoch=after_epoch)
        if (warning := not_trained_warning(distances_of(config, config.folder, [name]))) is not None:
            notify(f"note: {warning}")


def _members(source: FeatureSource, categories: Sequence[str], *splits: Split) -> FeatureSource:
    """The samples of some categories, restricted to ``splits`` if the source has several splits."""
    found = {sample.split for sample in source.index.samples}
    rows = source.index.rows(lambda s: s.category in categories and (len(found) == 1 or s.split in splits))
    return source if len(rows) == len(source.index) else Subset(source, tuple(rows))
