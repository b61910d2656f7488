"""Atomic writes: a file appears under its name complete and durable, or not at all."""

import contextlib
import errno
import json
import os
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

TEMPORARY = ".tmp"
"""Suffix of a file or folder that is being written beside its place; a killed process leaves it behind."""


@contextlib.contextmanager
def replacing(path: Path, *, unique: bool = False) -> Iterator[Path]:
    """A path beside ``path`` to write to; renamed to ``path`` on leaving, removed where an exception passes.

    Args:
        unique: use a name of its own, for processes that may write the same file at the same time. Without
            it, what a killed process left is overwritten by the next.
    """
    partial = path.with_name(f".{path.name}.{uuid.uuid4().hex}{TEMPORARY}") if unique else temporary(path)
    try:
        yield partial
        publish(partial, path)
    except BaseException:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)
        raise


def replace_file(path: Path, data: bytes | str) -> None:
    """Write a file atomically; text as UTF-8."""
    with replacing(path) as partial:
        partial.write_bytes(data.encode() if isinstance(data, str) else data)


def write_json(path: Path, value: Any) -> None:
    """Write a JSON file atomically. NaN and infinity are refused: they are not JSON."""
    replace_file(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def temporary(path: Path) -> Path:
    """Where ``path`` is written before it is complete; for writers that `replacing` does not fit."""
    return path.with_name(path.name + TEMPORARY)


def publish(partial: Path, path: Path) -> None:
    """Rename a complete file to ``path``, durable after a power cut."""
    with partial.open("r+b") as file:  # Windows syncs no file that is opened for reading
        os.fsync(file.fileno())
    os.replace(partial, path)
    _sync_folder(path.parent)


def _sync_folder(path: Path) -> None:
    """Make renames in a folder durable, where the system can."""
    if os.name == "posix":
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        except OSError as error:
            if error.errno != errno.EINVAL:  # some network file systems sync no folders
                raise
        finally:
            os.close(descriptor)
