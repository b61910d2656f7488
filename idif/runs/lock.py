"""Locks of trainings: one process, or one team, trains a run or a model at a time."""

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path

from idif.errors import RunError
from idif.files import make_folder, write_failed
from idif.locks import LockHeld, file_lock

MODEL_LOCK = "training.lock"
"""Lock file in a model's folder while it is trained."""
POLL = 0.2
"""Seconds between two tries to get a lock."""


@contextlib.contextmanager
def run_lock(folder: Path, *, patience: float = 0.0) -> Iterator[None]:
    """Hold the lock of a run's folder, which need not exist: the lock file lies beside it.

    Args:
        folder: the run's folder.
        patience: seconds to wait for another holder.

    Raises:
        RunError: another process holds the lock, or it cannot be written.
    """
    path = folder.with_name(f".{folder.name}.{MODEL_LOCK}")
    make_folder(path.parent, RunError)
    with _held(path, folder, time.monotonic() + patience):
        yield


@contextlib.contextmanager
def model_lock(folder: Path) -> Iterator[None]:
    """Hold the lock of one model's folder, which exists.

    Raises:
        RunError: another process is training this model, or the folder cannot be written.
    """
    with _held(folder / MODEL_LOCK, folder, time.monotonic()):
        yield


@contextlib.contextmanager
def _held(path: Path, folder: Path, until: float) -> Iterator[None]:
    with contextlib.ExitStack() as stack:
        while True:
            try:
                stack.enter_context(file_lock(path))
                break
            except LockHeld as holder:
                if time.monotonic() >= until:
                    raise RunError(
                        f"{folder}: {holder} is training it; wait for that, or choose another run.name"
                    ) from None
            except OSError as error:
                raise write_failed(path, error, RunError) from None
            time.sleep(POLL)
        yield
