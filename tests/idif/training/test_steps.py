"""Steps of accumulated batches, epochs of several passes, optimizers; by a method that a formula predicts."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from idif.config.loader import resolve
from idif.config.sections import TrainConfig
from idif.data.batch import Batch
from idif.data.features import IMAGES
from idif.methods.catalog import METHODS
from idif.methods.protocol import Method, MethodContext, Needs, Scores, TrainedMethod
from idif.randomness import Draws
from idif.training.checkpoint import load_weights, read_progress
from idif.training.loop import draw_variants, step_inputs, train, train_step
from idif.training.optimizers import make_optimizer
from idif.training.run_log import read_log
from idif.training.state import StepModule
from idif.training.task import Task
from tests.helpers.stubs import InMemory


class ColorPredictor(TrainedMethod):
    """Learns weights of the three mean colors whose sum is 1; every sample's loss is its own."""

    given: list[tuple[tuple[str, ...], int, int]]
    """Sample ids, epoch and step of each batch."""

    def __init__(self) -> None:
        super().__init__()
        self.needs, self.given = Needs(training=(IMAGES,), scoring=(IMAGES,)), []
        self.weights = nn.Parameter(torch.tensor([0.1, -0.2, 0.3]))

    def training_step(self, batch: Batch, draws: Draws) -> dict[str, Tensor]:
        self.given.append((draws.sample_ids, draws.epoch, draws.step))
        colors = (batch.images.float() / 255).mean(dim=(1, 3, 4))
        return {"loss": (colors @ self.weights - 1).square().mean()}

    def score(self, batch: Batch) -> Scores:
        raise NotImplementedError

    def describe(self) -> dict[str, str]:
        raise NotImplementedError


SOURCE = InMemory(torch.ones(6, 2, dtype=torch.bool), torch.zeros(6, 2, dtype=torch.bool))


@pytest.fixture
def built(monkeypatch: pytest.MonkeyPatch) -> list[ColorPredictor]:
    """The methods that trainings have built, in order."""
    made: list[ColorPredictor] = []

    def build(config: Any, context: MethodContext) -> Method:
        made.append(ColorPredictor())
        return made[-1]

    monkeypatch.setitem(METHODS, "idif", replace(METHODS["idif"], build=build))
    return made


def learned(folder: Path, **settings: Any) -> Tensor:
    """Weights after a training with plain gradient descent at a constant rate."""
    plain = {"optimizer": {"name": "sgd", "momentum": 0.0}, "schedule": {"name": "constant"}, "warmup": 0.0}
    raw = {"train": {**plain, "lr": 0.1, "weight_decay": 0.0, "clip_norm": 100.0, **settings}}
    folder.mkdir()
    context = MethodContext(SOURCE.spec, SOURCE.index.view_numbers)
    task = Task("cup", folder, SOURCE, list(range(6)), context)
    config = resolve(raw | {"run": {"tracking": "none"}}, source="test")[0]
    train(config, task, Fabric(accelerator="cpu", devices=1))
    return load_weights(folder / "checkpoint")["weights"]


def test_two_half_batches_accumulated_give_the_whole_batch_s_gradient() -> None:
    fabric = Fabric(accelerator="cpu", devices=1)
    gradients, losses = [], []
    for accumulate in (1, 2):
        method = ColorPredictor()
        optimizer = torch.optim.SGD(method.parameters(), lr=1.0)
        module, wrapped = fabric.setup(StepModule(method), optimizer)
        settings = TrainConfig(accumulate=accumulate, clip_norm=100.0)
        batches = list(SOURCE.batches(range(4), 4 // accumulate))
        inputs = step_inputs(settings, SOURCE.index, batches, 0, 7, fabric)
        assert [step.draws.step for step in inputs] == [[7], [14, 15]][accumulate - 1]
        before = method.weights.detach().clone()
        losses.append(train_step(settings, module, wrapped, fabric, inputs))
        gradients.append(before - method.weights.detach())
    torch.testing.assert_close(gradients[1], gradients[0])
    assert gradients[0].abs().min() > 0
    assert losses[0].keys() == losses[1].keys() == {"loss", "grad_norm", "grad/own"}
    for name, value in losses[0].items():
        torch.testing.assert_close(losses[1][name], value)
    torch.testing.assert_close(losses[0]["grad_norm"], torch.linalg.vector_norm(gradients[0]))


def test_a_training_that_accumulates_learns_what_one_of_larger_batches_does(
    tmp_path: Path, built: list[ColorPredictor]
) -> None:
    whole = learned(tmp_path / "whole", epochs=3, batch_size=2)
    halves = learned(tmp_path / "halves", epochs=3, batch_size=1, accumulate=2)
    torch.testing.assert_close(halves, whole)
    steps = [read_log(tmp_path / name / "log.jsonl") for name in ("whole", "halves")]
    assert [line["step"] for line in steps[1]] == [line["step"] for line in steps[0]]
    assert [step for _, _, step in built[1].given] == list(range(18))


def test_passes_of_an_epoch_are_epochs_that_are_not_checkpointed(
    tmp_path: Path, built: list[ColorPredictor]
) -> None:
    passes = learned(tmp_path / "passes", epochs=2, sub_epochs=2, batch_size=4)
    epochs = learned(tmp_path / "epochs", epochs=4, batch_size=4)
    assert torch.equal(passes, epochs)
    assert built[0].given == built[1].given
    assert [epoch for _, epoch, _ in built[0].given] == [0, 0, 1, 1, 2, 2, 3, 3]
    reached = read_progress(tmp_path / "passes" / "checkpoint")
    assert (reached.epoch, reached.step, reached.finished) == (2, 8, True)
    log = [line for line in read_log(tmp_path / "passes" / "log.jsonl") if "loss" in line]
    assert [(line["epoch"], line["step"]) for line in log] == [(1 + n // 4, n + 1) for n in range(8)]
    timing = read_log(tmp_path / "passes" / "timing.jsonl")
    samples = [line["samples_per_s"] * line["seconds"] for line in timing]
    assert samples == pytest.approx([12, 12])


def test_optimizers_make_the_steps_of_their_formulas() -> None:
    """Two steps of SGD with momentum; the first of Adam and AdamW, which weigh decay differently."""
    start, gradient = torch.tensor([0.5, -2.0]), torch.tensor([0.3, 0.2])
    lr, decay = 0.1, 0.01

    def after(steps: int, **optimizer: Any) -> Tensor:
        weights = nn.Parameter(start.clone())
        train = TrainConfig.model_validate({"optimizer": optimizer, "lr": lr, "weight_decay": decay})
        chosen = make_optimizer(train, [weights])
        for _ in range(steps):
            weights.grad = gradient.clone()
            chosen.step()
        return weights.detach()

    velocity, wanted = torch.zeros(2), start
    for _ in range(2):
        velocity = 0.8 * velocity + gradient + decay * wanted
        wanted = wanted - lr * velocity
    torch.testing.assert_close(after(2, name="sgd", momentum=0.8), wanted)
    # the moments of a first step, corrected, are the gradient and its square
    adam = start - lr * torch.sign(gradient + decay * start)
    torch.testing.assert_close(after(1, name="adam", betas=(0.5, 0.9)), adam)
    adamw = start * (1 - lr * decay) - lr * torch.sign(gradient)
    torch.testing.assert_close(after(1, name="adamw"), adamw)
    assert not torch.equal(after(2, name="adam", betas=(0.1, 0.2)), after(2, name="adam"))


@pytest.mark.usefixtures("built")
def test_without_a_largest_norm_nothing_is_clipped(tmp_path: Path) -> None:
    free, wide, tight = (
        learned(tmp_path / str(norm), epochs=1, batch_size=2, clip_norm=norm) for norm in (None, 100.0, 1e-3)
    )
    assert torch.equal(free, wide)
    assert not torch.allclose(free, tight)


def test_variants_are_drawn_from_the_named_ones_of_the_source(monkeypatch: pytest.MonkeyPatch) -> None:
    source = InMemory(torch.ones(60, 1, dtype=torch.bool), torch.zeros(60, 1, dtype=torch.bool))
    rows = list(range(60))
    assert draw_variants(source, rows, 0, 0, ("plain",)) is None
    varied = replace(source.spec, variants=("plain", "rotated180", "shifted"))
    monkeypatch.setattr(InMemory, "spec", varied)
    assert set(draw_variants(source, rows, 0, 0) or ()) == {0, 1, 2}
    drawn = draw_variants(source, rows, 0, 0, ("plain", "shifted"))
    assert set(drawn or ()) == {0, 2}
    assert draw_variants(source, rows, 0, 1, ("plain", "shifted")) != drawn
