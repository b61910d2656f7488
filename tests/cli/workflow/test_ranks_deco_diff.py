"""DeCo-Diff as torchrun starts it, on gloo: two processes learn what one does with the global batch."""

from pathlib import Path
from typing import Any

import pytest
import torch
from lightning_fabric import Fabric
from safetensors.torch import load_file

from cli.__main__ import run
from cli.workflow.sources import Sources
from idif.config.loader import load_config
from idif.config.sections import Config
from idif.runs.run import method_context
from idif.training.loop import _groups, step_inputs, train_step
from idif.training.optimizers import make_optimizer
from idif.training.run_log import read_log
from idif.training.state import StepModule
from idif.training.task import Task, build_method
from tests.cli.workflow.test_ranks import start
from tests.helpers.tiny_data import make_tiny_realiad, tiny_index, write_annotations


class Rank(Fabric):
    """One process that takes the part of another of two in turn."""

    global_rank = 0
    world_size = 2


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("ranks")
    index = tiny_index(categories=("bolt", "cup"), train=4, test=2, views=1, absent=False)
    make_tiny_realiad(home / "data", index)
    write_annotations(home / "data", index)
    (home / "c.yaml").write_text(
        f"data: {{root: '{(home / 'data').as_posix()}'}}\n"
        f"cache: {{store: '{(home / 's.zarr').as_posix()}'}}\n"
        "teacher: {encoder: taef2, weights: untrained, image_size: 32, crop_from: 40}\n"
        "method: {name: deco-diff, size: XS, width: 32, patch_sizes: [1, 2], patch_probabilities: [0.5, 0.5],"
        " gating: {used: true, loss: 0.1}}\n"
        "train: {epochs: 2, batch_size: 1, accumulate: 2, convolutions: direct, precision: float32,"
        " schedule: {name: constant, warmup: 0}, optimizer: {name: sgd}, lr: 0.05}\n"
        f"run: {{name: together, dir: '{(home / 'runs').as_posix()}', tracking: none}}\n",
        encoding="utf-8",
    )
    assert run(["cache", "build", "realiad", f"--config={home / 'c.yaml'}"]) == 0
    return home / "c.yaml"


def learned_alone(config: Config) -> tuple[list[float], dict[str, torch.Tensor]]:
    """Losses of all steps and final weights of one process that takes all parts of the global batch itself.

    Every process draws its own noise, so this one draws that of each.
    """
    sources = Sources(config, torch.device("cpu"))
    source = sources.unplaced(sources.categories(), "train")
    context = method_context(config, source.spec, source.index.view_numbers, sources.categories())
    task = Task("all", Path(), source, list(range(len(source.index))), context)
    method: Any = build_method(config, task)
    optimizer = make_optimizer(config.train, method.parameters())
    ranks = [Rank(accelerator="cpu", devices=1), Rank(accelerator="cpu", devices=1)]
    ranks[1].__dict__["global_rank"] = 1
    module, wrapped = ranks[0].setup(StepModule(method.train()), optimizer)
    losses, step = [], 0
    for epoch in range(config.train.epochs):
        parts = [_groups(task, config.train, epoch, rank) for rank in ranks]
        for groups in zip(*parts, strict=True):
            inputs = [
                given
                for rank, group in zip(ranks, groups, strict=True)
                for given in step_inputs(config.train, source.index, group, epoch, step, rank)
            ]
            losses.append(float(train_step(config.train, module, wrapped, ranks[0], inputs)["loss"]))
            step += 1
    return losses, dict(method.state_dict())


@pytest.mark.long
def test_two_processes_learn_what_one_does_with_the_same_global_batch(config: Path) -> None:
    assert start(["train", f"--config={config}"]) == [0, 0]
    folder = config.parent / "runs" / "together" / "all"
    logged = [line["loss"] for line in read_log(folder / "log.jsonl") if "loss" in line]
    losses, weights = learned_alone(load_config(config, []))
    assert len(logged) == len(losses) == 4, "eight samples by two processes, a batch of one, two accumulated"
    assert logged == pytest.approx(losses, rel=1e-4)
    together = load_file(folder / "checkpoint" / "model.safetensors")
    assert together.keys() == weights.keys()
    for name, values in weights.items():
        torch.testing.assert_close(together[name], values, rtol=1e-4, atol=1e-5)
