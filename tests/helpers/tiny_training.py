"""What tests that train IDIF on tiny data have in common."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from idif.config.sections import Config
from idif.corruption.textures import TextureBank
from idif.data.features import FeatureSource
from idif.data.index import Index
from idif.encoders.encode import EncoderSet
from idif.encoders.live import LiveFeatures
from idif.runs.run import method_context
from idif.training.task import Task
from tests.helpers.tiny_data import untrained

SMALL: dict[str, Any] = {
    "voxel": {"depth": 2, "height": 2, "width": 2, "channels": 16},
    "attention_heads": 2,
    "blocks": 1,
}
"""Section ``method`` of a config that trains in seconds."""


def live_source(root: Path, index: Index, size: int) -> LiveFeatures:
    """The untrained encoder's features, on the CPU."""
    return LiveFeatures(root, index, EncoderSet((untrained(),), size), torch.device("cpu"))


def idif_task(
    config: Config,
    source: FeatureSource,
    textures: TextureBank,
    folder: Path,
    rows: Sequence[int] | None = None,
) -> Task:
    """A training on ``rows`` of a source, or on all of it; the folder is made."""
    folder.mkdir(parents=True, exist_ok=True)
    context = method_context(config, source.spec, source.index.view_numbers, source.index.categories)
    context = replace(context, resources={"textures": textures})
    chosen = range(len(source.index)) if rows is None else rows
    return Task("cup", folder, source, list(chosen), context)
