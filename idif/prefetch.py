"""Work done ahead in threads, handed over in order, never more of it than stated."""

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")


def prefetch_map(function: Callable[[T], R], items: Iterable[T], *, workers: int, depth: int) -> Generator[R]:
    """``map(function, items)`` in order, computed by ``workers`` threads at most ``depth`` items ahead.

    An exception is raised in its item's turn. When the iterator ends, fails or is closed, the threads are
    gone. Threads fit what releases the interpreter's lock: decoding, hashing, reading.
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
            del result  # else it would live on beside its successor
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
