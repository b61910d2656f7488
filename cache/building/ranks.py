"""`Ranks`: division of work among the processes of one command, and their barrier."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch.distributed as dist

from idif.errors import CannotFinish

T = TypeVar("T")

LOOK_EVERY = 0.05
"""Polling interval of a barrier in seconds: a process blocked inside it handles no signals."""


@dataclass(frozen=True)
class Ranks:
    """One of ``world`` processes that work together.

    With more than one, `torch.distributed` is initialized, and all can access the same folder.
    """

    rank: int = 0
    world: int = 1

    @property
    def first(self) -> bool:
        """Whether this is the process that plans and publishes."""
        return self.rank == 0

    def share(self, items: Sequence[T]) -> list[T]:
        """This process's share, every ``world``-th item; the shares are disjoint and complete."""
        return list(items[self.rank :: self.world])

    def wait(self) -> None:
        """Barrier: return when every process has called this.

        Raises:
            CannotFinish: another process is gone.
        """
        if self.world == 1:
            return
        try:
            arrival = dist.barrier(async_op=True)
            assert arrival is not None
            while not arrival.is_completed():
                time.sleep(LOOK_EVERY)
            arrival.wait()
        except RuntimeError:
            raise CannotFinish(
                "another process of this command has stopped; the same command continues where they were"
            ) from None
