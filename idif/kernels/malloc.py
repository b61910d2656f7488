"""Keeps the memory that a training step frees for the next one, where the C library is GNU's."""

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
    """Inside, memory that is freed stays with the process; says whether the C library has agreed.

    GNU's gives large blocks, from 32 MB on at the latest, back to the system and takes new ones, page by page
    and zeroed, a moment later. A training step on a CPU has dozens of them, and was seen to spend up to a
    third of its time there. What is kept is handed back in the end. Other C libraries are left as they are.
    """
    library = ctypes.CDLL(None) if sys.platform == "linux" else None
    if library is None or not hasattr(library, "mallopt") or not hasattr(library, "gnu_get_libc_version"):
        yield False
        return
    agreed = bool(library.mallopt(_MMAP_MAX, 0)) and bool(library.mallopt(_TRIM_THRESHOLD, _NEVER))
    try:
        yield agreed
    finally:
        # the thresholds that the library finds by itself once large blocks have been freed
        library.mallopt(_MMAP_MAX, _USUAL_MMAP_MAX)
        library.mallopt(_MMAP_THRESHOLD, _LARGEST_THRESHOLD)
        library.mallopt(_TRIM_THRESHOLD, 2 * _LARGEST_THRESHOLD)
        library.malloc_trim(0)
