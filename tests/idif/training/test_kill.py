"""A training stopped by a signal at any step is resumed to the very same weights and log, byte for byte."""

import itertools
import multiprocessing
import os
import random
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import torch
from lightning_fabric import Fabric

import idif.kernels.winograd
from cli.terminal.signals import handle
from idif.config.loader import resolve
from idif.corruption.textures import load_textures
from idif.training.checkpoint import read_progress
from idif.training.checkpoint_files import find_checkpoint
from idif.training.loop import train
from idif.training.state import TrainingState
from tests.helpers.tiny_data import make_tiny_realiad, tiny_index
from tests.helpers.tiny_training import SMALL, idif_task, live_source

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such signals"),
]

INDEX = tiny_index(categories=("cup",), train=5, test=0)
EPOCHS, STEPS = 4, 12
SIZE = 64
"""From which on layer1 has tiles enough for Winograd's filtering."""
SETTINGS = {
    "epochs": EPOCHS,
    "batch_size": 2,
    "dropout": {"probability": 0.3},
    "ema": 0.9,
    "precision": "float32",
}


def run(home: str, name: str) -> None:
    """Train, from the checkpoint where there is one, by all that a CPU's training uses."""
    torch.set_num_threads(2)
    source = live_source(Path(home), INDEX, SIZE)
    textures = load_textures("procedural", SIZE, Path(home))
    config = resolve({"method": SMALL, "train": SETTINGS}, source="test")[0]
    fabric = Fabric(accelerator="cpu", devices=1)
    train(config, idif_task(config, source, textures, Path(home) / name), fabric)


def stopped_at_step(home: str, name: str, number: int, step: int) -> None:
    """As `run`, but the process gets the signal ``number`` when step ``step`` has been made."""
    signal.signal(signal.SIGTERM, handle)
    once, steps = TrainingState.advance, itertools.count(1)

    def stop(state: TrainingState) -> None:
        if next(steps) == step:
            os.kill(os.getpid(), number)
        once(state)

    with patch.object(TrainingState, "advance", stop):
        run(home, name)


def killed_while_saving(home: str, name: str, rename: int) -> None:
    """As `run`, but the process is killed right before the ``rename``-th time a checkpoint is renamed."""
    once, renames = os.replace, 0

    def replace(source: Any, target: Any) -> None:
        nonlocal renames
        renames += str(source).endswith(("checkpoint", "checkpoint.part"))
        if renames == rename:
            os.kill(os.getpid(), signal.SIGKILL)
        once(source, target)

    with patch("idif.training.checkpoint.os.replace", replace):
        run(home, name)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Data, and the run ``whole`` that nobody stopped."""
    place, threads = tmp_path_factory.mktemp("home"), torch.get_num_threads()
    make_tiny_realiad(place, INDEX)
    with patch.object(idif.kernels.winograd, "convolve", wraps=idif.kernels.winograd.convolve) as convolve:
        run(str(place), "whole")
    assert convolve.called
    yield place
    torch.set_num_threads(threads)


def outcome(folder: Path) -> tuple[bytes, bytes]:
    return (folder / "checkpoint" / "model.safetensors").read_bytes(), (folder / "log.jsonl").read_bytes()


def hit(target: Callable[..., None], *args: Any) -> int | None:
    """Run it in a process of its own; returns how that ended."""
    methods = multiprocessing.get_all_start_methods()
    context: Any = multiprocessing.get_context("forkserver" if "forkserver" in methods else "spawn")
    context.set_forkserver_preload([__name__])
    child = context.Process(target=target, args=args)
    child.start()
    child.join()
    code: int | None = child.exitcode
    return code


def test_stopped_at_random_steps(home: Path) -> None:
    rng = random.Random(0)
    for number, ended in ((signal.SIGTERM, 1), (signal.SIGKILL, -signal.SIGKILL)):
        name, step = f"by-{number.name}", rng.randint(4, STEPS)
        assert hit(stopped_at_step, str(home), name, number, step) == ended
        found = find_checkpoint(home / name)
        assert found is not None
        assert read_progress(found).step == (step - 1) // 3 * 3
        run(str(home), name)
        assert outcome(home / name) == outcome(home / "whole"), (number, step)


@pytest.mark.parametrize(
    ("rename", "left"),
    [
        pytest.param(3, ("checkpoint.previous", 1), id="between the renames"),
        pytest.param(4, ("checkpoint", 2), id="before the renames"),
    ],
)
def test_killed_while_a_checkpoint_is_saved(home: Path, rename: int, left: tuple[str, int]) -> None:
    """The first checkpoint takes one rename, each later one two."""
    name = f"saving-{rename}"
    assert hit(killed_while_saving, str(home), name, rename) == -signal.SIGKILL
    found = find_checkpoint(home / name)
    assert found is not None
    assert (found.name, read_progress(found).epoch) == left
    run(str(home), name)
    assert outcome(home / name) == outcome(home / "whole")


def test_fifty_kills_at_random_moments(home: Path) -> None:
    """Each run is hit again and again, wherever it is, until it gets through."""
    context = multiprocessing.get_context("forkserver")
    rng, kills, number = random.Random(1), 0, 0
    while kills < 50:
        name = f"random-{number}"
        child = context.Process(target=run, args=(str(home), name))
        child.start()
        time.sleep(rng.uniform(0.2, 3.0))
        child.kill()
        child.join()
        kills += child.exitcode == -signal.SIGKILL
        if child.exitcode == 0 or rng.random() < 0.3:
            run(str(home), name)
            assert outcome(home / name) == outcome(home / "whole"), kills
            number += 1
