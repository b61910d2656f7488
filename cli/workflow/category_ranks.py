"""Processes of one training that each take other models: who takes which, and who is still there."""

import json
import os
import secrets
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from multiprocessing.connection import Client, Connection, Listener, wait
from typing import Any, TypeVar

import torch.distributed as dist

from cli.workflow.device import join_team
from idif.errors import CannotFinish

T = TypeVar("T")
HERE = b"here"


class Crew:
    """One of ``world`` processes, or the only one; the first hears what the others have finished.

    They share no batch and no process group, so each trains as it would alone. The line between two processes
    closes when one of them dies, whatever it dies of.
    """

    def __init__(self, rank: int = 0, world: int = 1, lines: Mapping[int, Connection] | None = None) -> None:
        """``lines``: of the first process, one to each other; of another, the one to the first."""
        self.rank, self.world, self._lines = rank, world, dict(lines or {})
        self._talking = dict(self._lines)
        self.lost: list[int] = []
        """In the first process: ranks that stopped before they had finished their share."""

    @property
    def first(self) -> bool:
        """True in the process that writes the run's folder and shows the table."""
        return self.rank == 0

    def share(self, items: Sequence[T]) -> list[T]:
        """Every ``world``-th item: together the processes have each item once."""
        return list(items[self.rank :: self.world])

    def gather(self) -> None:
        """Return when every process has called this.

        Raises:
            CannotFinish: another process is gone; it is named.
        """
        for hears in (True, False):  # the first hears from all, then answers all
            for rank, line in self._lines.items():
                try:
                    if hears is self.first:
                        line.recv_bytes()
                    else:
                        line.send_bytes(HERE)
                except (EOFError, OSError):
                    raise CannotFinish(
                        f"rank {rank} of this training's {self.world} has stopped before the training began"
                    ) from None

    def report(self, model: dict[str, Any] | None) -> None:
        """Tell the first process of a model that is finished, or by None that this process's share is.

        Where the first process is gone there is nobody to tell; the model's own folder holds it all the same.
        """
        if not self.first:
            with suppress(OSError):
                self._lines[0].send_bytes(json.dumps(model).encode())

    def news(self, *, to_the_end: bool = False) -> Iterator[dict[str, Any]]:
        """In the first process: models that others have finished so far, or all that they still will."""
        while self.first and self._talking:
            ready = wait(list(self._talking.values()), None if to_the_end else 0)
            if not ready:
                return
            for rank, line in [(r, c) for r, c in self._talking.items() if c in ready]:
                try:
                    model = json.loads(line.recv_bytes())
                except (EOFError, OSError):
                    self.lost.append(rank)
                    model = None
                if model is None:
                    del self._talking[rank]
                else:
                    yield model


@contextmanager
def join_crew() -> Iterator[Crew]:
    """The processes that torchrun started, or this one alone.

    Their process group lives only until they have found one another: what trains must see none.
    """
    world = int(os.environ.get("WORLD_SIZE", "1"))
    if world == 1:
        yield Crew()
        return
    one_machine = os.environ.get("LOCAL_WORLD_SIZE") == str(world)
    lines: dict[int, Connection] = {}
    with join_team() as team:
        if team.first:
            key = secrets.token_bytes(32)
            with Listener(("127.0.0.1" if one_machine else "", 0), backlog=world, authkey=key) as door:
                dist.broadcast_object_list([door.address[1], key])
                for _ in range(world - 1):
                    line = door.accept()
                    lines[json.loads(line.recv_bytes())] = line
        else:
            found: list[Any] = [None, None]
            dist.broadcast_object_list(found)
            host = "127.0.0.1" if one_machine else os.environ["MASTER_ADDR"]
            lines[0] = Client((host, found[0]), authkey=found[1])
            lines[0].send_bytes(json.dumps(team.rank).encode())
        rank = team.rank
    try:
        yield Crew(rank, world, lines)
    finally:
        for line in lines.values():
            line.close()
