"""Where the parts are put together: from a config or a run folder to sources, textures and methods."""

import difflib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from lightning_fabric import Fabric
from safetensors.torch import save_file

from cache import FeatureStore
from cache.compare import index_differences
from cache.placement import Placement, choose_placement, place
from cli.console import progress_bar, say
from idif.checkpoint import find_checkpoint, load_into, reached
from idif.config import Config, load_configs
from idif.corruption.textures import DTD_URL, TextureBank, load_textures
from idif.datasets.index import Index, Split
from idif.datasets.realiad import list_categories, read_realiad
from idif.encoders import FrozenEncoder, load_encoder
from idif.errors import ConfigError, RunError, StoreMismatch
from idif.features import FeatureSource, FeatureSpec
from idif.live import LiveFeatures
from idif.methods import METHODS, Method
from idif.precision import fabric_precision
from idif.runlog import environment, write_json

LIVE_IMAGE_SIZE = 256
"""Image size of a live encoder whose config names none."""


def make_fabric(config: Config) -> Fabric:
    """Device, precision and processes: one process, or those torchrun started."""
    local = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    nodes = int(os.environ.get("WORLD_SIZE", "1")) // local
    probe = Fabric(accelerator="auto", devices=1)
    precision = fabric_precision(config.train.precision, probe.device)
    fabric = Fabric(accelerator="auto", devices=local, num_nodes=nodes, precision=precision)
    fabric.launch()
    return fabric


class Sources:
    """The feature sources of one config, each opened when it is first asked for."""

    def __init__(self, config: Config, device: torch.device) -> None:
        """Opens the store, where there is one, for the config's categories.

        Raises:
            StoreError: it is missing, damaged, unfinished, lacks a category, or an explicit setting differs
                from it: the store is authoritative.
        """
        self.config, self.device = config, device
        self._store: FeatureStore | None = None
        self._encoder: FrozenEncoder | None = None
        self._said: Placement | None = None
        if not config.live and config.cache.store is not None:
            chosen = list(config.data.categories) or None
            self._store = FeatureStore.open(config.cache.store, categories=chosen)
            self._check_settings(config.cache.store, self._store)

    def _check_settings(self, path: Path, store: FeatureStore) -> None:
        config, spec, numbers = self.config, store.spec, store.index.view_numbers
        if config.teacher.image_size not in (None, spec.image_size):
            raise StoreMismatch(
                f"teacher.image_size: {config.teacher.image_size}, but {path} holds features of "
                f"{spec.image_size} px images"
            )
        if config.teacher.weights is not None:
            given = load_encoder(config.teacher.weights).sha256
            if given != spec.weights_sha256:
                raise StoreMismatch(
                    f"teacher.weights: {config.teacher.weights} has SHA-256 {given[:12]}, but {path} was "
                    f"built with {spec.weights} weights, {spec.weights_sha256[:12]}"
                )
        if config.data.views not in (None, numbers):
            wanted = list(config.data.views or ())
            raise StoreMismatch(f"data.views: {wanted}, but {path} holds views {list(numbers)}")

    def categories(self) -> list[str]:
        """The config's categories, or all there are, sorted."""
        if self._store is not None:
            return sorted(self._store.index.categories)
        known = list_categories(self._root(), self.config.data.annotations)
        for wanted in self.config.data.categories:
            if wanted not in known:
                near = difflib.get_close_matches(wanted, known, n=3, cutoff=0.4) or known
                raise ConfigError(f"data.categories: there is no {wanted!r}; nearest: {', '.join(near)}")
        return sorted(self.config.data.categories) or known

    def open(self, categories: Sequence[str], split: Split) -> FeatureSource:
        """Clean images and frozen features of these categories, placed as the config says."""
        source, placement = self.find(categories, split), self.config.cache.placement
        if self._store is None:
            return source
        if placement == "auto":
            placement, reason = choose_placement(source, self.device)
            if placement != self._said:
                say(f"features stay on disk: {reason}" if placement == "disk" else f"{placement}: {reason}")
                self._said = placement
        return place(source, placement, self.device)

    def find(self, categories: Sequence[str], split: Split) -> FeatureSource:
        """As `open`, but left where it lies: for whoever asks what there is, or reads a few rows."""
        config = self.config
        if config.cache.store is None or self._store is None:
            size = config.teacher.image_size or LIVE_IMAGE_SIZE
            index = self._read(categories, split)
            return LiveFeatures(self._root(), index, self.encoder(), size, self.device)
        store = FeatureStore.open(config.cache.store, categories=categories, split=split)
        if config.data.root is not None:
            _compare(store.index, self._read(categories, split), config.cache.store)
        return store

    def encoder(self) -> FrozenEncoder:
        """The frozen encoder: the store's own copy, or the live one, loaded once."""
        if self._encoder is None:
            live = self.config.teacher.weights or "imagenet"
            self._encoder = load_encoder(live) if self._store is None else self._store.load_encoder()
        return self._encoder

    def fingerprint(self) -> str | None:
        """The store's fingerprint, over the config's categories; None for a live encoder."""
        return None if self._store is None else self._store.fingerprint

    def textures(self, size: int) -> TextureBank:
        """The texture bank, kept beside the store, or in the run's folder where there is none."""
        wanted = self.config.corruption.textures
        if wanted is None:
            raise ConfigError(
                "corruption.textures: expected the folder of the Describable Textures Dataset "
                f"({DTD_URL}), or 'procedural' for generated textures; got nothing"
            )
        store = self.config.cache.store
        beside = store.resolve().parent if store is not None and not self.config.live else self.config.folder
        with progress_bar("reading textures", "images") as listen:
            return load_textures(
                "procedural" if wanted == "procedural" else Path(wanted), size, beside, listen
            )

    def _root(self) -> Path:
        if self.config.data.root is None:
            raise ConfigError("data.root: needed without a store; got nothing")
        return self.config.data.root

    def _read(self, categories: Sequence[str], split: Split) -> Index:
        data = self.config.data
        return read_realiad(
            self._root(),
            images=data.images,
            annotations=data.annotations,
            categories=categories,
            split=split,
            drop_incomplete=data.drop_incomplete,
            views=data.views,
        )


def _compare(stored: Index, data: Index, path: Path) -> None:
    """Raise where sample ids, views or labels of the annotations are not the store's. Reads no image."""
    difference = next(index_differences(stored, data), None)
    if difference is not None:
        raise StoreMismatch(f"{path}: the annotations of data.root are not the store's: {difference}")


@dataclass(frozen=True)
class Run:
    """A run folder as commands see it: all its models, or one."""

    folder: Path
    """Holds ``config.yaml``."""
    results: Path
    """Where results go: the folder itself, or the one category's that was named."""
    config: Config
    names: tuple[str, ...]
    """Models to use: categories, or ``all`` for a unified run."""

    def models(self, sources: Sources) -> list[tuple[str, str]]:
        """(category, model's name) for every category to evaluate."""
        if self.config.train.mode == "unified":
            return [(category, "all") for category in sources.categories()]
        if self.results == self.folder:
            for category in sources.categories():
                if category not in self.names:
                    raise RunError(f"{self.folder}: {category} is not trained yet; use `idif train --resume`")
        return [(name, name) for name in self.names]

    def known_categories(self) -> tuple[str, ...]:
        """The categories it was trained on, from its own files alone."""
        return self.config.data.categories if self.config.train.mode == "unified" else self.names

    def categories(self, sources: Sources) -> list[str]:
        """The categories to evaluate."""
        return [category for category, _ in self.models(sources)]


def open_run(path: Path, overrides: Sequence[str] = ()) -> Run:
    """Open RUN, or RUN/<category> as a run of one.

    Raises:
        RunError: not a run, or a category is not trained to its last epoch.
    """
    folder, only = path, None
    if not (folder / "config.yaml").is_file() and (folder.parent / "config.yaml").is_file():
        folder, only = path.parent, path.name
    if not (folder / "config.yaml").is_file():
        raise RunError(f"{path}: not a run (it has no config.yaml); expected a folder that `idif train` made")
    (config,) = load_configs(folder / "config.yaml", overrides)
    names = sorted(p.name for p in folder.iterdir() if p.is_dir() and find_checkpoint(p) is not None)
    if only is not None:
        if only not in names:
            raise RunError(f"{path}: has no checkpoint; this run holds {', '.join(names) or 'none'}")
        names = [only]
    if not names:
        raise RunError(f"{folder}: has no checkpoint yet; train it with `idif train`")
    for name in names:
        _require_finished(folder / name, config)
    return Run(folder, folder if only is None else folder / only, config, tuple(names))


def _require_finished(folder: Path, config: Config) -> None:
    """Results are the last epoch's, so a model that is not there yet has none."""
    checkpoint = find_checkpoint(folder)
    assert checkpoint is not None
    done = reached(checkpoint)
    if not done.finished:
        raise RunError(
            f"{folder}: trained to epoch {done.epoch} of {config.train.epochs}; results are those of the "
            "last epoch, finish it with `idif train --resume`"
        )


def load_method(run: Run, name: str, spec: FeatureSpec, view_numbers: tuple[int, ...]) -> Method:
    """A trained method of a run, in eval mode on the CPU."""
    checkpoint = find_checkpoint(run.folder / name)
    assert checkpoint is not None
    method = METHODS[run.config.method.name](run.config, spec, view_numbers)
    load_into(method, checkpoint)
    return method.eval()


def run_features(run: Run) -> FeatureSpec:
    """What features the run was trained on, from its ``environment.json``.

    Raises:
        RunError: the file is missing or does not say.
    """
    path = run.folder / "environment.json"
    try:
        return FeatureSpec.from_json(json.loads(path.read_text(encoding="utf-8"))["features"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RunError(f"{path}: expected the run's features, but it cannot be used ({error!r})") from None


def run_teacher(run: Run, spec: FeatureSpec) -> FrozenEncoder:
    """The run's own copy of the frozen encoder.

    Raises:
        RunError: it is not the one the run was trained beside.
        WeightsError: it is missing or unreadable.
    """
    path = run.folder / "teacher.safetensors"
    encoder = load_encoder(path, spec.encoder)
    if encoder.sha256 != spec.weights_sha256:
        raise RunError(
            f"{path}: SHA-256 of the weights is {encoder.sha256[:12]}, but the run was trained beside "
            f"{spec.weights_sha256[:12]}"
        )
    return encoder


def starting_checkpoint(config: Config, name: str) -> Path | None:
    """The checkpoint that ``train.init`` names for the model ``name``; None where there is none.

    Raises:
        RunError: it is not a finished run, or it holds no such model.
    """
    if config.train.init is None:
        return None
    run = open_run(config.train.init)
    chosen = name if run.results == run.folder else run.names[0]
    if chosen not in run.names:
        raise RunError(f"train.init: {run.folder} holds no model {name!r}; it holds {', '.join(run.names)}")
    return find_checkpoint(run.folder / chosen)


def write_run_folder(
    config: Config, sources: Sources, source: FeatureSource, textures: TextureBank, fabric: Fabric
) -> None:
    """``config.yaml``, ``environment.json`` and the run's own copy of the teacher."""
    folder, spec, view_numbers = config.folder, source.spec, source.index.view_numbers
    folder.mkdir(parents=True, exist_ok=True)
    encoder = sources.encoder()
    beside = folder / "teacher.safetensors.part"
    weights = {
        name: tensor.detach().cpu().contiguous() for name, tensor in encoder.module.state_dict().items()
    }
    save_file(weights, beside)
    beside.replace(folder / "teacher.safetensors")
    facts = environment(
        fabric.device,
        precision=fabric_precision(config.train.precision, fabric.device),
        world_size=fabric.world_size,
        features=spec.to_json(),
        store_fingerprint=sources.fingerprint(),
        textures={"origin": textures.origin, "fingerprint": textures.fingerprint},
        caveats=caveats(config, spec, textures.origin) + ([config.run.note] if config.run.note else []),
    )
    write_json(folder / "environment.json", facts)
    beside = folder / "config.yaml.part"
    # categories and cameras by name: a store may grow, a run does not
    data = config.data.model_copy(update={"categories": tuple(sources.categories()), "views": view_numbers})
    beside.write_text(config.model_copy(update={"data": data}).to_yaml(), encoding="utf-8")
    beside.replace(folder / "config.yaml")


def caveats(config: Config, spec: FeatureSpec, textures: str) -> list[str]:
    """What a reader of the results must know: stand-ins that were asked for by name, borrowed weights."""
    found = []
    if config.train.init is not None:
        found.append(f"training starts from the weights of the run {config.train.init.name}")
    if spec.weights == "untrained":
        found.append("the teacher is an untrained, seeded random network, not ImageNet's")
    if textures.startswith("procedural"):
        found.append("the corruption textures are generated, not DTD's")
    return found


def announce(lines: Sequence[str]) -> None:
    """Say each caveat on a line of its own."""
    for line in lines:
        say(f"note: {line}")
