"""One publisher at a time in an object store: an object that says who it is."""

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
    """Hold the right to write into a store.

    An object store frees no lock of a process that died, so the claim of one stays. Whoever has its token
    takes it up; others are told where to continue, or what to remove.

    Args:
        token: known to nobody else.
        folder: where this machine keeps what is being published; told to others.

    Raises:
        StoreError: another holds it (named). CannotFinish: the object store cannot write conditionally.
    """
    lock = store / LOCK
    mine = {"token": token, "host": socket.gethostname(), "folder": str(folder)}
    while not lock.write_new(json.dumps(mine).encode()):
        try:
            holder = json.loads(lock.refreshed().read_bytes())
            theirs, who = holder["token"], f"{holder['host']} (from its folder {holder['folder']})"
        except FileNotFoundError:
            continue  # given back since
        except (ValueError, KeyError, TypeError):
            theirs, who = None, "another machine"
        if theirs == token:
            break
        raise StoreError(
            f"{store}: {who} is publishing here; wait for it or continue there, or remove {lock} "
            f"if that will never go on"
        )
    try:
        yield
    except BaseException:
        with contextlib.suppress(IdifError):  # what went wrong first is what to tell
            lock.unlink(missing_ok=True)
        raise
    lock.unlink(missing_ok=True)
