"""Early stopping: the split val chooses the epoch, interrupted or not; both weights are scored."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning_fabric import Fabric
from torch import Tensor

from idif.config.sections import Config, TrainConfig
from idif.errors import ConfigError
from idif.methods.catalog import METHODS
from idif.methods.protocol import Method
from idif.runs.run import method_context
from idif.training.checkpoint import load_state, load_weights, read_progress
from idif.training.checkpoint_files import CURRENT
from idif.training.loop import train
from idif.training.stages import is_trained
from idif.training.task import Task
from idif.training.validation import ValidationResult, validation_split
from idif.visualization.heatmap import Pixels
from tests.helpers.run_arrays import RunArrays

VALUES: list[float | None] = [0.5, 0.7, None, 0.6, 0.65, 0.9, 0.95]
"""S-AUROC after each epoch; None is undefined and counts as no evaluation."""


def config_of(**settings: Any) -> Config:
    chosen = {"epochs": 7, "batch_size": 3, "lr": 1e-3, "ema": 0.0} | settings
    method = METHODS["causal-film"].smallest().model_dump()
    return Config.model_validate({"method": method, "train": chosen})


class Training:
    """Trains into a folder with scripted evaluations; keeps the weights that each of them saw."""

    def __init__(self, folder: Path, config: Config, stop_at: int | None = None) -> None:
        self.folder, self.config, self.stop_at = folder, config, stop_at
        self.seen: dict[int, list[dict[str, Tensor]]] = {}

    def run(self) -> Method:
        self.folder.mkdir(exist_ok=True)
        source = RunArrays((("train", 6),))
        context = method_context(self.config, source.spec, source.index.view_numbers, ["weld"])
        task = Task("weld", self.folder, source, list(range(6)), context)
        fabric = Fabric(accelerator="cpu", devices=1)
        return train(self.config, task, fabric, after_epoch=self._evaluate)

    def _evaluate(self, method: Method, epoch: int) -> ValidationResult:
        if epoch == self.stop_at:
            self.stop_at = None
            raise KeyboardInterrupt
        weights = {name: value.detach().clone() for name, value in method.state_dict().items()}
        self.seen.setdefault(epoch, []).append(weights)
        return ValidationResult({"s_auroc": VALUES[epoch - 1]})

    def log(self) -> list[dict[str, Any]]:
        lines = map(json.loads, (self.folder / "log.jsonl").read_text(encoding="utf-8").splitlines())
        return [line for line in lines if "eval" in line]


def assert_equal(one: dict[str, Tensor], other: dict[str, Tensor]) -> None:
    assert one.keys() == other.keys()
    for name, value in one.items():
        assert torch.equal(value, other[name]), name


def test_training_stops_and_keeps_the_best_epoch(tmp_path: Path) -> None:
    training = Training(tmp_path, config_of(patience=2))
    method = training.run()
    assert list(training.seen) == [1, 2, 3, 4, 5]
    done = read_progress(tmp_path / CURRENT)
    assert (done.epoch, done.finished) == (5, True)
    assert is_trained(done, training.config)
    assert_equal(load_weights(tmp_path / CURRENT), training.seen[2][0])
    assert_equal(method.state_dict(), training.seen[2][0])
    assert [line["eval"]["best_epoch"] for line in training.log()] == [1, 2, 2, 2, 2]
    again = training.run()
    assert list(training.seen) == [1, 2, 3, 4, 5]
    assert_equal(again.state_dict(), training.seen[2][0])


@pytest.mark.parametrize("ema", [0.0, 0.9])
def test_an_interrupted_training_stops_at_the_same_epoch(tmp_path: Path, ema: float) -> None:
    config = config_of(patience=2, ema=ema)
    whole, parts = Training(tmp_path / "a", config), Training(tmp_path / "b", config, stop_at=4)
    whole.run()
    with pytest.raises(KeyboardInterrupt):
        parts.run()
    parts.run()
    assert_equal(load_weights(tmp_path / "b" / CURRENT), load_weights(tmp_path / "a" / CURRENT))
    assert whole.log() == parts.log()


def test_the_best_epoch_is_kept_where_patience_lasts(tmp_path: Path) -> None:
    training = Training(tmp_path, config_of(patience=3, epochs=5))
    training.run()
    assert list(training.seen) == [1, 2, 3, 4, 5]
    assert_equal(load_weights(tmp_path / CURRENT), training.seen[2][0])


def test_without_patience_the_last_epoch_is_kept(tmp_path: Path) -> None:
    training = Training(tmp_path, config_of(patience=0))
    training.run()
    assert list(training.seen) == [1, 2, 3, 4, 5, 6, 7]
    assert_equal(load_weights(tmp_path / CURRENT), training.seen[7][0])
    assert "best_epoch" not in training.log()[0]["eval"]


def test_averaged_and_current_weights_are_both_scored(tmp_path: Path) -> None:
    training = Training(tmp_path, config_of(patience=0, epochs=2, ema=0.5))
    training.run()
    averaged, current = training.seen[2]
    assert any(not torch.equal(value, current[name]) for name, value in averaged.items())
    assert_equal(load_weights(tmp_path / CURRENT), averaged)
    assert training.log()[1]["eval"] == {"s_auroc": 0.7, "s_auroc_without_ema": 0.7}


def test_no_epoch_is_chosen_by_the_test_split() -> None:
    assert validation_split(TrainConfig(), {"train", "test"}) == "test"
    assert validation_split(TrainConfig(), {"train", "val", "test"}) == "val"
    with pytest.raises(ConfigError, match=r"none; set train\.patience to 0"):
        validation_split(TrainConfig(patience=3, eval_every=1), {"train", "test"})
    with pytest.raises(ValueError, match="set eval_every"):
        TrainConfig(patience=3)


def test_a_warm_up_and_a_cosine_may_start_and_end_above_zero() -> None:
    from idif.training.schedule import StepCount, learning_rate

    settings = TrainConfig.model_validate(
        {"warmup": 0.1, "warmup_from": 0.2, "schedule": {"name": "cosine", "final": 0.05}}
    )
    rates = [learning_rate(settings, StepCount(10, 10, 100), step) for step in range(100)]
    assert rates[0] == pytest.approx(0.2 + 0.8 / 10)
    assert rates[9] == pytest.approx(1)
    assert rates[99] == pytest.approx(0.05, abs=0.001)
    assert min(rates[10:]) >= 0.05


class Tracked:
    """A tracker of nothing, with an id."""

    run_id = "first"

    def write(self, *lines: dict[str, Any]) -> None:
        pass

    def show(self, step: int, pictures: Mapping[str, Pixels]) -> None:
        pass


def test_a_resumed_training_goes_on_under_the_id_of_its_tracker(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    starts: list[tuple[int, str | None]] = []

    @contextmanager
    def tracking(
        config: Config, folder: Path, *, after_step: int = 0, run_id: str | None = None
    ) -> Iterator[Tracked]:
        starts.append((after_step, run_id))
        yield Tracked()

    monkeypatch.setattr("idif.training.loop.tracking", tracking)
    training = Training(tmp_path, config_of(patience=3), stop_at=3)
    with pytest.raises(KeyboardInterrupt):
        training.run()
    training.run()
    assert starts == [(0, None), (4, "first")]
    assert load_state(tmp_path / CURRENT)["tracked_as"] == "first"
