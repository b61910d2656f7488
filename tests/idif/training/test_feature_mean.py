"""The comparison of predicted features with their mean: values, records and the warning."""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor

from idif.data.batch import Batch
from idif.methods.protocol import Method, Needs, PredictsFeatures, Scores
from idif.training.checkpoint import save_checkpoint
from idif.training.checkpoint_files import TrainingProgress
from idif.training.feature_mean import MEAN, MODEL, FeatureMean, not_trained_warning, recorded_distance
from tests.idif.methods.msflow.pooled_features import PooledFeatures, make_model

CPU = torch.device("cpu")


class Halves(Method):
    """Predicts half of each stored value."""

    predicted_arrays = ("p1",)

    def __init__(self) -> None:
        super().__init__()
        self.needs = Needs(training=("p1",), scoring=("p1",))

    def score(self, batch: Batch) -> Scores:
        raise NotImplementedError

    def describe(self) -> dict[str, str]:
        return {}

    def feature_distance(self, batch: Batch, constant: Mapping[str, Tensor] | None = None) -> Tensor:
        stored = batch.arrays["p1"]
        predicted = stored / 2 if constant is None else constant["p1"]
        return (predicted - stored).square().mean(dim=(2, 3, 4))


class Counting(PooledFeatures):
    """Counts the samples that are read."""

    read = 0

    def batches(
        self, order: Sequence[int], batch_size: int, variants: Sequence[int] | None = None
    ) -> Iterator[Batch]:
        self.read += len(order)
        return super().batches(order, batch_size, variants)


def test_both_distances_are_means_over_the_views_that_are_there() -> None:
    source, method = Counting(), Halves()
    assert isinstance(method, PredictsFeatures)
    source.arrays["p1"][1, 1] = torch.nan  # an absent view
    comparison = FeatureMean(source, (0, 1, 2, 3), (1, 4, 5))
    found = comparison.distances(method, CPU)
    x = source.arrays["p1"]
    mean = torch.stack([x[:4, 0].mean(dim=0), x[[0, 2, 3], 1].mean(dim=0)])
    views = [(1, 0), (4, 0), (4, 1), (5, 0), (5, 1)]
    own = torch.stack([(x[view] / 2).square().mean() for view in views]).mean()
    constant = torch.stack([(x[view] - mean[view[1]]).square().mean() for view in views]).mean()
    assert found[MODEL] == pytest.approx(float(own), rel=1e-5)
    assert found[MEAN] == pytest.approx(float(constant), rel=1e-5)
    before = source.read
    assert comparison.distances(method, CPU, known=2.5) == {MODEL: found[MODEL], MEAN: 2.5}
    assert source.read - before == 3, "the mean is not taken again"


def test_rows_are_few_held_out_if_any_and_other_methods_are_left_alone() -> None:
    source = PooledFeatures()
    comparison = FeatureMean.of(source, range(1000), [7, 9])
    assert len(comparison.mean_of) == 64
    assert comparison.on == (7, 9)
    assert set(FeatureMean.of(source, range(1000), []).on) <= set(range(1000))
    assert FeatureMean.of(source, [0, 1, 2], []).distances(make_model(), CPU) == {}


def test_the_record_is_that_of_the_checkpoints_epoch(tmp_path: Path) -> None:
    assert recorded_distance(tmp_path, held_out=True) is None
    values = {1: 0.9, 2: 0.5, 3: 0.2}
    lines = [
        {"epoch": epoch, "step": epoch, "eval": {MODEL: value, MEAN: 0.4}} for epoch, value in values.items()
    ]
    (tmp_path / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    weights = {"w": torch.ones(1)}
    for epoch, trained in ((2, False), (3, True)):
        save_checkpoint(tmp_path, weights, {}, TrainingProgress(epoch, epoch, finished=True))
        found = recorded_distance(tmp_path, held_out=True)
        assert found is not None
        assert (found.model, found.mean, found.trained) == (values[epoch], 0.4, trained)
    lines[-1]["eval"]["best_epoch"] = 1  # type: ignore[index]
    (tmp_path / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    best = recorded_distance(tmp_path, held_out=False)
    assert best is not None
    assert best.model == 0.9, "early stopping keeps the weights of epoch 1"


def test_the_warning_names_what_is_worse_than_the_mean() -> None:
    good = {"model": 0.1, "mean": 0.15, "held_out": True, "trained": True}
    bad = {"model": 0.455, "mean": 0.15, "held_out": True, "trained": False}
    assert not_trained_warning({"cup": good}) is None
    said = not_trained_warning({"cup": good, "bolt": bad})
    assert said is not None
    assert "held-out normals worse than their per-position mean (bolt 0.455 against 0.15)" in said
    assert "cup" not in said
    fitted = not_trained_warning({"bolt": bad | {"held_out": False}})
    assert fitted is not None
    assert "of training samples worse" in fitted
