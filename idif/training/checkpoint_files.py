"""Locations and progress of checkpoints, read without torch and without reading weights."""

import json
from dataclasses import dataclass
from pathlib import Path

from idif.errors import RunError

CURRENT, PREVIOUS = "checkpoint", "checkpoint.previous"
NOTE = "checkpoint.json"


@dataclass(frozen=True)
class TrainingProgress:
    """Progress of a training at a checkpoint."""

    epoch: int
    """Epochs finished."""
    step: int
    """Optimizer steps made."""
    finished: bool
    """Whether this is the last epoch's."""


def find_checkpoint(folder: Path) -> Path | None:
    """The newest checkpoint of a category's folder; None where there is none.

    The one before is taken only where a stop fell between the two renames of
    `idif.training.checkpoint.save_checkpoint`.
    """
    return next((folder / name for name in (CURRENT, PREVIOUS) if (folder / name).exists()), None)


def read_note(checkpoint: Path) -> tuple[TrainingProgress, dict[str, str]]:
    """Progress of a checkpoint, and the recorded SHA-256 of each of its files, which are not read.

    Raises:
        RunError: the note is missing or not one.
    """
    try:
        note = json.loads((checkpoint / NOTE).read_text(encoding="utf-8"))
        digests = note.pop("sha256")
        return TrainingProgress(**note), dict(digests)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise damaged(checkpoint, error) from None


def damaged(checkpoint: Path, error: Exception) -> RunError:
    """The error of a checkpoint that cannot be read."""
    return RunError(f"{checkpoint}: damaged checkpoint ({error}){recovery_hint(checkpoint)}")


def recovery_hint(checkpoint: Path) -> str:
    """The end of a message about a damaged checkpoint: what the user can do."""
    previous = checkpoint.with_name(PREVIOUS)
    if checkpoint.name == CURRENT and previous.exists():
        return f"; to go on from the one before, delete {checkpoint} and resume from {previous}"
    return "; delete it to train again"
