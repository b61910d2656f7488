"""The learning rate follows the schedule in its unit."""

import math
from typing import Any

import pytest

from idif.config.loader import resolve
from idif.config.sections import TrainConfig
from idif.errors import ConfigError
from idif.training.schedule import StepCount, learning_rate

STEPS = StepCount(per_pass=5, per_epoch=10, total=40)


def rates(steps: StepCount = STEPS, **settings: Any) -> list[float]:
    train = TrainConfig.model_validate({"warmup": 0.0} | settings)
    return [learning_rate(train, steps, step) for step in range(steps.total)]


def test_learning_rate_rises_then_falls_to_nothing() -> None:
    found = rates(StepCount(10, 10, 100), warmup=0.1)
    assert found[0] == pytest.approx(0.1)
    assert max(found) == pytest.approx(1.0)
    assert found.index(max(found)) in (9, 10)
    assert found[10:] == sorted(found[10:], reverse=True)
    assert found[-1] < 0.001


def test_a_constant_rate_stays_at_its_peak_once_it_has_risen() -> None:
    found = rates(schedule={"name": "constant"}, warmup=0.1)
    assert found[:4] == pytest.approx([0.25, 0.5, 0.75, 1])
    assert found[4:] == [1.0] * 36


@pytest.mark.parametrize(("unit", "length"), [("step", 1), ("sub_epoch", 5), ("epoch", 10)])
def test_milestones_multiply_by_the_factor_after_so_many_units(unit: str, length: int) -> None:
    found = rates(schedule={"name": "milestones", "unit": unit, "milestones": [1, 3], "factor": 0.5})
    # the first step is a warm-up of its own, at its peak
    assert found[:length] == [1.0] * length
    assert found[length : 3 * length] == [0.5] * (2 * length)
    assert found[3 * length :] == [0.25] * (40 - 3 * length)


@pytest.mark.parametrize(("unit", "length"), [("sub_epoch", 5), ("epoch", 10)])
def test_a_cosine_in_passes_or_epochs_changes_at_their_start_alone(unit: str, length: int) -> None:
    found = rates(schedule={"unit": unit})
    smooth = [0.5 * (1 + math.cos(math.pi * (step - 1) / 39)) for step in range(40)]
    for start in range(length, 40, length):
        assert found[start : start + length] == pytest.approx([smooth[start]] * length)
    assert found[:length] == pytest.approx([1.0] * length)


def test_steps_are_counted_over_processes_passes_and_accumulated_batches() -> None:
    train = TrainConfig(batch_size=2, accumulate=2, sub_epochs=3, epochs=4)
    # 10 rows, 5 for each process, in batches of 2, 2 and 1
    assert StepCount.of(train, 10, 2) == StepCount(per_pass=2, per_epoch=6, total=24)
    plain = TrainConfig(batch_size=2, epochs=4)
    assert StepCount.of(plain, 5, 1) == StepCount(per_pass=3, per_epoch=3, total=12)


def test_a_budget_in_steps_replaces_the_epochs_and_the_schedule_follows_it() -> None:
    steps = StepCount.of(TrainConfig(batch_size=2, epochs=4, steps=7), 5, 1)
    assert (steps.total, steps.per_epoch, steps.epochs) == (7, 3, 3)
    assert StepCount.of(TrainConfig(batch_size=2, epochs=4), 5, 1).epochs == 4
    short, long = rates(steps, warmup=0.0), rates(StepCount(3, 3, 70), warmup=0.0)
    assert short[6] < 0.1
    assert long[6] > 0.9


@pytest.mark.parametrize("schedule", [{"name": "milestones"}, {"milestones": [3]}])
def test_milestones_go_with_their_schedule_alone(schedule: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="expected with schedule `milestones`, and only with it"):
        resolve({"train": {"schedule": schedule}}, source="test")


def test_a_cosine_with_a_horizon_ends_above_zero() -> None:
    """The schedule of DeCo-Diff's authors: by epoch, from zero, 800 of 1,200 epochs."""
    schedule = {"unit": "epoch", "warmup": 10, "warmup_start": 0, "horizon": 1200}
    train = TrainConfig.model_validate({"warmup": 0, "lr": 1e-4, "epochs": 800, "schedule": schedule})
    steps = StepCount(per_pass=13, per_epoch=13, total=800 * 13)
    found = [train.lr * learning_rate(train, steps, 13 * epoch) for epoch in range(800)]
    assert found[0] == 0
    assert found[1] == learning_rate(train, steps, 25) * train.lr == pytest.approx(1e-5)
    assert found[10] == max(found) == pytest.approx(1e-4)
    assert found[-1] == pytest.approx(2.55e-5, abs=5e-8)
    beyond = StepCount(per_pass=13, per_epoch=13, total=1300 * 13)
    assert learning_rate(train, beyond, 1250 * 13) == 0


@pytest.mark.parametrize("schedule", [{"name": "constant", "horizon": 20}, {"horizon": 5, "warmup": 5}])
def test_a_horizon_needs_a_cosine_that_reaches_beyond_the_warm_up(schedule: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="horizon: expected with schedule `cosine` alone"):
        resolve({"train": {"warmup": 0, "schedule": schedule}}, source="test")
