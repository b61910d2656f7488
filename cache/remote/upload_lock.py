"""Exclusive upload lock of a store in an object store, kept as an object that names its holder."""

import contextlib
import json
import socket
from collections.abc import Iterator
from pathlib import Path

from cache.format.layout import LOCK
from cache.format.object_store import ObjectPath
from idif.errors import IdifError, StoreError


@contextlib.contextmanager
def claim(store: ObjectPath, token: str, folder: Path) -> Iterator[None]:
    """Context that holds the upload lock of a store.

    An object store does not free the lock of a process that died. A process with the same token takes it
    over; for others the error names the machine to continue on, or the object to remove.

    Args:
        token: unique token of this staging folder.
        folder: the staging folder, for error messages of others.

    Raises:
        StoreError: another machine or folder holds the lock (named). CannotFinish: the object store cannot
            write conditionally.
    """
    lock = store / LOCK
    content = {"token": token, "host": socket.gethostname(), "folder": str(folder)}
    while not lock.write_new(json.dumps(content).encode()):
        try:
            holder = json.loads(lock.refreshed().read_bytes())
            held_token, who = holder["token"], f"{holder['host']} (from its folder {holder['folder']})"
        except FileNotFoundError:
            continue  # the lock was released meanwhile
        except (ValueError, KeyError, TypeError):
            held_token, who = None, "another machine"
        if held_token == token:
            break
        raise StoreError(
            f"{store}: {who} is publishing here; wait for it or continue there, or remove {lock} "
            f"if that will never go on"
        )
    try:
        yield
    except BaseException:
        with contextlib.suppress(IdifError):  # report the first error
            lock.unlink(missing_ok=True)
        raise
    lock.unlink(missing_ok=True)
