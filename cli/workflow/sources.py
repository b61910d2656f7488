"""`Sources`: the feature sources, encoders and resources that a config names."""

import difflib
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch

from cache import FeatureStore
from cache.format.index_diff import index_differences
from cache.reading.placement import Placement, choose_placement, place
from cli.processes import first_process
from cli.terminal.console import note, progress_bar
from cli.workflow.device import evaluation_device
from cli.workflow.encoders import LIVE_ENCODER, image_size_of, load_encoders
from idif.config.sections import Config, TeacherConfig
from idif.data.arrays import StorageType
from idif.data.features import IMAGES, EncoderSpec, FeatureSource, FeatureSpec
from idif.data.index import SPLITS, Index, Sample, Split
from idif.datasets.readers import reader_of
from idif.encoders.encode import EncoderSet
from idif.encoders.frozen import LEARNED, encoder_names, find_family
from idif.encoders.live import LiveFeatures
from idif.encoders.options import EncoderOptions
from idif.errors import ConfigError, StoreError, StoreMismatch
from idif.methods.catalog import METHODS
from idif.methods.protocol import ResourceRequest
from idif.runs.start import TrainingData
from idif.training.precision import fabric_precision

if TYPE_CHECKING:
    # a type only: importing it takes seconds, and commands that train nothing import this module
    from lightning_fabric import Fabric

Images = npt.NDArray[np.uint8]
Masks = npt.NDArray[np.bool_]
FEW = 8
"""Samples whose images are read at once."""


def make_fabric(config: Config) -> "Fabric":
    """Device, precision and processes: one process, or those torchrun started.

    With ``train.distribute: categories`` each process has its own device and batches.
    """
    from lightning_fabric import Fabric

    local = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    nodes = int(os.environ.get("WORLD_SIZE", "1")) // local
    probe = Fabric(accelerator="auto", devices=1)
    precision = fabric_precision(config.train.precision, probe.device)
    if config.train.distribute == "categories":
        device = evaluation_device()
        own = 1 if device.index is None else [device.index]
        return Fabric(accelerator="auto", devices=own, precision=precision)
    fabric = Fabric(accelerator="auto", devices=local, num_nodes=nodes, precision=precision)
    fabric.launch()
    return fabric


class Sources:
    """The feature sources of one config, each opened on first use."""

    def __init__(self, config: Config, device: torch.device, *, compare: bool = True) -> None:
        """Open the store, if there is one, for the config's categories.

        Args:
            compare: whether ``data.root``, if there is one, must have the annotations of the store.

        Raises:
            StoreError: the store is missing, damaged, unfinished, lacks a category, or differs from an
                explicit setting.
        """
        self.config, self.device, self._compares = config, device, compare
        self._store: FeatureStore | None = None
        self._encoders: EncoderSet | None = None
        self._said: Placement | None = None
        self._annotations: Index | None = None
        self._compared: set[str] = set()
        if not config.live and config.cache.store is not None:
            chosen = list(config.data.categories) or None
            self._store = FeatureStore.open(config.cache.store, categories=chosen)
            self._check_settings(config.cache.store, self._store)

    def _check_settings(self, path: str | Path, store: FeatureStore) -> None:
        config, spec, numbers = self.config, store.spec, store.index.view_numbers
        (first, *_), wanted = spec.encoders, _demanded(config)
        own = tuple(encoder.name for encoder in spec.encoders)
        if wanted.encoder is not None and encoder_names(wanted.encoder) not in (own, own[:1]):
            raise StoreMismatch(
                f"teacher.encoder: {wanted.encoder}, but {path} was built with {', '.join(own)}"
            )
        if wanted.image_size not in (None, spec.image_size):
            raise StoreMismatch(
                f"teacher.image_size: {wanted.image_size}, but {path} holds features of "
                f"{spec.image_size} px images"
            )
        options = EncoderOptions.recorded(first)
        asked = {field.name: getattr(wanted, field.name) for field in fields(EncoderOptions)}
        for key, value in asked.items():
            if value is not None and value != (
                built := getattr(find_family(first.name, options).options, key)
            ):
                raise StoreMismatch(
                    f"teacher.{key}: {_words(value)}, but {path} was built with {_words(built)}"
                )
        if wanted.weights is not None:
            _check_weights(wanted.weights, first, path)
        if config.data.views not in (None, numbers):
            views = list(config.data.views or ())
            raise StoreMismatch(f"data.views: {views}, but {path} holds views {list(numbers)}")

    def categories(self) -> list[str]:
        """The config's categories, by default all of the data, sorted."""
        if self._store is not None:
            return sorted(self._store.index.categories)
        self._root()
        known = reader_of(self.config.data).categories(self.config.data)
        for wanted in self.config.data.categories:
            if wanted not in known:
                near = difflib.get_close_matches(wanted, known, n=3, cutoff=0.4) or known
                raise ConfigError(f"data.categories: there is no {wanted!r}; nearest: {', '.join(near)}")
        return sorted(self.config.data.categories) or known

    def has(self, category: str, split: Split) -> bool:
        """Whether there are samples of a category and split; always true without a store."""
        if self._store is None:
            return True
        return any(s.category == category and s.split == split for s in self._store.index.samples)

    def splits(self, categories: Sequence[str]) -> set[Split]:
        """The splits of which there are samples of the given categories."""
        return {sample.split for sample in self.samples(categories)}

    def samples(self, categories: Sequence[str]) -> list[Sample]:
        """All samples of the given categories, of every split."""
        index = self._annotated() if self._store is None else self._store.index
        return [sample for sample in index.samples if sample.category in categories]

    def placed(self, categories: Sequence[str], *splits: Split) -> FeatureSource:
        """Clean images and frozen features of some categories and splits, placed according to the config."""
        source, placement = self.unplaced(categories, *splits), self.config.cache.placement
        if self._store is None:
            return source
        if placement == "auto":
            placement, reason = choose_placement(source, self.device)
            if placement != self._said:
                note(f"features stay on disk: {reason}" if placement == "disk" else f"{placement}: {reason}")
                self._said = placement
        return place(source, placement, self.device)

    def unplaced(self, categories: Sequence[str], *splits: Split) -> FeatureSource:
        """As `placed`, but without loading into memory, for reading the index or a few rows."""
        config = self.config
        if config.cache.store is None or self._store is None:
            index = self._annotated()
            index = index.take(
                index.rows(lambda s: s.category in categories and s.split in (splits or SPLITS))
            )
            return LiveFeatures(self._root(), index, self.encoders(), self.device)
        store = FeatureStore.open(config.cache.store, categories=categories, split=splits or None)
        if config.data.root is not None and self._compares:
            self._compare(self._store, [name for name in categories if name not in self._compared])
        return store

    def images(self, source: FeatureSource, rows: Sequence[int]) -> Iterator[Images]:
        """The clean images uint8 [V,3,S,S] of some rows, in order: stored ones, else those of the dataset.

        Raises:
            StoreError: the store holds no images and ``data.root`` is not set. DatasetError: a file cannot
                be read.
        """
        if IMAGES in source.spec.arrays:
            for batch in source.batches(rows, FEW):
                yield from batch.images.cpu().numpy()
            return
        if self.config.data.root is None:
            raise StoreError(f"{self.config.cache.store}: holds no images; name the dataset with data.root")
        encoders = self.encoders()
        for row in rows:
            yield encoders.decode(self.config.data.root, source.index.samples[row])[IMAGES]

    def masks(self, source: FeatureSource, rows: Sequence[int]) -> Iterator[Masks]:
        """The defect masks bool [V,S,S] of some rows, in order.

        Raises:
            DatasetError: a file cannot be read. KeyError: the samples have no images.
        """
        for batch in source.batches(rows, FEW):
            yield from batch.masks.cpu().numpy()

    def encoders(self) -> EncoderSet:
        """The frozen encoders: the store's own copies, or the live one, loaded once."""
        if self._encoders is None:
            wanted = self.config.teacher
            if self._store is not None:
                self._encoders = self._store.encoder_set()
            else:
                self._root()
                data = self.config.data
                encoders = load_encoders(
                    encoder_names(wanted.encoder or LIVE_ENCODER),
                    (wanted.weights or "imagenet",),
                    wanted.options(),
                    reader_of(data),
                    data,
                )
                self._encoders = EncoderSet(encoders, image_size_of(encoders, wanted.image_size))
        return self._encoders

    def storage(self) -> StorageType:
        """The type of the features: that of the store, or a live encoder's."""
        return "float32" if self._store is None else self._store.spec.storage

    def fingerprint(self) -> str | None:
        """The store's fingerprint, over the config's categories; None for a live encoder."""
        return None if self._store is None else self._store.fingerprint

    def training_data(
        self, source: FeatureSource, identities: Mapping[str, Mapping[str, str | None]]
    ) -> TrainingData:
        """The facts about its data that a run's folder records.

        Args:
            source: samples of the config.
            identities: see `TrainingData`.
        """
        return TrainingData(
            features=source.spec,
            view_numbers=source.index.view_numbers,
            categories=tuple(self.categories()),
            encoders=self.encoders(),
            fingerprint=self.fingerprint(),
            identities=identities,
            cameras=source.index.camera_names,
        )

    def resources(self, features: FeatureSpec) -> dict[str, Any]:
        """The resources of the method's training, by name.

        They are cached beside a store on disk, else beside the run's folder, and shared by runs; beside the
        run's folder, too, where the store's disk cannot be written.
        """
        config, beside = self.config, self.config.run.dir
        if isinstance(config.cache.store, Path) and not config.live:
            beside = config.cache.store.resolve().parent
        with progress_bar("preparing the training", "items") as listen:
            request = ResourceRequest(config.corruption, features, beside, listen, config.run.dir)
            return METHODS[config.method.name].resources(config.method, request)

    def _root(self) -> Path:
        if self.config.data.root is None:
            raise ConfigError("data.root: needed without a store; got nothing")
        return self.config.data.root

    def _annotated(self) -> Index:
        """The samples of the dataset, of all the config's categories and splits, read once.

        Categories are read together, so that all have the same view numbers.
        """
        if self._annotations is None:
            self._root()
            data = self.config.data.model_copy(update={"categories": tuple(self.categories())})
            self._annotations = reader_of(data).read(data, None)
        return self._annotations

    def _compare(self, store: FeatureStore, categories: Sequence[str]) -> None:
        """Raise if sample ids, views or labels of the annotations differ from the store's. Reads no images.

        All splits that the store has of a category are compared, not only those that are used.
        """
        if not categories:
            return
        stored = store.index.take(store.index.rows(lambda sample: sample.category in categories))
        groups = {(sample.category, sample.split) for sample in stored.samples}
        ids = {sample.sample_id for sample in stored.samples}
        chosen = self.config.data.model_copy(update={"categories": tuple(categories)})
        data = reader_of(chosen).read(chosen, None)
        data = data.take(data.rows(lambda s: (s.category, s.split) in groups or s.sample_id in ids))
        difference = next(index_differences(stored, data), None)
        if difference is not None:
            raise StoreMismatch(
                f"{store.path}: the annotations of data.root are not the store's: {difference}"
            )
        self._compared |= {*categories}


def _demanded(config: Config) -> TeacherConfig:
    """The keys of ``teacher`` that differ from the method's own defaults, which demand nothing of a store."""
    given, preferred = config.teacher.model_dump(), config.preferred_teacher.model_dump()
    return TeacherConfig(**{key: value for key, value in given.items() if value != preferred[key]})


def _check_weights(asked: str, stored: EncoderSpec, path: str | Path) -> None:
    """Compare ``teacher.weights`` with the origin of a store's weights, which are used; loads no weights.

    A file may have moved since the build, and may hold ImageNet's weights: such a difference is only noted.

    Raises:
        StoreMismatch: only one of the two is ``untrained``.
    """
    origin = asked if asked in ("imagenet", "untrained") else "file"
    if stored.weights in (origin, LEARNED):
        return
    kind = "weights of a file" if stored.weights == "file" else f"{stored.weights} weights"
    built = f"{path} was built with {kind}, {stored.weights_sha256[:12]}"
    if "untrained" in (origin, stored.weights):
        raise StoreMismatch(f"teacher.weights: {asked}, but {built}")
    if first_process():
        note(f"note: teacher.weights: {asked} is not read: {built}, and these are used")


def _words(value: Any) -> str:
    return str(list(value)) if isinstance(value, tuple) else str(value)
