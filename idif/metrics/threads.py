"""Work on many images in a few threads: OpenCV, torch and most of numpy release the interpreter's lock."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import TypeVar

_WORTH_A_THREAD = 1 << 18
"""Pixels below which another thread costs more than it saves."""

T = TypeVar("T")


def map_in_threads(work: Callable[[int, slice], T], items: int, pixels: int, threads: int) -> list[T]:
    """Results of ``work(thread, part)`` for at most ``threads`` parts of ``items`` that hold ``pixels``."""
    threads = max(1, min(threads, items, pixels // _WORTH_A_THREAD))
    edges = [items * thread // threads for thread in range(threads + 1)]
    parts = [slice(a, b) for a, b in pairwise(edges)]
    if threads == 1:
        return [work(0, parts[0])]
    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(work, range(threads), parts))
