"""Callbacks by which long work reports: progress, and sentences for people."""

from collections.abc import Callable
from typing import Protocol


class Progress(Protocol):
    """Progress callback, called in the thread that does the work."""

    def __call__(self, done: int, total: int, what: str = "") -> None:
        """``done`` of ``total`` units are finished; ``what`` may name the current one."""
        ...


Notify = Callable[[str], None]
"""Takes a sentence that a user should read."""


def silent(done: int, total: int, what: str = "") -> None:
    """No-op progress callback."""


def unheard(sentence: str) -> None:
    """No-op `Notify`."""
