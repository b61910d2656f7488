"""MSFlow in training: its schedule under resume, its checkpoint, and what it refuses."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning_fabric import Fabric

from idif.config.loader import resolve
from idif.config.sections import Config
from idif.data.arrays import ArraySpec, feature_map
from idif.data.features import EncoderSpec
from idif.errors import ConfigError, StoreMismatch
from idif.methods.catalog import METHODS
from idif.methods.protocol import Method
from idif.runs.run import method_context
from idif.training.checkpoint import load_weights
from idif.training.loop import train
from idif.training.run_log import read_log
from idif.training.schedule import StepCount, average_weights, learning_rate
from idif.training.task import Task
from idif.training.validation import ValidationResult
from tests.idif.methods.msflow.pooled_features import SECTION, PooledFeatures, make_config


def test_defaults_are_those_of_the_authors() -> None:
    config = Config.model_validate({"method": {"name": "msflow"}})
    train_section = config.train
    assert (train_section.mode, train_section.epochs, train_section.sub_epochs) == ("per-category", 25, 4)
    assert (train_section.optimizer.name, train_section.lr, train_section.weight_decay) == ("adam", 1e-4, 0)
    assert (train_section.batch_size, train_section.clip_norm) == (8, 2.0)
    assert config.eval.score == "method"
    assert (config.teacher.encoder, config.teacher.image_size) == ("wide_resnet50_2", 512)
    # 100 sub-epochs of 3 steps
    steps = StepCount.of(train_section, 24, 1)
    rates = [learning_rate(train_section, steps, 3 * number) for number in range(100)]
    assert rates[:12] == pytest.approx([0.1 + 0.9 * number / 12 for number in range(12)])
    assert rates[12:70] == [1.0] * 58
    assert rates[70:90] == pytest.approx([0.33] * 20)
    assert rates[90:] == pytest.approx([0.33**2] * 10)
    constant = [learning_rate(train_section, steps, step) for step in range(9)]
    assert constant[0] == constant[2] != constant[3] == constant[5]


class Stopped(Exception):
    """Raised to stop a training."""


def test_a_resumed_training_keeps_its_warm_up_and_milestones(tmp_path: Path) -> None:
    schedule = {"warmup": 2, "milestones": [3, 5]}
    settings = {"epochs": 3, "sub_epochs": 2, "batch_size": 3, "eval_every": 1, "schedule": schedule}
    config = make_config(train=settings)
    source = PooledFeatures()

    def task(name: str) -> Task:
        (tmp_path / name).mkdir(exist_ok=True)
        context = method_context(config, source.spec, (1, 2), ["cup"])
        return Task("cup", tmp_path / name, source, list(range(6)), context)

    def stop(method: Method, epoch: int) -> ValidationResult:
        if epoch == 2:
            raise Stopped
        return ValidationResult({})

    fabric = Fabric(accelerator="cpu", devices=1)
    train(config, task("whole"), fabric)
    with pytest.raises(Stopped):
        train(config, task("parts"), fabric, after_epoch=stop)
    train(config, task("parts"), fabric)
    passes = [0.1, 0.55, 1, 0.33, 0.33, 0.33**2]
    for name in ("whole", "parts"):
        rates = [line["lr"] for line in read_log(tmp_path / name / "log.jsonl") if "loss" in line]
        assert rates == pytest.approx([1e-4 * rate for rate in passes for _ in range(2)])
    whole, parts = (load_weights(tmp_path / name / "checkpoint") for name in ("whole", "parts"))
    assert all(torch.equal(value, parts[name]) for name, value in whole.items())
    orders = [value for name, value in whole.items() if name.endswith("permutation.order")]
    assert len(orders) == 3
    assert all(order.dtype == torch.int64 for order in orders)


def test_averaged_weights_keep_the_permutations() -> None:
    """5 * 0.9 + 5 * 0.1 may round to less than 5."""
    order = torch.arange(1000)
    mean = [order.clone()]
    for number in range(20):
        average_weights(0.9)(mean, [order], number)
    assert torch.equal(mean[0], order)


def build(section: dict[str, Any], arrays: tuple[ArraySpec, ...], image_size: int | None = 32) -> Method:
    config = make_config(method=SECTION | section)
    spec = PooledFeatures().spec
    (encoder,) = spec.encoders
    features = replace(
        spec, encoders=(EncoderSpec(**vars(encoder) | {"arrays": arrays}),), image_size=image_size
    )
    return METHODS["msflow"].build(config.method, method_context(config, features, (1,), ["cup"]))


def test_arrays_that_do_not_fit_are_refused_in_one_sentence() -> None:
    p1, p2 = feature_map("p1", 8, 8, "e"), feature_map("p2", 12, 4, "e")
    build({}, (p1, p2))
    with pytest.raises(StoreMismatch, match="reads p1, p2, but there are layer1"):
        build({}, (feature_map("layer1", 8, 8, "e"),))
    with pytest.raises(ConfigError, match=r"p2 has 7, an odd number"):
        build({}, (p1, feature_map("p2", 7, 4, "e")))
    with pytest.raises(ConfigError, match=r"p2 has the axes view, token, channel"):
        build({}, (p1, ArraySpec("p2", ("view", "token", "channel"), (4, 6), "float32", "e")))
    with pytest.raises(ConfigError, match="feature maps of images"):
        build({}, (p1, p2), None)


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        ({"method": SECTION | {"blocks": [1]}}, "expected one number for each of the 2 scales"),
        ({"method": SECTION | {"scales": ["p1", "p1"]}}, "scales: expected one or more different names"),
        ({"method": SECTION | {"position_channels": 6}}, "multiple of 4"),
        ({"train": {"warmup": 0.1, "schedule": {"warmup": 3}}}, "warmup: expected 0 with schedule.warmup"),
        ({"method": SECTION, "corruption": {"probability": 0.2}}, "the method msflow uses none"),
    ],
)
def test_settings_that_do_not_fit_are_refused(raw: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        resolve(raw, source="test")
