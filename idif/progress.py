"""Callbacks of long computations: progress, and messages to the user."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Protocol


class Progress(Protocol):
    """Progress callback, called in the thread that does the work."""

    def __call__(self, done: int, total: int, what: str = "") -> None:
        """``done`` of ``total`` units are finished; ``what`` may name the current one."""
        ...


class ProgressBar(Protocol):
    """Makes the progress callback of one long step."""

    def __call__(self, title: str, unit: str) -> AbstractContextManager[Progress]:
        """The callback, while the context is entered."""
        ...


Notify = Callable[[str], None]
"""Message callback: takes one sentence for the user."""


def silent(done: int, total: int, what: str = "") -> None:
    """No-op progress callback."""


def no_bar(title: str, unit: str) -> AbstractContextManager[Progress]:
    """`ProgressBar` that shows nothing."""
    return nullcontext(silent)


class Tally:
    """Counts the finished units of several loops together, for one progress callback."""

    def __init__(self, progress: Progress, total: int) -> None:
        self._progress, self._total, self._done = progress, total, 0

    def add(self, count: int, what: str = "") -> None:
        """``count`` more units are finished; ``what`` may name the current one."""
        self._done += count
        self._progress(self._done, self._total, what)


def unheard(sentence: str) -> None:
    """No-op `Notify`."""
