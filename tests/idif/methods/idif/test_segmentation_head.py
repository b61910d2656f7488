"""The segmentation head: a second stage that leaves the student alone, learns defects, resumes exactly."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning_fabric import Fabric
from safetensors.torch import load_file

from cli.__main__ import run
from idif.config.loader import resolve
from idif.config.sections import Config, EvalConfig
from idif.corruption.textures import load_textures
from idif.data.batch import Batch
from idif.encoders.encode import EncoderSet
from idif.encoders.frozen import FrozenEncoder
from idif.evaluation.scoring import Scorer, reduce_maps
from idif.inference.export_graph import Graph
from idif.methods.catalog import METHODS
from idif.methods.idif.perturbation import Perturbation, PerturbedBatch
from idif.methods.idif.segmentation_head import SegmentedIDIF
from idif.methods.protocol import Method, MethodContext
from idif.randomness import Draws
from idif.training.run_log import read_log
from idif.training.stages import train_stages
from idif.training.task import Task
from idif.training.validation import ValidationResult
from tests.helpers.tiny_data import tiny_index, untrained
from tests.helpers.tiny_run import FAST
from tests.helpers.tiny_training import SMALL, idif_task, live_source

SIZE = 32
INDEX = tiny_index(categories=("cup",), train=4, test=0)


def config(**settings: Any) -> Config:
    method = SMALL | {"head": "segmentation", "head_epochs": 5}
    train = {"epochs": 1, "batch_size": 3, "lr": 2e-3} | settings
    return resolve({"method": method, "train": train}, source="test")[0]


@pytest.fixture(scope="module")
def task(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Task:
    place = tmp_path_factory.mktemp("run")
    source = live_source(data, INDEX, SIZE)
    return idif_task(config(), source, load_textures("procedural", SIZE, place), place)


def encoders() -> tuple[FrozenEncoder, ...]:
    return (untrained(),)


def method() -> SegmentedIDIF:
    torch.manual_seed(0)
    spec = EncoderSet(encoders(), SIZE).spec("float32")
    built = METHODS["idif"].build(config().method, MethodContext(spec, (1, 2, 3)))
    assert isinstance(built, SegmentedIDIF)
    return built.eval()


def batch_of(samples: int) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    generator = torch.Generator().manual_seed(1)
    images = torch.rand(samples, 3, 3, SIZE, SIZE, generator=generator)
    shapes = {array.name: (samples, 3, *array.shape) for array in untrained().arrays(SIZE)}
    return images, {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}


@torch.no_grad()
def test_maps_are_probabilities_and_dropped_views_have_no_influence() -> None:
    model, (images, features) = method(), batch_of(2)
    mask = torch.tensor([[True, True, False], [True, False, True]])
    maps = model.anomaly_maps(model.encode(images, mask), features, mask)
    assert maps.shape == (2, 3, SIZE, SIZE)
    assert not maps[~mask].any()
    assert ((maps[mask] > 0) & (maps[mask] < 1)).all()
    images[~mask] = 0.5
    for x in features.values():
        x[~mask] = 7.0
    assert torch.equal(maps, model.anomaly_maps(model.encode(images, mask), features, mask))

    choices = torch.stack([mask, torch.tensor([[False, True, False], [False, False, False]])])
    encoded = model.encode(images, torch.ones(2, 3, dtype=torch.bool))
    found = model.subset_maps(encoded, features, choices)
    assert len(found) == 5
    assert torch.allclose(found[:4], maps[mask], atol=1e-6)


@torch.no_grad()
def test_the_traceable_form_gives_the_maps_of_the_method() -> None:
    model, (images, features) = method(), batch_of(2)
    mask = torch.tensor([[True, True, False], [True, False, True]])
    wanted = model.anomaly_maps(model.encode(images, mask), features, mask)
    torch.testing.assert_close(model.export_module()(images, features, mask), wanted, atol=1e-6, rtol=1e-4)


@torch.no_grad()
def test_the_own_view_score_is_the_mean_of_the_100_highest_pixels_also_when_exported() -> None:
    model, settings = method(), EvalConfig(score="method")
    maps = torch.rand(2, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0))
    wanted = maps.flatten(2).sort(descending=True).values[..., :100].mean(dim=2)
    torch.testing.assert_close(reduce_maps(settings, model, maps), wanted)
    few = maps[..., :9, :9]
    torch.testing.assert_close(reduce_maps(settings, model, few), few.mean(dim=(2, 3)))
    assert model.describe()["method_view_score"] == "mean of the 100 highest pixels"
    assert EvalConfig().score == "max"

    teacher, (images, _) = untrained(), batch_of(2)
    stored, mask = (255 * images).byte(), torch.tensor([[True, True, False], [True, False, True]])
    graph = Graph(teacher, model.export_module(), Scorer(settings, model, torch.device("cpu")))
    found, of_views, of_samples = graph(stored, mask)
    wanted = found.flatten(2).sort(descending=True).values[..., :100].mean(dim=2)
    torch.testing.assert_close(of_views[mask], wanted[mask])
    torch.testing.assert_close(of_samples, wanted.where(mask, wanted.new_tensor(0)).amax(dim=1))


def test_a_single_view_can_be_learned_from() -> None:
    model, (images, features) = method().train(), batch_of(1)
    mask = torch.tensor([[False, True, False]])
    loss = model.losses(images, features, mask, torch.zeros(1, 3, SIZE, SIZE, dtype=torch.bool))["loss"]
    loss.backward()
    assert {name.split(".")[0] for name, p in model.named_parameters() if p.grad is not None} == {"head"}


def test_the_loss_is_that_of_the_definition(monkeypatch: pytest.MonkeyPatch) -> None:
    """Focal (gamma 4) and L1 on the mask shrunk to the finest features, kept views alone."""
    model, (images, features) = method(), batch_of(1)
    logits = torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(2))
    monkeypatch.setattr(model.head, "forward", lambda *_: logits)
    defects = torch.zeros(1, 3, SIZE, SIZE, dtype=torch.bool)
    defects[0, 0, :8, :16] = defects[0, 1] = True
    losses = model.losses(images, features, torch.tensor([[True, False, True]]), defects)
    wanted = torch.zeros(2, 1, 8, 8)
    wanted[0, 0, :2, :4] = 1
    p = logits.sigmoid()
    p_t = torch.where(wanted > 0, p, 1 - p)
    assert losses["focal"] == pytest.approx(float((-((1 - p_t) ** 4) * p_t.log()).mean()), rel=1e-5)
    assert losses["l1"] == pytest.approx(float((p - wanted).abs().mean()), rel=1e-5)
    assert losses["loss"] == losses["focal"] + losses["l1"]


def test_the_second_stage(task: Task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It learns defects from the teacher on corrupted images, leaves the student alone, and resumes."""
    fabric, corrupted, encoded = Fabric(accelerator="cpu", devices=1), [], []
    perturb, encode = Perturbation.__call__, FrozenEncoder.__call__

    def perturbed(self: Perturbation, batch: Batch, draws: Draws) -> PerturbedBatch:
        corrupted.append(perturb(self, batch, draws))
        return corrupted[-1]

    def watched(self: FrozenEncoder, inputs: torch.Tensor) -> dict[str, torch.Tensor]:
        encoded.append(inputs)
        return encode(self, inputs)

    monkeypatch.setattr(Perturbation, "__call__", perturbed)
    monkeypatch.setattr(FrozenEncoder, "__call__", watched)
    whole = replace(task, folder=tmp_path / "whole")
    train_stages(config(), whole, encoders, fabric)
    images = [inputs for inputs in encoded if inputs.dtype == torch.float32]
    assert len(images) == 10, "two steps in each of five epochs, the student's two without"
    for inputs, batch in zip(images, corrupted[2:], strict=True):
        assert torch.equal(inputs, batch.images[batch.view_mask])
        assert batch.defects.any()
    seen = {batch.defects.numpy().tobytes() for batch in corrupted[:2]}
    assert all(batch.defects.numpy().tobytes() not in seen for batch in corrupted[2:])
    losses = [line["loss"] for line in read_log(whole.folder / "log.jsonl") if "loss" in line]
    assert sum(losses[-3:]) < 0.7 * sum(losses[:3])
    student = load_file(whole.folder / "student" / "checkpoint" / "model.safetensors")
    both = load_file(whole.folder / "checkpoint" / "model.safetensors")
    assert all(torch.equal(both[f"student.{name}"], value) for name, value in student.items())

    def die(_method: Method, epoch: int) -> ValidationResult:
        if epoch == 2:
            raise KeyboardInterrupt
        return ValidationResult({})

    broken = replace(task, folder=tmp_path / "broken")
    with pytest.raises(KeyboardInterrupt):
        train_stages(config(eval_every=2, validate_every=0), broken, encoders, fabric, after_epoch=die)
    train_stages(config(), broken, encoders, fabric)
    for name in ("log.jsonl", "checkpoint/model.safetensors", "student/log.jsonl"):
        assert (broken.folder / name).read_bytes() == (whole.folder / name).read_bytes(), name


def test_from_the_command_line(world: Path, tmp_path: Path) -> None:
    settings = ["run.name=seg", f"run.dir={tmp_path.as_posix()}", "data.categories=[cup]"]
    settings += ["method.head=segmentation", "method.head_epochs=1"]
    given = [*FAST, *(f"--set={setting}" for setting in settings)]
    assert run(["train", f"--config={world / 'c.yaml'}", *given]) == 0
    assert run(["eval", str(tmp_path / "seg")]) == 0
    metrics = json.loads((tmp_path / "seg" / "metrics.json").read_text())
    assert metrics["protocol"]["head"] == "segmentation"
    assert metrics["protocol"]["map"].startswith("probability")
    assert metrics["mean"]["s_auroc"] is not None
