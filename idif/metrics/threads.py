"""Work on many images in a few threads: OpenCV, torch and most of numpy let go of the interpreter's lock."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import TypeVar

_WORTH_A_THREAD = 1 << 18
"""Pixels below which another thread costs more than it saves."""

T = TypeVar("T")


def map_in_threads(work: Callable[[int, slice], T], items: int, pixels: int, lanes: int) -> list[T]:
    """``work(lane, part)`` for each of at most ``lanes`` parts of ``items`` things, which hold ``pixels``."""
    lanes = max(1, min(lanes, items, pixels // _WORTH_A_THREAD))
    edges = [items * lane // lanes for lane in range(lanes + 1)]
    parts = [slice(a, b) for a, b in pairwise(edges)]
    if lanes == 1:
        return [work(0, parts[0])]
    with ThreadPoolExecutor(lanes) as pool:
        return list(pool.map(work, range(lanes), parts))
