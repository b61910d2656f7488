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
    """A temporary path beside ``path``; renamed to ``path`` on success, removed if an exception passes.

    Args:
        unique: use a unique name, for processes that may write the same file at the same time. Without it,
            the next process overwrites a file that a killed one left behind.
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


def apply_umask(path: Path) -> None:
    """Give a file the rights of any new one; some libraries write files that only their owner may read."""
    path.chmod(0o666 & ~_UMASK)


def _read_umask() -> int:
    """The process's umask, which can only be read by setting it."""
    umask = os.umask(0o077)
    os.umask(umask)
    return umask


_UMASK = _read_umask()
"""Read once: it belongs to the process, and other threads may be writing later."""


def temporary(path: Path) -> Path:
    """Temporary path under which ``path`` is written; for writers that cannot use `replacing`."""
    return path.with_name(path.name + TEMPORARY)


def publish(partial: Path, path: Path) -> None:
    """Rename a complete file to ``path``, durable after a power cut."""
    apply_umask(partial)
    with partial.open("r+b") as file:  # Windows syncs no file that is opened for reading
        os.fsync(file.fileno())
    os.replace(partial, path)
    _sync_folder(path.parent)


def _sync_folder(path: Path) -> None:
    """Make renames in a folder durable, if the system supports it."""
    if os.name == "posix":
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        except OSError as error:
            if error.errno != errno.EINVAL:  # some network file systems sync no folders
                raise
        finally:
            os.close(descriptor)
