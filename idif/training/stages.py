"""The stages of one model's training: the student, then its segmentation head where there is one."""

from collections.abc import Callable
from dataclasses import replace

from lightning_fabric import Fabric

from idif.config.sections import Config
from idif.encoders.frozen import FrozenEncoder
from idif.methods.protocol import Method
from idif.progress import Progress, silent
from idif.training.checkpoint import find_checkpoint, read_progress
from idif.training.loop import Task, train
from idif.training.validation import ValidationResult

STUDENT = "student"
"""The student that a segmentation head is trained on: its folder below the model's own, its name in it."""


def train_stages(
    config: Config,
    task: Task,
    encoder: Callable[[], FrozenEncoder],
    fabric: Fabric,
    *,
    progress: Progress = silent,
    after_epoch: Callable[[Method, int], ValidationResult] | None = None,
) -> None:
    """Train a model to the last epoch of its last stage, from where it was stopped.

    Args:
        encoder: loads the frozen encoder, which the head needs on corrupted images.

    Raises:
        What `idif.training.loop.train` raises.
    """
    if config.method.head == "cosine":
        train(config, task, fabric, progress=progress, after_epoch=after_epoch)
        return
    method = config.method.model_copy(update={"head": "cosine"})
    first = replace(task, folder=task.folder / STUDENT)
    done = find_checkpoint(first.folder)
    if done is None or not read_progress(done).finished:
        first.folder.mkdir(parents=True, exist_ok=True)
        train(config.model_copy(update={"method": method}), first, fabric, progress=progress)
        done = find_checkpoint(first.folder)
    settings = config.train.model_copy(update={"epochs": config.train.head_epochs})
    teacher = encoder()
    teacher.module.to(fabric.device)
    second = replace(task, init=done, init_part=STUDENT, encoder=teacher)
    train(
        config.model_copy(update={"train": settings}),
        second,
        fabric,
        progress=progress,
        after_epoch=after_epoch,
    )
