"""Ordered, bounded prefetching in worker threads."""

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")


def prefetch_map(function: Callable[[T], R], items: Iterable[T], *, workers: int, depth: int) -> Generator[R]:
    """``map(function, items)`` in order, computed by ``workers`` threads at most ``depth`` items ahead.

    An exception is raised at its item's position. The threads end with the iterator, whether it is exhausted,
    fails or is closed. Threads suit work that releases the GIL: decoding, hashing, reading.
    """
    pool = ThreadPoolExecutor(max_workers=workers, thread_name_prefix="ahead")
    source = iter(items)
    waiting: deque[Future[R]] = deque()
    try:
        waiting.extend(pool.submit(function, item) for item in islice(source, depth))
        while waiting:
            result = waiting.popleft().result()
            waiting.extend(pool.submit(function, item) for item in islice(source, 1))
            yield result
            del result  # otherwise the previous item would stay in memory beside the next one
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
