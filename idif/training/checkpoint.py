"""Checkpoints: written atomically, with the previous one as a backup, and checked by digest when read."""

import contextlib
import errno
import os
import pickle
import re
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import IO, Any, cast

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from idif.errors import RunError
from idif.files import (
    make_folder,
    remove_tree,
    rename,
    replacing,
    streaming,
    sync_tree,
    writing,
)
from idif.fingerprint import sha256_of_file
from idif.sealed_json import write_sealed
from idif.training.checkpoint_files import (
    CURRENT,
    MODEL,
    NOTE,
    PREVIOUS,
    TrainingProgress,
    damaged,
    read_note,
    recovery_hint,
)

PART = "checkpoint.part"
STATE = "training.pt"


def save_checkpoint(
    folder: Path, weights: dict[str, Tensor], state: dict[str, Any], reached: TrainingProgress
) -> None:
    """Write ``folder/checkpoint``, durable when this returns; an existing one is renamed to
    ``checkpoint.previous``.

    Args:
        folder: the run's folder of one category.
        weights: the method's state dict, as loaded by evaluation.
        state: everything else that resuming needs; only tensors, numbers and containers of them.
        reached: progress of the training.

    Raises:
        PathError, CannotFinish: as `idif.files.writing`; the checkpoints before are as they were.
    """
    part, current, previous = folder / PART, folder / CURRENT, folder / PREVIOUS
    with writing(current):
        try:
            remove_tree(part)
            make_folder(part)
            save_weights(part / MODEL, weights)
            with streaming(part / STATE) as file:
                torch.save(state, cast(IO[bytes], file))
            digests = {name: sha256_of_file(part / name) for name in (MODEL, STATE)}
            write_sealed(part / NOTE, asdict(reached) | {"sha256": digests})
        except BaseException:
            with contextlib.suppress(OSError):
                remove_tree(part)
            raise
        sync_tree(part)
        if current.exists():
            remove_tree(previous)
            rename(current, previous)
        rename(part, current)


def save_weights(path: Path, weights: Mapping[str, Tensor], *, unique: bool = False) -> None:
    """Write tensors as safetensors.

    Args:
        unique: see `idif.files.replacing`.

    Raises:
        PathError, CannotFinish: as `idif.files.writing`.
    """
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in weights.items()}
    with replacing(path, unique=unique) as partial:
        try:
            save_file(plain, partial)
        except SafetensorError as error:
            raise _as_os_error(error) from None


def _as_os_error(error: SafetensorError) -> OSError:
    """The failed write behind an error of safetensors, which states the system's number in its text."""
    number = re.search(r"os error ([0-9]+)", str(error))
    if number is None:
        return OSError(errno.EIO, str(error))
    return OSError(int(number[1]), os.strerror(int(number[1])))


def read_progress(checkpoint: Path) -> TrainingProgress:
    """Progress recorded in a checkpoint; every file is first compared with its digest.

    Raises:
        RunError: a file is missing or differs from the one that was written.
    """
    progress, digests = read_note(checkpoint)
    for name, digest in digests.items():
        try:
            found = sha256_of_file(checkpoint / name)
        except OSError as error:
            raise damaged(checkpoint, error) from None
        if found != digest:
            hint = recovery_hint(checkpoint)
            raise RunError(f"{checkpoint / name}: damaged, its SHA-256 is not the one recorded; {hint}")
    return progress


def load_weights(checkpoint: Path) -> dict[str, Tensor]:
    """The method's state dict, checked, on the CPU."""
    read_progress(checkpoint)
    return dict(load_file(checkpoint / MODEL))


def load_into(method: nn.Module, checkpoint: Path, submodule: str | None = None) -> None:
    """Load the weights of a checkpoint into a method, or only into its ``submodule``.

    Raises:
        RunError: the checkpoint is damaged, or its method was configured differently.
    """
    weights = load_weights(checkpoint)
    if submodule:
        weights = method.state_dict() | {f"{submodule}.{name}": value for name, value in weights.items()}
    try:
        method.load_state_dict(weights)
    except RuntimeError as error:
        reason = str(error).splitlines()[-1].strip()
        raise RunError(f"{checkpoint}: does not fit the run's config ({reason})") from None


def load_state(checkpoint: Path) -> dict[str, Any]:
    """The ``state`` passed to `save_checkpoint`, on the CPU.

    Raises:
        RunError: the file is none that torch reads without running code.
    """
    path = checkpoint / STATE
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
        raise RunError(
            f"{path}: no state of a training that can be read without running code ({type(error).__name__}); "
            f"{recovery_hint(checkpoint)}"
        ) from None
    return state
