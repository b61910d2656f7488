"""How long work tells how far it is, without knowing who listens."""

from typing import Protocol


class Progress(Protocol):
    """Called now and then while work goes on, from the thread that called it."""

    def __call__(self, done: int, total: int, what: str = "") -> None:
        """``done`` of ``total`` units are finished; ``what`` may name the current one."""
        ...


def silent(done: int, total: int, what: str = "") -> None:
    """The listener that hears nothing."""
