"""Device and processes of a command."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

import torch
import torch.distributed as dist

from cache.building.ranks import Ranks

PATIENCE = timedelta(days=7)
"""Timeout of builders waiting for the slowest one; a process that dies is detected immediately."""


def evaluation_device() -> torch.device:
    """The accelerator if there is one, else the CPU; with torchrun, a separate one for each process."""
    found = torch.accelerator.current_accelerator(check_available=True)
    if found is None:
        return torch.device("cpu")
    if "LOCAL_RANK" in os.environ:
        return torch.device(found.type, int(os.environ["LOCAL_RANK"]) % torch.accelerator.device_count())
    return found


def processes_here() -> int:
    """Number of processes that torchrun started on this machine; 1 without torchrun."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", "1"))


@contextmanager
def join_team() -> Iterator[Ranks]:
    """Context with the processes started by torchrun, or only this one."""
    world = int(os.environ.get("WORLD_SIZE", "1"))
    if world == 1:
        yield Ranks()
        return
    dist.init_process_group("gloo", timeout=PATIENCE)
    try:
        yield Ranks(dist.get_rank(), world)
    finally:
        dist.destroy_process_group()
