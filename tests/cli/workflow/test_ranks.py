"""`idif train` as torchrun starts it, on gloo: two processes that share each batch, or the categories."""

import itertools
import json
import multiprocessing
import os
import re
import signal
import socket
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import idif.training.loop
from cli.__main__ import run
from idif.training.run_log import read_log
from tests.helpers.tiny_run import FAST

KILL = getattr(signal, "SIGKILL", signal.SIGTERM)
"""What leaves a process no time for anything; Windows has one such signal."""
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


def one_of(
    rank: int, size: int, port: int, command: list[str], die_at_step: int | None, said: Path | None
) -> None:
    if said is not None:
        for descriptor, name in ((1, "stdout"), (2, "stderr")):
            os.dup2(os.open(said / name, os.O_WRONLY | os.O_CREAT | os.O_APPEND), descriptor)
    once = idif.training.loop.train_step
    steps = itertools.count()

    def fatal(*args: Any) -> Any:
        if rank == 1 and next(steps) == die_at_step:
            os.kill(os.getpid(), KILL)
        return once(*args)

    setattr(idif.training.loop, "train_step", fatal)  # noqa: B010 - mypy compares the types of an assignment
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


def start(command: list[str], die_at_step: int | None = None, said: Path | None = None) -> list[int | None]:
    """Exit codes of two processes that run a command together; the second may die by SIGKILL.

    What both print goes to ``stdout`` and ``stderr`` in the folder ``said``. A server that forks may be older
    than the test that asks it, so pytest's own capture need not see it.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    methods = multiprocessing.get_all_start_methods()
    context: Any = multiprocessing.get_context("forkserver" if "forkserver" in methods else "spawn")
    context.set_forkserver_preload([__name__])
    team = [
        context.Process(target=one_of, args=(rank, 2, port, command, die_at_step, said)) for rank in range(2)
    ]
    for process in team:
        process.start()
    for process in team:
        process.join()
    return [process.exitcode for process in team]


@pytest.mark.long
def test_two_processes_learn_what_one_does(world: Path) -> None:
    assert run(arguments(world, "alone", 2)) == 0
    assert start(arguments(world, "together", 1)) == [0, 0]

    folders = [world / "runs" / name / "cup" for name in ("alone", "together")]
    alone, together = ([line for line in read_log(f / "log.jsonl") if "loss" in line] for f in folders)
    assert [line["step"] for line in together] == [1, 2, 3, 4, 5, 6]
    assert together[0]["loss"] == pytest.approx(alone[0]["loss"], rel=1e-5)
    assert together[0]["grad_norm"] == pytest.approx(alone[0]["grad_norm"], rel=1e-3)
    assert [line["loss"] for line in together] == pytest.approx([line["loss"] for line in alone], rel=1e-3)
    first, second = (load_file(f / "checkpoint" / "model.safetensors") for f in folders)
    assert all(torch.allclose(first[name], second[name], atol=5e-4) for name in first)


def kept(folder: Path) -> dict[str, bytes]:
    """The files of each model that are the same for any process that trained it."""
    names = ("log.jsonl", "checkpoint/model.safetensors")
    return {
        f"{model}/{name}": (folder / model / name).read_bytes() for model in ("bolt", "cup") for name in names
    }


@pytest.mark.long
def test_two_processes_that_take_categories_train_what_one_does(
    world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also where one was killed in between: the other goes on with its model from the last checkpoint."""
    given = ["train.epochs=2", "train.batch_size=2", "train.holdout=0", "train.eval_every=2"]

    def command(name: str) -> list[str]:
        settings = [*given, f"run.name={name}", "train.distribute=categories", "train.precision=float32"]
        return ["train", f"--config={world / 'c.yaml'}", *FAST, *(f"--set={setting}" for setting in settings)]

    assert run([*command("by-one"), "--json"]) == 0
    alone = json.loads(capsys.readouterr().out)["runs"][0]["models"]
    runs = world / "runs"
    # the second process dies in its second epoch; the first goes on with what it had
    assert start([*command("by-two"), "--json"], die_at_step=4, said=tmp_path) == [0, -KILL]
    told = " ".join((tmp_path / "stderr").read_text(encoding="utf-8").split())
    assert re.search(r"note: (bolt|cup): process \d+ on \S+ has stopped; continued here", told)
    together = json.loads((tmp_path / "stdout").read_text(encoding="utf-8"))["runs"][0]["models"]
    same = ("name", "samples", "epochs", "steps", "loss", "s_auroc", "state")
    assert [{k: m[k] for k in same} for m in together] == [{k: m[k] for k in same} for m in alone]
    assert kept(runs / "by-two") == kept(runs / "by-one")
    assert not list((runs / "by-two").rglob("*.lock*"))


@pytest.mark.long
def test_the_survivor_of_a_team_ends_within_seconds(world: Path, tmp_path: Path) -> None:
    began = time.monotonic()
    command = [*arguments(world, "lost", 1), "--set=run.tracking=none", "--json"]
    assert start(command, die_at_step=1, said=tmp_path) == [3, -KILL]
    assert time.monotonic() - began < 120, "starting two processes included"
    assert (
        "another process of this command has stopped"
        in json.loads((tmp_path / "stdout").read_text())["error"]
    )
    assert "Traceback" not in (tmp_path / "stderr").read_text()


def test_a_mistake_that_every_process_makes_is_one_object_on_stdout(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    told = []
    for rank in ("0", "1"):
        monkeypatch.setenv("RANK", rank)
        assert run(["train", "--config=nowhere.yaml", "--json"]) == 2
        told.append(capsys.readouterr().out)
    assert json.loads(told[0])["exit_code"] == 2
    assert told[1] == ""
