"""`Task`: one model to train."""

from dataclasses import dataclass
from pathlib import Path

from idif.data.features import FeatureSource
from idif.methods.protocol import MethodContext


@dataclass(frozen=True)
class Task:
    """One model to train."""

    name: str
    """Category, or ``all``."""
    folder: Path
    """Where its checkpoint and log go."""
    source: FeatureSource
    rows: list[int]
    """Rows of the source to train on."""
    context: MethodContext
    """What the method is built for; its resources and encoders are on the device."""
    init: Path | None = None
    """Checkpoint whose weights a fresh training starts from; None starts from random ones."""
    init_submodule: str | None = None
    """The submodule that ``init`` holds the weights of; None means all of the model."""
