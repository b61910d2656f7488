"""Supervised contrastive learning against the equations, and its parts against their definitions."""

import math
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from pydantic import ValidationError
from torch import Tensor

from idif.config.sections import Config
from idif.data.batch import Batch
from idif.errors import CannotFinish, ConfigError, StoreMismatch
from idif.methods.catalog import METHODS
from idif.methods.protocol import LearnsStatistics
from idif.methods.supcon.losses import mix, supervised_contrastive_loss
from idif.methods.supcon.model import SupCon
from idif.randomness import Draws
from idif.runs.run import method_context
from tests.helpers.run_arrays import RunArrays

SMALL: dict[str, Any] = METHODS["supcon"].smallest().model_dump()


def made(source: RunArrays, **section: Any) -> SupCon:
    config = Config.model_validate({"method": SMALL | section})
    torch.manual_seed(0)
    method = METHODS["supcon"].build(
        config.method, method_context(config, source.spec, source.index.view_numbers, ["weld"])
    )
    assert isinstance(method, SupCon)
    return method


def batch_of(source: RunArrays) -> Batch:
    (batch,) = source.batches(range(len(source.index)), len(source.index))
    return batch


def draws_of(source: RunArrays, step: int = 0) -> Draws:
    ids = tuple(sample.sample_id for sample in source.index.samples)
    return Draws(0, 0, step, 0, ids, source.index.view_numbers, torch.device("cpu"))


def equation_2(vectors: np.ndarray[Any, Any], labels: list[int], temperature: float) -> float:
    """The loss as printed in the paper, term by term, averaged over anchors with a positive."""
    terms = []
    for i, z in enumerate(vectors):
        others = [a for a in range(len(vectors)) if a != i]
        positives = [p for p in others if labels[p] == labels[i]]
        if positives:
            whole = sum(math.exp(z @ vectors[a] / temperature) for a in others)
            each = [math.log(math.exp(z @ vectors[p] / temperature) / whole) for p in positives]
            terms.append(-sum(each) / len(positives))
    return sum(terms) / len(terms)


@pytest.mark.parametrize("labels", [[0, 0, 1, 1, 0, 1], [0, 0, 0, 0, 0, 1], [1, 1, 1, 1, 1, 1]])
def test_the_loss_is_equation_2(labels: list[int]) -> None:
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(6, 5))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    found = supervised_contrastive_loss(torch.from_numpy(vectors), torch.tensor(labels), 0.3)
    assert float(found) == pytest.approx(equation_2(vectors, labels, 0.3), rel=1e-12)


@pytest.mark.parametrize("labels", [[1], [0, 1]])
def test_without_positives_there_is_no_loss_and_a_finite_gradient(labels: list[int]) -> None:
    vectors = F.normalize(torch.randn(len(labels), 4), dim=1).requires_grad_()
    loss = supervised_contrastive_loss(vectors, torch.tensor(labels), 0.07)
    loss.backward()
    assert loss == 0
    assert vectors.grad is not None
    assert torch.equal(vectors.grad, torch.zeros_like(vectors))


def test_the_loss_has_its_least_value_where_kinds_are_opposite() -> None:
    """With n positives of each anchor and its rivals at the antipode the equation gives log n, nearly."""
    labels = torch.tensor([0, 0, 0, 1, 1, 1])
    vectors = torch.tensor([[1.0, 0.0]] * 3 + [[-1.0, 0.0]] * 3)
    assert float(supervised_contrastive_loss(vectors, labels, 0.07)) == pytest.approx(math.log(2), abs=1e-6)


def test_samples_are_mixed_where_both_have_the_input() -> None:
    values = torch.arange(6.0).view(3, 2)
    present, partner = torch.tensor([True, True, False]), torch.tensor([1, 2, 0])
    mixed = mix(values, present, partner, 0.75)
    assert mixed[0].tolist() == [0.75 * 0 + 0.25 * 2, 0.75 * 1 + 0.25 * 3]
    assert mixed[1:].equal(values[1:]), "the partner of the second lacks it, and so does the third"


def test_mixing_mixes_the_losses_too() -> None:
    """With all features and the dropout off, the loss is that of both labelings, in the drawn share."""
    source = RunArrays((("train", 3), ("val", 5)), shows_in=("audio",))
    method, batch = made(source, dropout=0.0, cross_entropy=0.1).train(), batch_of(source)
    plain = made(source, dropout=0.0, cross_entropy=0.1, mixup=0.0).train()
    losses = plain.training_step(batch, draws_of(source))
    given, present = plain._given(batch)
    own = plain._losses(plain._embed(given, present), batch.sample_labels.long())
    torch.testing.assert_close(losses["contrastive"], own["contrastive"])
    torch.testing.assert_close(losses["loss"], own["contrastive"] + 0.1 * own["cross_entropy"])
    steps = [float(method.training_step(batch, draws_of(source, step))["loss"].detach()) for step in range(4)]
    assert len(set(steps)) == 4, "shares and partners differ from step to step"
    again = [float(method.training_step(batch, draws_of(source, step))["loss"].detach()) for step in range(4)]
    assert steps == again


def test_the_score_is_the_distance_to_the_nearest_normal_training_samples() -> None:
    source = RunArrays((("train", 4), ("val", 4)), {2: ("audio",)}, shows_in=("audio",))
    method = made(source, neighbors=2)
    assert isinstance(method, LearnsStatistics)
    batch = batch_of(source)
    method.prepare(source.batches(range(len(source.index)), 3))
    method.eval()
    scores = method.score(batch).samples
    assert scores is not None

    def embedded() -> Tensor:
        with torch.no_grad():
            return F.normalize(method._embed(*method._given(batch)), dim=1)

    normal = [row for row, sample in enumerate(source.index.samples) if not sample.label]
    assert len(method.bank_present) == len(normal) == 6
    unit = embedded()
    wanted = (1 - unit @ unit[normal].T).sort(dim=1).values[:, :2].mean(dim=1)
    torch.testing.assert_close(scores, wanted, rtol=1e-4, atol=1e-6)
    with torch.no_grad():
        for parameter in method.parameters():
            parameter.mul_(1.5)
    changed = method.eval().score(batch).samples
    assert changed is not None
    unit = embedded()
    wanted = (1 - unit @ unit[normal].T).sort(dim=1).values[:, :2].mean(dim=1)
    torch.testing.assert_close(changed, wanted, rtol=1e-4, atol=1e-6)


def test_inputs_are_standardized_by_the_normal_training_samples() -> None:
    source = RunArrays((("train", 5), ("val", 4)), {1: ("sensor",)}, shows_in=("audio",))
    method = made(source)
    method.prepare(source.batches(range(len(source.index)), 2))
    normal = [row for row, sample in enumerate(source.index.samples) if not sample.label]
    series = batch_of(source).arrays["sensor"].double()[[row for row in normal if row != 1]]
    spread, mean = torch.std_mean(series, dim=(0, 1), correction=0)
    torch.testing.assert_close(method.get_buffer("mean_sensor"), mean.float())
    torch.testing.assert_close(method.get_buffer("spread_sensor"), spread.float())
    pooled = batch_of(source).arrays["audio"].double()[normal].mean(dim=1)
    torch.testing.assert_close(method.get_buffer("mean_audio"), pooled.mean(dim=0).float())


def test_a_sample_without_inputs_teaches_nothing_and_has_no_score() -> None:
    lacking = {2: ("video", "audio", "sensor", "stills")}
    source = RunArrays((("train", 4), ("val", 4)), lacking)
    method, whole = made(source, dropout=0.0).train(), batch_of(source)
    without = whole.take(torch.tensor([0, 1, 3, 4, 5, 6, 7]))
    one, other = (method.training_step(batch, draws_of(source))["loss"] for batch in (whole, without))
    torch.testing.assert_close(one, other)
    alone = method.training_step(whole.take(torch.tensor([2])), draws_of(source))["loss"]
    assert alone == 0
    method.prepare([whole])
    scores = method.eval().score(whole).samples
    assert scores is not None
    assert torch.isnan(scores).tolist() == [row == 2 for row in range(8)]


def test_twenty_four_samples_are_learned_by_heart() -> None:
    """Labels of pure noise: the nearest others in the embedding are then all of a sample's own label."""
    source = RunArrays((("val", 24),))
    method, batch = made(source, mixup=0.0, dropout=0.0).train(), batch_of(source)
    optimizer = torch.optim.AdamW(method.parameters(), lr=3e-3)
    for step in range(60):
        optimizer.zero_grad()
        method.training_step(batch, draws_of(source, step))["loss"].backward()
        optimizer.step()
    with torch.no_grad():
        unit = F.normalize(method.eval()._embed(*method._given(batch)), dim=1)
    nearest = (unit @ unit.T).fill_diagonal_(-2).topk(5, dim=1).indices
    votes = batch.sample_labels[nearest].float().mean(dim=1) > 0.5
    assert votes.equal(batch.sample_labels)


def test_normal_samples_are_needed_for_the_score() -> None:
    source = RunArrays((("val", 4),))
    only_defects = [batch_of(source).take(torch.tensor([1, 3]))]
    with pytest.raises(CannotFinish, match="normal training samples, of which there are none"):
        made(source).prepare(only_defects)


@pytest.mark.parametrize(
    ("section", "told"),
    [
        ({"series": ["img_b31_mean"]}, "method.series: img_b31_mean: expected features of an input with the"),
        ({"arrays": ["text"], "series": []}, "method.arrays: text: expected features of an input"),
    ],
)
def test_arrays_of_other_axes_are_refused_by_name(section: dict[str, Any], told: str) -> None:
    source = RunArrays()
    with pytest.raises(ConfigError, match=told):
        made(source, **section)


def test_a_missing_array_is_refused_by_name() -> None:
    with pytest.raises(StoreMismatch, match="the method reads depth"):
        made(RunArrays(), arrays=["depth"], series=[])


@pytest.mark.parametrize(
    ("section", "told"),
    [
        ({"series": ["video", "thermal"]}, "series: expected names of arrays .*, got thermal"),
        ({"arrays": ["video", "video"]}, "arrays: expected different names"),
        ({"width": 18, "attention_heads": 4}, "attention_heads: 4 does not divide width: 18"),
        ({"series_encoder": {"width": 9, "attention_heads": 2}}, "2 does not divide width: 9"),
        ({"temperature": 0}, "temperature"),
    ],
)
def test_settings_that_make_no_sense_are_refused(section: dict[str, Any], told: str) -> None:
    with pytest.raises(ValidationError, match=told):
        Config.model_validate({"method": SMALL | section})
