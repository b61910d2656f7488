"""`Task`: one model to train, and the new method of it."""

from dataclasses import dataclass
from pathlib import Path

import torch

from idif.config.sections import Config
from idif.data.features import FeatureSource, check_arrays
from idif.methods.catalog import METHODS
from idif.methods.protocol import Method, MethodContext


@dataclass(frozen=True)
class Task:
    """One model to train."""

    name: str
    """Category, or ``all``."""
    folder: Path
    """Folder of the checkpoint and log."""
    source: FeatureSource
    rows: list[int]
    """Rows of the source to train on."""
    context: MethodContext
    """Context that the method is built for; its resources and encoders are on the device."""
    init: Path | None = None
    """Checkpoint whose weights a new training starts from; None: random initialization."""
    init_submodule: str | None = None
    """The submodule whose weights ``init`` contains; None means the whole model."""
    variants: tuple[str, ...] = ()
    """Variants of the source that training draws from; empty: all that it has."""
    balanced: bool = False
    """Whether every batch has as many normal as anomalous samples."""


def build_method(config: Config, task: Task) -> Method:
    """A new method of a task, initialized from ``train.seed``.

    Raises:
        StoreMismatch: the source lacks arrays that the method needs for training.
    """
    torch.manual_seed(config.train.seed)
    method = METHODS[config.method.name].build(config.method, task.context)
    check_arrays(method.needs.training, task.source.spec)
    return method
