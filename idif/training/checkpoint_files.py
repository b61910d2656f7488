"""Locations and progress of checkpoints, read without torch and without reading weights."""

from dataclasses import dataclass
from pathlib import Path

from idif.errors import RunError
from idif.sealed_json import read_sealed

CURRENT, PREVIOUS = "checkpoint", "checkpoint.previous"
NOTE = "checkpoint.json"
MODEL = "model.safetensors"
"""File of the weights."""


@dataclass(frozen=True)
class TrainingProgress:
    """Progress of a training at a checkpoint."""

    epoch: int
    """Epochs finished."""
    step: int
    """Optimizer steps made."""
    finished: bool
    """Whether this is the last epoch's."""


@dataclass(frozen=True)
class TrainingLength:
    """Length of a training by its config: epochs, or optimizer steps."""

    epochs: int
    steps: int | None
    """None: ``epochs`` decide."""

    def reached(self, progress: TrainingProgress) -> bool:
        """Whether a training came so far."""
        return progress.epoch >= self.epochs if self.steps is None else progress.step >= self.steps

    def completed(self, progress: TrainingProgress, *, may_end_early: bool) -> bool:
        """Whether a training is finished, also by this length, which may have grown since.

        Args:
            may_end_early: `idif.config.sections.Config.may_end_early`.
        """
        return progress.finished and (may_end_early or self.reached(progress))

    def share_text(self, progress: TrainingProgress) -> str:
        """Progress as text after the word epoch: ``5 of 50``, or ``5, step 15 of 2,000``."""
        if self.steps is None:
            return f"{progress.epoch} of {self.epochs}"
        return f"{progress.epoch}, step {progress.step:,} of {self.steps:,}"

    def text(self) -> str:
        """E.g. ``50 epochs`` or ``2,000 steps``."""
        number, unit = (self.epochs, "epoch") if self.steps is None else (self.steps, "step")
        return f"{number:,} {unit}{'' if number == 1 else 's'}"


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
        note = read_sealed(checkpoint / NOTE, recovery_hint(checkpoint), ("sha256",))
        digests = note.pop("sha256")
        return TrainingProgress(**note), dict(digests)
    except (ValueError, TypeError) as error:
        raise damaged(checkpoint, error) from None


def damaged(checkpoint: Path, error: Exception) -> RunError:
    """The error of a checkpoint that cannot be read."""
    if isinstance(error, OSError) and not isinstance(error, FileNotFoundError):
        # a disk or folder that refuses to be read says nothing about the checkpoint
        return RunError(f"{checkpoint}: cannot be read ({error.strerror or error})")
    return RunError(f"{checkpoint}: damaged checkpoint ({error}); {recovery_hint(checkpoint)}")


def recovery_hint(checkpoint: Path) -> str:
    """The end of a message about a damaged checkpoint: what the user can do."""
    previous = checkpoint.with_name(PREVIOUS)
    if checkpoint.name == CURRENT and previous.exists():
        return f"to go on from the one before, delete {checkpoint} and resume from {previous}"
    return "delete it to train again"
