"""What every method promises the engine, trained or fitted: run for each entry of `METHODS`."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
import torch
from lightning_fabric import Fabric
from torch import Tensor
from torch.fx.experimental.proxy_tensor import make_fx

from idif.config.sections import Config
from idif.data.batch import Batch
from idif.data.features import IMAGES, NO_INPUT, FeatureSource, FeatureSpec
from idif.errors import ConfigError
from idif.evaluation.scoring import Scorer
from idif.methods.protocol import (
    FittedMethod,
    LearnsStatistics,
    Method,
    PredictsFeatures,
    ReducesMaps,
    ScoresSubsets,
    SupportsExport,
    TrainedMethod,
)
from idif.randomness import Draws
from idif.training.checkpoint import load_weights
from idif.training.checkpoint_files import find_checkpoint
from idif.training.loop import train
from idif.training.task import Task
from idif.training.validation import ValidationResult

CPU = torch.device("cpu")


@dataclass(frozen=True)
class Case:
    """A method with samples to try it on."""

    config: Config
    """With the method's smallest section, of the stage that is tried."""
    build: Callable[[FeatureSpec], Method]
    """A new method in training, the same weights each time."""
    task: Callable[[Path], Task]
    """A training of it into a folder."""
    source: FeatureSource
    """At least six samples; one lacks a view or an input."""
    learned: dict[str, Tensor] = field(default_factory=dict)
    """State of the method after its fit; filled by `ready`."""

    @property
    def fitted(self) -> bool:
        """Whether the method is fitted and not trained."""
        return self.config.method.fitted


def draws_of(case: Case, batch: Batch, step: int = 0) -> Draws:
    index = case.source.index
    ids = tuple(index.samples[row].sample_id for row in batch.rows.tolist())
    return Draws(0, 0, step, 0, ids, index.view_numbers, CPU)


def batch_of(case: Case, rows: list[int]) -> Batch:
    (batch,) = case.source.batches(rows, len(rows))
    return batch


def garbled(case: Case, batch: Batch) -> Batch:
    """``batch`` with other values in absent views and inputs."""
    arrays = {}
    for name, values in batch.arrays.items():
        spec = case.source.spec.arrays[name]
        inputs = {encoder.name: encoder.input for encoder in case.source.spec.encoders}
        if inputs.get(spec.origin) == NO_INPUT:
            arrays[name] = values
            continue
        shown = batch.view_mask if spec.per_view else batch.present[inputs[spec.origin]]
        changed = values.clone()
        generator = torch.Generator().manual_seed(1)
        noise = torch.rand(values[~shown].shape, generator=generator) * 100
        changed[~shown] = noise.to(values.dtype)
        arrays[name] = changed
    return batch.with_arrays(arrays)


def fit_to(case: Case, batches: list[Batch], method: Method | None = None) -> FittedMethod:
    """A new method, or the given one, fitted to some batches."""
    fitted = case.build(case.source.spec) if method is None else method
    assert isinstance(fitted, FittedMethod)
    with torch.no_grad():
        fitted.fit(batches, seed=0)
    return fitted.eval()


def ready(case: Case) -> Method:
    """A method in eval mode: one as prepared before training, or one fitted to all samples."""
    method = case.build(case.source.spec).eval()
    rows = list(range(len(case.source.index)))
    if isinstance(method, LearnsStatistics):
        method.prepare([batch_of(case, rows)])
    if case.fitted:
        if not case.learned:
            case.learned.update(fit_to(case, [batch_of(case, rows)]).state_dict())
        method.load_state_dict(case.learned)
    return method


def check_it_is_of_the_kind_that_its_config_says(case: Case) -> None:
    method = case.build(case.source.spec)
    assert isinstance(method, FittedMethod if case.fitted else TrainedMethod)
    assert not case.fitted or not list(method.parameters())


def losses_and_gradients(case: Case, batch: Batch) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    method = case.build(case.source.spec).train()
    assert isinstance(method, TrainedMethod)
    losses = method.training_step(batch, draws_of(case, batch))
    losses["loss"].backward()
    gradients = {n: p.grad for n, p in method.named_parameters() if p.requires_grad and p.grad is not None}
    return {name: loss.detach() for name, loss in losses.items()}, gradients


def check_losses_are_finite_and_reach_every_parameter(case: Case) -> None:
    losses, gradients = losses_and_gradients(case, batch_of(case, [0, 1, 2]))
    assert all(loss.ndim == 0 and torch.isfinite(loss) for loss in losses.values()), losses
    method = case.build(case.source.spec)
    for name, parameter in method.named_parameters():
        if parameter.requires_grad:
            assert name in gradients, f"{name} gets no gradient"
            assert torch.isfinite(gradients[name]).all(), name
    assert any(gradient.abs().sum() > 0 for gradient in gradients.values())


def check_absent_views_and_inputs_have_no_influence(case: Case) -> None:
    batch = batch_of(case, [0, 1, 2])
    lacking = [~batch.view_mask, *(~shown for shown in batch.present.values())]
    assert any(mask.any() for mask in lacking), "the case needs a sample that lacks something"
    before, after = (_learned_from(case, given) for given in (batch, garbled(case, batch)))
    assert before.keys() == after.keys()
    for name, values in before.items():
        torch.testing.assert_close(after[name], values, rtol=0, atol=0)
    scores = scored(case, batch), scored(case, garbled(case, batch))
    torch.testing.assert_close(scores[1], scores[0], rtol=0, atol=0)


def _learned_from(case: Case, batch: Batch) -> dict[str, Tensor]:
    """The state after a fit to a batch, or the losses and gradients of a training step on it."""
    if case.fitted:
        return fit_to(case, [batch]).state_dict()
    losses, gradients = losses_and_gradients(case, batch)
    return {f"loss {name}": value for name, value in losses.items()} | gradients


def scored(case: Case, batch: Batch) -> Tensor:
    """Sample scores [B]."""
    scorer = Scorer(case.config.eval, ready(case), CPU)
    return torch.from_numpy(scorer.final(scorer.score(batch).without_maps())[1])


def check_scores_depend_on_no_other_sample(case: Case) -> None:
    """Whatever the batch size and the order."""
    rows = [0, 1, 2, 3, 4]
    together = scored(case, batch_of(case, rows))
    turned = scored(case, batch_of(case, rows[::-1])).flip(0)
    alone = torch.cat([scored(case, batch_of(case, [row])) for row in rows])
    torch.testing.assert_close(turned, together, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(alone, together, rtol=1e-5, atol=1e-6)
    method = ready(case)
    answer = method.score(batch_of(case, rows))
    assert ("map" in answer.maps) == method.draws_maps


def check_the_state_makes_an_equal_method(case: Case) -> None:
    batch = batch_of(case, [0, 1, 2])
    method, other = ready(case), case.build(case.source.spec)
    with torch.no_grad():
        for parameter in method.parameters():
            parameter.add_(0.01)
    other.load_state_dict(method.state_dict())
    one, two = method.eval().score(batch), other.eval().score(batch)
    for name, values in one.maps.items():
        torch.testing.assert_close(two.maps[name], values, rtol=0, atol=0)
    if one.samples is not None:
        torch.testing.assert_close(two.samples, one.samples, rtol=0, atol=0)


def check_the_same_draws_and_samples_teach_the_same(case: Case) -> None:
    batch = batch_of(case, [0, 1, 2])
    first, again = _learned_from(case, batch), _learned_from(case, batch)
    for name, values in first.items():
        torch.testing.assert_close(again[name], values, rtol=0, atol=0)


class Stopped(Exception):
    """Raised to stop a training."""


def check_resumed_equals_uninterrupted(case: Case, folder: Path) -> None:
    settings = case.config.train.model_copy(update={"epochs": 3, "batch_size": 2, "eval_every": 1})
    config = case.config.model_copy(update={"train": settings})

    def stop(method: Method, epoch: int) -> ValidationResult:
        if epoch == 2:
            raise Stopped
        return ValidationResult({})

    def weights(name: str) -> dict[str, Tensor]:
        checkpoint = find_checkpoint(folder / name)
        assert checkpoint is not None
        return load_weights(checkpoint)

    fabric = Fabric(accelerator="cpu", devices=1)
    train(config, case.task(folder / "whole"), fabric)
    with pytest.raises(Stopped):
        train(config, case.task(folder / "parts"), fabric, after_epoch=stop)
    train(config, case.task(folder / "parts"), fabric)
    whole, parts = weights("whole"), weights("parts")
    assert whole.keys() == parts.keys()
    for name, values in whole.items():
        assert torch.equal(values, parts[name]), name


def check_it_reads_only_what_it_needs(case: Case) -> None:
    batch, needs = batch_of(case, [0, 1, 2]), case.build(case.source.spec).needs

    def only(names: tuple[str, ...]) -> Batch:
        return batch.with_arrays({name: batch.arrays[name] for name in names})

    _learned_from(case, only(needs.training))
    ready(case).score(only(needs.scoring))


def check_export_gives_the_scores(case: Case) -> None:
    method = ready(case)
    if not isinstance(method, SupportsExport):
        assert not method.draws_maps or IMAGES not in method.needs.scoring, "say why it cannot be exported"
        return
    try:
        module = method.export_module()
    except ConfigError:
        return  # which says in one sentence why
    batch = batch_of(case, [0, 1, 2])
    features = {n: batch.arrays[n].float() for n in method.needs.scoring if n != IMAGES}
    with torch.inference_mode():
        maps = module(batch.images.float() / 255, features, batch.view_mask)
        torch.testing.assert_close(maps, method.score(batch).maps["map"], rtol=1e-4, atol=1e-5)


def check_own_view_scores_can_be_exported_and_are_of_one_view_each(case: Case) -> None:
    method = ready(case)
    if not isinstance(method, ReducesMaps):
        return
    reduces: ReducesMaps = method

    def reduce(maps: Tensor) -> Tensor:
        return reduces.reduce_maps(maps)

    some, others = torch.rand(2, 2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    wanted = reduce(others)
    assert wanted.shape == (2, 3)
    # a shape or a branch that depends on a value would be that of the traced maps
    torch.testing.assert_close(make_fx(reduce)(some)(others), wanted)
    torch.testing.assert_close(reduce(others[:1, 1:2]), wanted[:1, 1:2])


def check_subsets_are_scored_as_if_the_rest_were_absent(case: Case) -> None:
    method = ready(case)
    if not isinstance(method, ScoresSubsets):
        return
    batch = batch_of(case, [0, 2])
    assert batch.view_mask.all()
    masks = batch.view_mask.repeat(2, 1, 1)
    masks[0, :, 0] = False
    masks[1, 0, 1:] = False
    with torch.inference_mode():
        maps = method.score_subsets(method.encode_batch(batch), batch, masks)
        wanted = [method.score(replace(batch, view_mask=mask)).maps["map"][mask] for mask in masks]
    torch.testing.assert_close(maps, torch.cat(wanted), rtol=1e-4, atol=1e-5)


def check_a_prediction_of_the_stored_features_is_at_no_distance(case: Case) -> None:
    """The distance is that of the views alone that are there, and 0 for a perfect constant."""
    method = ready(case)
    if not isinstance(method, PredictsFeatures):
        return
    batch = batch_of(case, [2])
    assert batch.view_mask.all()
    stored = {name: batch.arrays[name][0].float() for name in method.predicted_arrays}
    assert set(stored) <= set(method.needs.scoring)
    with torch.inference_mode():
        perfect, own = method.feature_distance(batch, stored), method.feature_distance(batch)
    assert perfect.shape == own.shape == batch.view_mask.shape
    torch.testing.assert_close(perfect, torch.zeros_like(perfect), rtol=0, atol=1e-5)
    assert own.isfinite().all()
    assert (own > 1e-4).all()
    incomplete = batch_of(case, [0, 1, 2])
    shown = incomplete.view_mask
    with torch.inference_mode():
        found, other = (method.feature_distance(b)[shown] for b in (incomplete, garbled(case, incomplete)))
    torch.testing.assert_close(found, other, rtol=1e-5, atol=1e-6)


def check_independent_views_are_scored_alike_whatever_is_hidden(case: Case) -> None:
    method = ready(case)
    if not method.independent_views:
        return
    batch = batch_of(case, [0, 2, 3])
    whole = method.score(batch)
    assert whole.samples is None
    mask = batch.view_mask.clone()
    mask[0, 0] = mask[1, 1] = False
    some = method.score(replace(batch, view_mask=mask))
    torch.testing.assert_close(some.maps["map"][mask], whole.maps["map"][mask], rtol=1e-5, atol=1e-6)
    if whole.views is not None and some.views is not None:
        torch.testing.assert_close(some.views[mask], whole.views[mask], rtol=1e-5, atol=1e-6)


def check_a_fit_depends_on_no_batch_size_and_can_be_extended(case: Case) -> None:
    """Only the size of a coreset is the same after an extension: earlier choices stay."""
    if not case.fitted:
        return
    rows, batch = [0, 1, 2, 3, 4], batch_of(case, [1, 3])
    whole = fit_to(case, [batch_of(case, rows)])
    parts = fit_to(case, [batch_of(case, [row]) for row in rows])
    grown = fit_to(case, [batch_of(case, rows[3:])], fit_to(case, [batch_of(case, rows[:3])]))
    state = whole.state_dict()
    for name, values in parts.state_dict().items():
        torch.testing.assert_close(values, state[name], rtol=1e-5, atol=1e-6)
    for name, values in grown.state_dict().items():
        assert values.shape == state[name].shape, name
    if getattr(case.config.method, "share", 1) == 1:
        for one, other in zip(
            grown.score(batch).maps.values(), whole.score(batch).maps.values(), strict=True
        ):
            torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)
