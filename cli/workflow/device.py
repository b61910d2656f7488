"""Which device a command computes on, and which processes it shares its work with."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

import torch
import torch.distributed as dist

from cache.building.ranks import Ranks

PATIENCE = timedelta(days=7)
"""How long builders wait for the slowest; a member that dies is noticed at once."""


def evaluation_device() -> torch.device:
    """The accelerator where there is one, else the CPU; with torchrun, each process has its own."""
    found = torch.accelerator.current_accelerator(check_available=True)
    if found is None:
        return torch.device("cpu")
    if "LOCAL_RANK" in os.environ:
        return torch.device(found.type, int(os.environ["LOCAL_RANK"]) % torch.accelerator.device_count())
    return found


def processes_here() -> int:
    """Processes that torchrun started on this machine; 1 without it."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", "1"))


@contextmanager
def join_team() -> Iterator[Ranks]:
    """The processes that torchrun started, or this one alone."""
    world = int(os.environ.get("WORLD_SIZE", "1"))
    if world == 1:
        yield Ranks()
        return
    dist.init_process_group("gloo", timeout=PATIENCE)
    try:
        yield Ranks(dist.get_rank(), world)
    finally:
        dist.destroy_process_group()
