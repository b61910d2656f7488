"""Writes HDF5 files that are complete or absent, also where the disk fails while the library writes."""

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import h5py

from idif.errors import PathError
from idif.files import Refusal, SteadyFile, streaming


@contextlib.contextmanager
def new_hdf5(
    path: Path, *, refused: Refusal = PathError, before: Callable[[], None] = lambda: None, **options: Any
) -> Iterator[tuple[h5py.File, SteadyFile]]:
    """Context with a file that becomes ``path`` on success.

    The library may crash the process where a write or a close fails, e.g. on a full disk. It therefore writes
    into a `SteadyFile`, whose ``check`` raises the error of an earlier write; call it after each block.

    Args:
        refused: see `idif.files.writing`.
        before: called when all is on the disk, just before the file gets its name.
        options: those of `h5py.File`.

    Raises:
        The exceptions of `idif.files.writing`.
    """
    with streaming(path, refused=refused) as out:
        file = h5py.File(out, "w", **options)
        try:
            yield file, out
        except BaseException:
            # a failure to close must not hide the original exception
            with contextlib.suppress(OSError, RuntimeError):
                file.close()
            raise
        file.close()
        out.finish()
        before()
