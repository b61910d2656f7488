"""Resolves the store of `idif cache build` and `idif cache plan` from options and a config."""

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from cache.building.request import BuildRequest
from cache.format.manifest import RootManifest
from cache.format.object_store import StorePath, store_path
from cli.workflow.encoders import LIVE_ENCODER, image_size_of, load_encoders, outline_encoders
from idif.config.loader import load_configs
from idif.config.sections import Config
from idif.data.arrays import StorageType
from idif.data.features import IMAGES, FeatureSpec
from idif.data.index import Index, Split
from idif.datasets.config import DataConfig
from idif.datasets.readers import Reader
from idif.encoders.encode import EncoderSet
from idif.encoders.frozen import encoder_names
from idif.encoders.options import EncoderOptions
from idif.encoders.weld.catalog import with_full_tokens
from idif.errors import ConfigError, StoreMismatch
from idif.methods.catalog import METHODS
from idif.runs.run import method_context


@dataclass(frozen=True)
class StoreChoice:
    """The store requested by a user, before any data or weights are loaded."""

    data: DataConfig
    store: str | None
    """A folder or ``s3://BUCKET/PREFIX``."""
    encoders: tuple[str, ...]
    """Names as in `idif.encoders.frozen.find_family`."""
    weights: tuple[str, ...]
    """Weights of all encoders, or ``NAME=WEIGHTS`` for one of them."""
    image_size: int | None
    """None: the first encoder's default."""
    options: EncoderOptions
    """Options of the only encoder."""
    images: bool | None
    """Whether the store holds the clean images; None: if ``readers`` read them, or there are none."""
    variants: tuple[str, ...] = ()
    """Variants of the images, ``plain`` first; empty: no axis ``variant``."""
    readers: tuple[Config, ...] = field(default=(), compare=False)
    """Configs whose methods shall learn from the store."""

    def request(
        self,
        reader: Reader,
        *,
        split: Split | None = None,
        storage: StorageType = "float16",
        workers: int | None = None,
        device: torch.device | None = None,
    ) -> BuildRequest:
        """Read the index and load the encoders.

        Raises:
            ConfigError: no root or no store, or a method cannot learn from the store. Whatever the reader
                and `load_encoder` raise.
        """
        if self.data.root is None:
            raise ConfigError(
                "--root: expected the dataset's folder, or --config with data.root; got nothing"
            )
        if self.store is None:
            reader.categories(self.data)  # a folder that is no dataset is the first thing to be said
            raise ConfigError(
                "--store: expected the store's place, or --config with cache.store; got nothing"
            )
        place = store_path(self.store)
        index = reader.read(self.data, split)
        outline = self.outline()
        # before the weights are loaded, which may take minutes
        needed = [arrays_needed(config, outline.spec(storage), index) for config in self.readers]
        asked = not needed or any(IMAGES in arrays for arrays in needed)
        encoders = load_encoders(self.encoders, self.weights, self.options, reader, self.data)
        stores_images = asked if self.images is None else self.images
        chosen = replace(outline, encoders=encoders, stores_images=stores_images)
        return BuildRequest(self.data.root, index, place, chosen, storage, workers=workers, device=device)

    def check_views(self, place: StorePath) -> None:
        """Refuse ``data.views`` that are not those of the store, if it exists.

        Raises:
            StoreMismatch: as said. StoreDamaged: the store's manifest differs from the written one.
        """
        if self.data.views is None:
            return
        with contextlib.suppress(FileNotFoundError):
            numbers = RootManifest.load(place).view_numbers
            if tuple(sorted(set(self.data.views))) != numbers:
                views = list(self.data.views)
                raise StoreMismatch(f"data.views: {views}, but {place} holds views {list(numbers)}")

    def outline(self) -> EncoderSet:
        """The encoders and image settings without any weights: the arrays of the store follow from them.

        Raises:
            ConfigError: as `outline_encoders`, or the settings do not fit the encoders.
        """
        encoders = outline_encoders(self.encoders, self.weights, self.options)
        return EncoderSet(encoders, image_size_of(encoders, self.image_size), variants=self.variants)


def arrays_needed(config: Config, features: FeatureSpec, index: Index) -> set[str]:
    """Names of the arrays that a config's method reads.

    Raises:
        ConfigError: the method cannot be built for these features, or they lack an array that it reads.
    """
    context = method_context(config, features, index.view_numbers, index.categories)
    with torch.random.fork_rng(devices=[]):
        needs = METHODS[config.method.name].build(config.method, context).needs
    needed = {*needs.training, *needs.scoring}
    lacking = sorted(needed - {*features.arrays})
    if lacking:
        raise ConfigError(
            f"method.name: {config.method.name} reads {', '.join(lacking)}, but the encoder gives "
            f"{', '.join(features.features)}; see teacher.taps and teacher.neck"
        )
    return needed


def choose_store(
    config: Path | None = None,
    overrides: Sequence[str] = (),
    *,
    data: dict[str, Any],
    store: str | None = None,
    encoders: Sequence[str] = (),
    weights: Sequence[str] = (),
    image_size: int | None = None,
    options: Mapping[str, Any] | None = None,
    full_tokens: bool = False,
    images: bool | None = None,
    default_weights: str = "imagenet",
    default_encoder: str = LIVE_ENCODER,
) -> StoreChoice:
    """The requested store: options take precedence over the config, and the config over defaults.

    Args:
        data: keys of the config's section ``data`` given as options; None if not given.
        options: keys of the config's section ``teacher`` given as options; None if not given.
        full_tokens: whether encoders of video give all tokens.
        images: whether the store holds the clean images.

    Raises:
        ConfigError: the config cannot be used, its runs (``matrix``) need different stores, or no encoder has
            tokens for ``full_tokens``.
    """
    if overrides and config is None:
        raise ConfigError("--set: changes keys of a config; name one with --config")
    given = {key: value for key, value in data.items() if value is not None}
    chosen = {key: value for key, value in (options or {}).items() if value is not None}
    configs = [Config()] if config is None else load_configs(config, overrides)
    choices = [
        StoreChoice(
            data=each.data.model_copy(update=given),
            store=store or (None if each.cache.store is None else str(each.cache.store)),
            encoders=tuple(
                one
                for name in encoders or (each.teacher.encoder or default_encoder,)
                for one in encoder_names(name)
            ),
            weights=tuple(weights) or (each.teacher.weights or default_weights,),
            image_size=image_size or each.teacher.image_size,
            options=each.teacher.model_copy(update=chosen).options(),
            images=each.cache.images if images is None else images,
            variants=each.cache.variants,
            readers=tuple(reader for reader in configs if "method" in reader.model_fields_set),
        )
        for each in configs
    ]
    if any(choice != choices[0] for choice in choices):
        raise ConfigError(f"{config}: its runs need different stores; choose with options such as --store")
    (choice, *_) = choices
    if full_tokens:
        encoders = with_full_tokens(choice.encoders)
        if encoders == choice.encoders:
            raise ConfigError(
                "--full-tokens: expected an encoder of video that averages its tokens, got "
                f"{', '.join(encoders)}"
            )
        choice = replace(choice, encoders=encoders)
    return choice
