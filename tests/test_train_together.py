"""Two processes that share a batch learn what one would: `idif train` as torchrun starts it, on gloo."""

import multiprocessing
import os
import socket
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from cli.__main__ import run
from idif.runlog import read_log
from tests.tiny_run import FAST

SETTINGS = [
    "train.holdout=0",
    "train.epochs=2",
    "train.lr=1e-4",
    "train.dropout.probability=0.3",
    "train.precision=float32",
    "method.norm=group",
    # its noise is drawn by each process for itself
    "method.bottleneck=false",
    "data.categories=[cup]",
]


def arguments(world: Path, name: str, batch_size: int) -> list[str]:
    given = [*SETTINGS, f"run.name={name}", f"train.batch_size={batch_size}"]
    return ["train", f"--config={world / 'c.yaml'}", *FAST, *(f"--set={setting}" for setting in given)]


def one_of(rank: int, size: int, port: int, command: list[str]) -> None:
    torch.set_num_threads(1)
    os.environ |= {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "GROUP_RANK": "0",
        "WORLD_SIZE": str(size),
        "LOCAL_WORLD_SIZE": str(size),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "TORCHELASTIC_RUN_ID": "test",
    }
    sys.exit(run(command))


@pytest.mark.long
def test_two_processes_learn_what_one_does(world: Path) -> None:
    assert run(arguments(world, "alone", 2)) == 0
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    methods = multiprocessing.get_all_start_methods()
    context = multiprocessing.get_context("forkserver" if "forkserver" in methods else "spawn")
    context.set_forkserver_preload([__name__])
    command = arguments(world, "together", 1)
    team = [context.Process(target=one_of, args=(rank, 2, port, command)) for rank in range(2)]
    for process in team:
        process.start()
    for process in team:
        process.join()
    assert [process.exitcode for process in team] == [0, 0]

    folders = [world / "runs" / name / "cup" for name in ("alone", "together")]
    alone, together = ([line for line in read_log(f / "log.jsonl") if "loss" in line] for f in folders)
    assert [line["step"] for line in together] == [1, 2, 3, 4, 5, 6]
    assert together[0]["loss"] == pytest.approx(alone[0]["loss"], rel=1e-5)
    assert together[0]["grad_norm"] == pytest.approx(alone[0]["grad_norm"], rel=1e-3)
    assert [line["loss"] for line in together] == pytest.approx([line["loss"] for line in alone], rel=1e-3)
    first, second = (load_file(f / "checkpoint" / "model.safetensors") for f in folders)
    assert all(torch.allclose(first[name], second[name], atol=5e-4) for name in first)
