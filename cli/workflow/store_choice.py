"""Resolves the store of `idif cache build` and `idif cache plan` from options and a config."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from cache.building.request import BuildRequest
from cache.format.object_store import store_path
from cli.workflow.sources import LIVE_ENCODER, LIVE_IMAGE_SIZE
from idif.config.loader import load_configs
from idif.config.sections import Config
from idif.data.arrays import StorageType
from idif.data.index import Split
from idif.datasets.config import DataConfig
from idif.datasets.readers import Reader
from idif.encoders.encode import EncoderSet
from idif.encoders.frozen import ENCODERS, FrozenEncoder, load_encoder
from idif.errors import ConfigError


@dataclass(frozen=True)
class StoreChoice:
    """The store requested by a user, before any data or weights are loaded."""

    data: DataConfig
    store: str | None
    """A folder or ``s3://BUCKET/PREFIX``."""
    encoders: tuple[str, ...]
    """Keys of `idif.encoders.frozen.ENCODERS`."""
    weights: tuple[str, ...]
    """Weights of all encoders, or ``NAME=WEIGHTS`` for one of them."""
    image_size: int

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
            ConfigError: no root or no store. Whatever the reader and `load_encoder` raise.
        """
        if self.data.root is None:
            raise ConfigError(
                "--root: expected the dataset's folder, or --config with data.root; got nothing"
            )
        if self.store is None:
            raise ConfigError(
                "--store: expected the store's place, or --config with cache.store; got nothing"
            )
        place = store_path(self.store)
        index = reader.read(self.data, split)
        encoders = load_encoders(self.encoders, self.weights)
        with_images = any(encoder.family.input == "image" for encoder in encoders)
        chosen = EncoderSet(encoders, self.image_size if with_images else None)
        return BuildRequest(self.data.root, index, place, chosen, storage, workers=workers, device=device)


def load_encoders(names: Sequence[str], weights: Sequence[str]) -> tuple[FrozenEncoder, ...]:
    """Load encoders with their weights.

    Args:
        weights: ``imagenet``, ``untrained`` or a file for all encoders, or ``NAME=WEIGHTS`` for one of them.

    Raises:
        ConfigError: there is no such encoder, one file is given for several, or none for one of them.
        WeightsError: as `load_encoder`.
    """
    for_all: dict[str, str] = {}
    for_one: dict[str, str] = {}
    for value in weights:
        name, separator, named = value.partition("=")
        if separator and name in names:
            for_one[name] = named
        elif len(names) == 1 or value in ("imagenet", "untrained"):
            for_all |= dict.fromkeys(names, value)
        else:
            raise ConfigError(
                f"--teacher-weights {value}: expected NAME=FILE with one of the encoders {', '.join(names)}"
            )
    chosen = for_all | for_one
    for name in names:
        if name not in ENCODERS:
            raise ConfigError(f"--encoder: there is no {name!r}; known: {', '.join(ENCODERS)}")
        if name not in chosen:
            raise ConfigError(f"--teacher-weights: expected weights of {name} too, e.g. {name}=untrained")
    return tuple(load_encoder(chosen[name], name) for name in names)


def choose_store(
    config: Path | None = None,
    overrides: Sequence[str] = (),
    *,
    data: dict[str, Any],
    store: str | None = None,
    encoders: Sequence[str] = (),
    weights: Sequence[str] = (),
    image_size: int | None = None,
    default_weights: str = "imagenet",
) -> StoreChoice:
    """The requested store: options take precedence over the config, and the config over defaults.

    Args:
        data: keys of the config's section ``data`` given as options; None if not given.

    Raises:
        ConfigError: the config cannot be used, or its runs (``matrix``) need different stores.
    """
    if overrides and config is None:
        raise ConfigError("--set: changes keys of a config; name one with --config")
    given = {key: value for key, value in data.items() if value is not None}
    configs = [Config()] if config is None else load_configs(config, overrides)
    choices = [
        StoreChoice(
            data=each.data.model_copy(update=given),
            store=store or (None if each.cache.store is None else str(each.cache.store)),
            encoders=tuple(encoders) or (each.teacher.encoder or LIVE_ENCODER,),
            weights=tuple(weights) or (each.teacher.weights or default_weights,),
            image_size=image_size or each.teacher.image_size or LIVE_IMAGE_SIZE,
        )
        for each in configs
    ]
    if any(choice != choices[0] for choice in choices):
        raise ConfigError(f"{config}: its runs need different stores; choose with options such as --store")
    return choices[0]
