"""One builder at a time: a lock that the system itself releases when its holder dies."""

import contextlib
import json
import os
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

from cache.format.layout import LOCK
from cache.format.sealed_files import write_failed
from idif.errors import StoreError

_FAR = 1 << 30
"""Windows locks bytes, and a locked byte cannot be read: lock one far behind the text."""


def _try_lock(descriptor: int) -> bool:
    try:
        if sys.platform == "win32":
            import msvcrt

            os.lseek(descriptor, _FAR, os.SEEK_SET)
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
            os.lseek(descriptor, 0, os.SEEK_SET)
        else:
            import fcntl

            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        return False
    return True


def _holder(path: Path) -> str:
    try:
        who = json.loads(path.read_text())
        return f"process {who['pid']} on {who['host']}"
    except (OSError, ValueError, KeyError):
        return "another process"


@contextlib.contextmanager
def builder_lock(store: Path, rank: int = 0) -> Iterator[None]:
    """Hold the right to write into a store. The lock of a process that died is free by itself.

    Args:
        rank: of a team's member; those after the first take theirs once the first has its own.

    Raises:
        StoreError: another process is building there (named), or the folder cannot be written.
    """
    with _locked(store, store / (LOCK if rank == 0 else f"build-{rank}.lock")):
        if rank == 0:
            # a member that outlived the first of its team may still be writing
            for left in sorted(store.glob("build-*.lock")):
                with _locked(store, left):
                    pass
        yield


@contextlib.contextmanager
def _locked(store: Path, path: Path) -> Iterator[None]:
    while True:
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            raise write_failed(path, error) from None
        try:
            if not _try_lock(descriptor):
                raise StoreError(f"{store}: {_holder(path)} is building here; wait for it or stop it first")
            # a holder that finished between our open and our lock has removed the file: lock the new one
            if _is_still(path, descriptor):
                break
        except OSError as error:
            os.close(descriptor)
            raise StoreError(f"{path}: this file system cannot lock files ({error})") from None
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)
    try:
        os.ftruncate(descriptor, 0)
        os.write(descriptor, json.dumps({"pid": os.getpid(), "host": socket.gethostname()}).encode())
        yield
    finally:
        if os.name == "posix":  # while still locked, so that nobody's new lock is removed
            path.unlink(missing_ok=True)
        os.close(descriptor)
        if os.name != "posix":
            with contextlib.suppress(OSError):
                path.unlink(missing_ok=True)


def _is_still(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False
