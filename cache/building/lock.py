"""The lock of a store's folder, which allows one builder at a time."""

import contextlib
import errno
from collections.abc import Iterator
from pathlib import Path

from cache.format.layout import LOCK
from cache.format.sealed_files import write_failed
from idif.errors import StoreError
from idif.locks import LockHeld, file_lock

_NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP}


@contextlib.contextmanager
def builder_lock(store: Path, rank: int = 0) -> Iterator[None]:
    """Context that holds the write lock of a store. The system frees the lock of a process that died.

    Args:
        rank: rank among several builders; all others take their locks after the first has its own.

    Raises:
        StoreError: another process is building there (named), or the folder cannot be written.
    """
    with _locked(store, store / (LOCK if rank == 0 else f"build-{rank}.lock")):
        if rank == 0:
            # a builder that outlived the first builder of its build may still be writing
            for remaining in sorted(store.glob("build-*.lock")):
                with _locked(store, remaining):
                    pass
        yield


@contextlib.contextmanager
def _locked(store: Path, path: Path) -> Iterator[None]:
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(file_lock(path))
        except LockHeld as held:
            raise StoreError(f"{store}: {held} is building here; wait for it or stop it first") from None
        except OSError as error:
            if error.errno in _NO_LOCKS:
                raise StoreError(f"{path}: this file system cannot lock files ({error})") from None
            raise write_failed(path, error) from None
        yield
