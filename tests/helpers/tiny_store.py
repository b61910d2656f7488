"""Builds stores of tiny data."""

from pathlib import Path
from typing import Any

from cache.building.build import ALONE, BuildReport, build_store
from cache.building.ranks import Ranks
from cache.building.request import BuildRequest
from cache.format.object_store import StorePath
from cli.__main__ import run
from idif.data.index import Index
from idif.encoders.encode import EncoderSet
from idif.encoders.frozen import FrozenEncoder
from idif.progress import Progress, silent
from tests.helpers.tiny_data import untrained


def tiny_request(
    data: Path,
    index: Index,
    store: StorePath,
    encoder: FrozenEncoder | None = None,
    *,
    image_size: int = 32,
    **options: Any,
) -> BuildRequest:
    """A store of one encoder's arrays, the untrained resnet18's when None."""
    encoders = EncoderSet((encoder or untrained(),), image_size)
    return BuildRequest(data, index, store, encoders, **{"shard_rows": 2, **options})


def build_tiny(
    data: Path,
    index: Index,
    store: StorePath,
    encoder: FrozenEncoder | None = None,
    *,
    ranks: Ranks = ALONE,
    progress: Progress = silent,
    **options: Any,
) -> BuildReport:
    """Build the store of `tiny_request`, which takes ``options``."""
    return build_store(tiny_request(data, index, store, encoder, **options), ranks=ranks, progress=progress)


def build_by_command(data: Path, store: Path, image_size: int, *more: str) -> int:
    """Build a store of untrained features as a user would; returns the exit code."""
    command = [
        "cache",
        "build",
        "realiad",
        f"--root={data}",
        f"--store={store}",
        f"--image-size={image_size}",
    ]
    return run([*command, f"--image-size={image_size}", "--teacher-weights=untrained", "--json", *more])
