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
