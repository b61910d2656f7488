"""Lets glibc reuse the memory freed by a training step instead of returning it to the system."""

import ctypes
import sys
from collections.abc import Iterator
from contextlib import contextmanager

# <malloc.h>
_TRIM_THRESHOLD, _MMAP_THRESHOLD, _MMAP_MAX = -1, -3, -4
_NEVER = -1
_LARGEST_THRESHOLD = 32 * 1024 * 1024
_USUAL_MMAP_MAX = 65_536


@contextmanager
def keep_freed_memory() -> Iterator[bool]:
    """Context in which freed memory stays with the process; yields whether the C library supports it.

    By default glibc returns large blocks, at the latest from 32 MB on, to the system and soon requests new
    ones, zeroed page by page. A training step on a CPU has dozens of them and spent up to a third of its time
    there. The memory is returned at the end. Other C libraries are not affected.
    """
    library = ctypes.CDLL(None) if sys.platform == "linux" else None
    if library is None or not hasattr(library, "mallopt") or not hasattr(library, "gnu_get_libc_version"):
        yield False
        return
    agreed = bool(library.mallopt(_MMAP_MAX, 0)) and bool(library.mallopt(_TRIM_THRESHOLD, _NEVER))
    try:
        yield agreed
    finally:
        # the values that glibc itself adopts after large blocks have been freed
        library.mallopt(_MMAP_MAX, _USUAL_MMAP_MAX)
        library.mallopt(_MMAP_THRESHOLD, _LARGEST_THRESHOLD)
        library.mallopt(_TRIM_THRESHOLD, 2 * _LARGEST_THRESHOLD)
        library.malloc_trim(0)
