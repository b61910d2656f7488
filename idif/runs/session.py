"""`TrainingSession`: the steps of training a run that scripts and commands share.

A caller checks the run's folder, calls `start` once, and `train` for each model. Locks, several processes and
output on a terminal are the caller's.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

from lightning_fabric import Fabric

from idif.config.sections import Config
from idif.data.features import FeatureSource, FeatureSpec
from idif.data.index import Sample, Split
from idif.data.subset import Subset
from idif.encoders.encode import EncoderSet
from idif.encoders.frozen import FrozenEncoder
from idif.files import make_folder
from idif.progress import Notify, ProgressBar, no_bar, unheard
from idif.runs.category_probe import keep_probe
from idif.runs.identity import data_identity
from idif.runs.lock import model_lock
from idif.runs.start import (
    TrainingData,
    TrainingStart,
    caveats,
    check_variants,
    resumed_otherwise,
    write_run_folder,
)
from idif.training.feature_mean import FeatureMean, distances_of, not_trained_warning
from idif.training.held_out import held_out_notes
from idif.training.labels import labels_text
from idif.training.loop import EpochSummary
from idif.training.painted_validation import can_paint, paint
from idif.training.sampling import training_normals
from idif.training.stages import train_stages
from idif.training.task import Task
from idif.training.validation import Validation


class TrainingSources(Protocol):
    """The data of a run that is trained."""

    def categories(self) -> Sequence[str]:
        """The categories to train, sorted."""
        ...

    def samples(self, categories: Sequence[str]) -> Sequence[Sample]:
        """All samples of the given categories, of every split."""
        ...

    def unplaced(self, categories: Sequence[str], *splits: Split) -> FeatureSource:
        """Samples of some categories and splits, for reading their index or a few rows."""
        ...

    def encoders(self) -> EncoderSet:
        """The frozen encoders behind the features, loaded once."""
        ...

    def resources(self, features: FeatureSpec) -> Mapping[str, Any]:
        """The resources of the method's training, by name, on the CPU."""
        ...

    def training_data(
        self, source: FeatureSource, identities: Mapping[str, Mapping[str, str | None]]
    ) -> TrainingData:
        """The facts that the run's folder records, with the identities of its categories."""
        ...


@dataclass(frozen=True)
class TrainingSession:
    """The training of one run in this process."""

    config: Config
    sources: TrainingSources
    fabric: Fabric
    bar: ProgressBar = no_bar
    notify: Notify = unheard
    first: bool = True
    """Whether this process writes the run's folder, and reports."""

    def start(self, members: Sequence[str], *, resume: bool = False, write: bool = True) -> dict[str, Any]:
        """Report caveats, write the run's folder, and return the method's resources on the device.

        Args:
            members: categories of the first model.
            resume: whether an existing run is continued.
            write: whether the folder is written.

        Raises:
            StoreMismatch: the features lack a variant, or are not those of the run that is resumed.
            ConfigError: a setting does not fit the data.
        """
        config, sources, fabric = self.config, self.sources, self.fabric
        categories = sources.categories()
        learns_from = config.method.learns_from
        first = sources.unplaced(members, *learns_from)
        training = sources.unplaced(categories, *learns_from).index
        # before textures are made and anything is trained
        few = held_out_notes(config, training, categories)
        check_variants(config, first.spec)
        resources = sources.resources(first.spec)
        if self.first:
            lines = caveats(config, first.spec, resources, training.samples) + few
            if resume or write:
                lines += resumed_otherwise(config, fabric)
            labels = labels_text(config, training.samples)
            start = TrainingStart(resources, tuple(dict.fromkeys(lines)), labels)
            for line in start.caveats:
                self.notify(f"note: {line}")
            if write:
                identities = {c: data_identity(sources.unplaced([c], *learns_from), c) for c in categories}
                write_run_folder(config, sources.training_data(first, identities), start, fabric)
                with self.bar("pooling stored features", "samples") as listen:
                    every = sources.unplaced(categories, "train")
                    keep_probe(config.folder, every, progress=listen, notify=self.notify)
        return {name: resource.to(fabric.device) for name, resource in resources.items()}

    def train(
        self,
        task: Task,
        validation: Callable[[], FeatureSource] | None,
        *,
        lock: bool = True,
        on_epoch: Callable[[EpochSummary], None] | None = None,
    ) -> None:
        """Train one model through its stages; continues from its checkpoints.

        Args:
            task: see `idif.runs.start.make_task`.
            validation: opens the samples that are scored every ``train.eval_every`` epochs.
            lock: whether the model's folder is locked meanwhile.
            on_epoch: called after each epoch.

        Raises:
            CannotFinish: the loss is no longer finite, or memory ran out.
        """
        make_folder(task.folder)
        config, device = self.config, self.fabric.device
        painted = normals = None
        if config.train.validate_every and not config.method.fitted:
            kept, held_out = training_normals(config, task.source.index)
            normals = FeatureMean.of(task.source, kept, held_out)
            if can_paint(task.source.spec):
                encoders = self.sources.encoders()
                painted = paint(task.source, kept, held_out, encoders, device, config.train.seed)
        trained = partial(Subset, task.source, tuple(task.rows))
        after_epoch = Validation(config, device, validation, painted, normals, trained)
        with (
            model_lock(task.folder) if lock else nullcontext(),
            self.bar(f"training {task.name}", "steps") as listen,
        ):
            train_stages(
                config,
                task,
                self._frozen,
                self.fabric,
                progress=listen,
                after_epoch=after_epoch,
                on_epoch=on_epoch,
            )
        distances = distances_of(config, config.folder, [task.name]) if self.first else {}
        if (warning := not_trained_warning(distances)) is not None:
            self.notify(f"note: {warning}")

    def _frozen(self) -> tuple[FrozenEncoder, ...]:
        return self.sources.encoders().encoders
