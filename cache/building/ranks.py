"""Several processes of one command: which items each takes, and how they wait for one another."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch.distributed as dist

from idif.errors import CannotFinish

T = TypeVar("T")

LOOK_EVERY = 0.05
"""Seconds between two looks at a barrier: while blocked inside it, a process handles no signal."""


@dataclass(frozen=True)
class Ranks:
    """One of ``world`` processes that work together; alone when there is only one.

    With more than one, `torch.distributed` has been initialised, and all reach the same folder.
    """

    rank: int = 0
    world: int = 1

    @property
    def first(self) -> bool:
        """True in the one process that plans and publishes."""
        return self.rank == 0

    def share(self, items: Sequence[T]) -> list[T]:
        """Every ``world``-th item: together the members have each item once."""
        return list(items[self.rank :: self.world])

    def wait(self) -> None:
        """Return when every member has called this.

        Raises:
            CannotFinish: another member is gone.
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
