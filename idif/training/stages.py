"""Runs the stages of one model's training, each starting from the weights of the previous one."""

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from idif.config.sections import Config
from idif.encoders.frozen import FrozenEncoder
from idif.files import make_folder
from idif.methods.catalog import METHODS
from idif.methods.protocol import Stage
from idif.progress import Progress, silent
from idif.training.checkpoint import read_progress
from idif.training.checkpoint_files import TrainingLength, TrainingProgress, find_checkpoint
from idif.training.loop import AfterEpoch, OnEpoch, train
from idif.training.task import Task

if TYPE_CHECKING:
    # a type only: importing it takes seconds, and commands that train nothing import this module
    from lightning_fabric import Fabric


def stages_of(config: Config) -> tuple[Stage[Any], ...]:
    """The stages of a config's method, in order."""
    return METHODS[config.method.name].stages(config.method)


def stage_config(config: Config, stage: Stage[Any]) -> Config:
    """The config with a stage's method section, epochs and steps."""
    own = {} if stage.epochs is None else {"epochs": stage.epochs, "steps": stage.steps}
    settings = config.train.model_copy(update=own)
    return config.model_copy(update={"method": stage.config, "train": settings})


def stage_length(config: Config, stage: Stage[Any]) -> TrainingLength:
    """Length of a stage."""
    settings = stage_config(config, stage).train
    return TrainingLength(settings.epochs, settings.steps)


def last_length(config: Config) -> TrainingLength:
    """Length of the last stage, whose weights are evaluated."""
    return stage_length(config, stages_of(config)[-1])


def is_trained(progress: TrainingProgress, config: Config) -> bool:
    """Whether a checkpoint of the last stage is of the config's last epoch, or ``train.patience`` ended it.

    ``train.epochs`` or ``train.steps`` may have grown since a model was finished.
    """
    return last_length(config).completed(progress, may_end_early=config.may_end_early)


def train_stages(
    config: Config,
    task: Task,
    encoders: Callable[[], tuple[FrozenEncoder, ...]],
    fabric: "Fabric",
    *,
    progress: Progress = silent,
    after_epoch: AfterEpoch | None = None,
    on_epoch: OnEpoch | None = None,
) -> None:
    """Train a model to the last epoch of its last stage; resumes an interrupted training.

    Args:
        encoders: loads the frozen encoders, for a stage that runs them.
        after_epoch: callback of the last stage.
        on_epoch: callback of every stage.

    Raises:
        The exceptions of `idif.training.loop.train`.
    """
    stages = stages_of(config)
    for number, stage in enumerate(stages):
        last = number == len(stages) - 1
        here = task if last else replace(task, folder=task.folder / stage.name)
        done = find_checkpoint(here.folder)
        if not last and done is not None and read_progress(done).finished:
            continue
        if number > 0:
            before = find_checkpoint(task.folder / stages[number - 1].name)
            here = replace(here, init=before, init_submodule=stage.continues_in)
        if stage.runs_encoders:
            loaded = encoders()
            for encoder in loaded:
                encoder.module.to(fabric.device)
            here = replace(here, context=replace(here.context, encoders=loaded))
        make_folder(here.folder)
        chosen = stage_config(config, stage)
        train(
            chosen,
            here,
            fabric,
            progress=progress,
            after_epoch=after_epoch if last else None,
            on_epoch=on_epoch,
        )
