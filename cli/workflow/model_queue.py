"""The models of a run as a work queue: processes that share the run's folder each take the next one.

A model is locked in its own folder while a process trains it. The processes have no other connection, so they
may be on any machines, and any number may join or leave.
"""

import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from cli.terminal.console import note
from idif.config.sections import Config
from idif.errors import RunError
from idif.files import make_folder, write_failed
from idif.locks import LockHeld, file_lock
from idif.runs.lock import MODEL_LOCK
from idif.training.checkpoint import read_progress
from idif.training.checkpoint_files import find_checkpoint
from idif.training.stages import is_trained

LOOK_EVERY = 2.0
"""Polling interval, in seconds, for models that other processes are training."""


def take_models(
    folders: Mapping[str, Path], is_done: Callable[[str], bool], trained_elsewhere: Callable[[str], None]
) -> Iterator[str]:
    """Yield names of models to train, each locked until the next is requested; ends when all are finished.

    A model whose process stops before finishing it is taken by the next process that polls.

    Args:
        folders: folder of each model, by name, in the order in which they are taken.
        is_done: whether a model needs no training any more.
        trained_elsewhere: called for each model that another process has finished.

    Raises:
        RunError: a folder cannot be written or locked.
    """
    unfinished = dict(folders)
    while unfinished:
        waited_for = []
        for name, folder in list(unfinished.items()):
            try:
                make_folder(folder)
                with file_lock(folder / MODEL_LOCK) as dead:
                    if is_done(name):
                        trained_elsewhere(name)
                    else:
                        if dead is not None:
                            note(f"note: {name}: {dead} has stopped; continued here")
                        yield name
            except LockHeld:
                waited_for.append(name)
            except OSError as error:
                raise write_failed(folder / MODEL_LOCK, error, RunError) from None
            else:
                del unfinished[name]
        if len(waited_for) == len(unfinished) and unfinished:
            time.sleep(LOOK_EVERY)


def is_finished(folder: Path, config: Config) -> bool:
    """Whether the model in a folder has been trained to the config's last epoch."""
    checkpoint = find_checkpoint(folder)
    return checkpoint is not None and is_trained(read_progress(checkpoint), config)
