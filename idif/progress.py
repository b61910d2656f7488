"""Callbacks of long computations: progress, and messages to the user."""

from collections.abc import Callable
from typing import Protocol


class Progress(Protocol):
    """Progress callback, called in the thread that does the work."""

    def __call__(self, done: int, total: int, what: str = "") -> None:
        """``done`` of ``total`` units are finished; ``what`` may name the current one."""
        ...


Notify = Callable[[str], None]
"""Message callback: takes one sentence for the user."""


def silent(done: int, total: int, what: str = "") -> None:
    """No-op progress callback."""


def unheard(sentence: str) -> None:
    """No-op `Notify`."""
