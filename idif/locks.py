"""File locks that record their holder; the system frees the lock of a process that dies."""

import contextlib
import json
import os
import socket
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

HOLDER = ".holder"
"""Suffix of the file beside a lock that names its holder: some systems cannot read a locked file."""


class LockHeld(Exception):
    """Another process holds the lock; the text names it."""


@contextlib.contextmanager
def file_lock(path: Path) -> Iterator[str | None]:
    """Hold the lock file ``path`` (created if missing, removed at the end), without waiting for it.

    Yields:
        The previous holder, if it died while holding the lock; None if the lock was released.

    Raises:
        LockHeld: another process holds it.
        OSError: it cannot be written, or the file system has no locks.
    """
    lock = FileLock(path, timeout=0, thread_local=False)
    holder = path.with_name(path.name + HOLDER)
    while True:
        try:
            lock.acquire()
            break
        except Timeout:
            if path.exists():
                raise LockHeld(_read_holder(holder)) from None
            # the holder finished and removed it meanwhile
    try:
        dead = _read_holder(holder) if holder.exists() else None
        holder.write_text(json.dumps({"pid": os.getpid(), "host": socket.gethostname()}))
        yield dead
    finally:
        holder.unlink(missing_ok=True)
        if os.name == "posix":
            # While it is locked: filelock gives up a lock whose file is gone, so no two processes hold one.
            path.unlink(missing_ok=True)
        lock.release()


def _read_holder(path: Path) -> str:
    try:
        holder = json.loads(path.read_text())
        return f"process {holder['pid']} on {holder['host']}"
    except (OSError, ValueError, KeyError):
        return "another process"
