"""Causal-FiLM as a whole: its sizes, its scores, missing inputs, and what it learns."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn

from idif.config.sections import Config
from idif.data.arrays import VIEW, ArraySpec
from idif.data.batch import Batch
from idif.data.features import FeatureSpec
from idif.errors import ConfigError, StoreMismatch
from idif.methods.catalog import METHODS
from idif.methods.causal_film.config import CausalFiLMConfig
from idif.methods.causal_film.losses import cosine_distance, largest_half
from idif.methods.causal_film.model import CausalFiLM
from idif.methods.causal_film.spec import check_features
from idif.randomness import Draws
from tests.helpers.run_arrays import RunArrays, run_features

FULL = {"video": (16, 1024), "audio": (73, 768), "sensor": (256, 6), "still": (201, 1280), "text": 512}


def section(**settings: Any) -> CausalFiLMConfig:
    small = METHODS["causal-film"].smallest().model_dump()
    config = Config.model_validate({"method": small | settings}).method
    assert isinstance(config, CausalFiLMConfig)
    return config


def trainable(module: nn.Module | None) -> int:
    return 0 if module is None else sum(p.numel() for p in module.parameters() if p.requires_grad)


def batch_of(source: RunArrays) -> Batch:
    (batch,) = source.batches(range(len(source.index)), len(source.index))
    return batch


def draws_of(source: RunArrays, step: int = 0) -> Draws:
    ids = tuple(sample.sample_id for sample in source.index.samples)
    return Draws(0, step, step, 0, ids, source.index.view_numbers, torch.device("cpu"))


def test_the_published_numbers_of_parameters() -> None:
    features = run_features(**FULL)  # type: ignore[arg-type]
    model = CausalFiLM(CausalFiLMConfig(), features)
    assert trainable(model.project_text) == 512 * 512 + 512
    assert trainable(model) - trainable(model.project_text) == 18_264_385
    two = [{"array": name, "pool": "gem"} for name in ("img_b9", "img_b20")]
    headline = Config.model_validate({"method": {"name": "causal-film", "poolings": two}}).method
    assert isinstance(headline, CausalFiLMConfig)
    model = CausalFiLM(headline, features)
    assert trainable(model) - trainable(model.project_text) == 13_508_864 + 2


def test_the_text_projection_is_trained() -> None:
    source = RunArrays()
    model = CausalFiLM(section(), source.spec).train()
    losses = model.training_step(batch_of(source), draws_of(source))
    losses["loss"].backward()
    assert model.project_text is not None
    assert model.project_text.weight in set(model.parameters())
    assert model.project_text.weight.grad is not None
    assert model.project_text.weight.grad.abs().sum() > 0
    bare = CausalFiLM(section(loss={"text": 0}), source.spec)
    assert bare.project_text is None
    assert "text" not in bare.needs.training
    assert "text" not in bare.training_step(batch_of(source), draws_of(source))


def test_the_loss_is_the_weighted_sum_of_its_parts() -> None:
    source = RunArrays()
    config = section(loss={"l1": 3, "gram": 2, "text": 0.5})
    losses = CausalFiLM(config, source.spec).training_step(batch_of(source), draws_of(source))
    parts = losses["cosine"] + 3 * losses["l1"] + 2 * losses["gram"] + 0.5 * losses["text"]
    torch.testing.assert_close(losses["loss"], parts)
    assert {"result_rank", "result_spread"} <= losses.keys()


def test_the_score_is_the_cosine_distance_and_ten_times_the_larger_half() -> None:
    source = RunArrays((("test", 3),))
    model = CausalFiLM(section(), source.spec).eval()
    batch = batch_of(source)
    present = {name: batch.present[name] for name in ("video", "audio", "sensor")}
    pair = model._embed(batch.arrays, present, batch.view_mask)
    apart = pair.prediction - pair.result
    exact = cosine_distance(pair.prediction, pair.result) + 10 * largest_half(apart)
    scores = model.score(batch)
    assert scores.samples is not None
    torch.testing.assert_close(scores.samples, exact)
    assert not scores.maps


def test_the_score_of_a_still_is_that_of_a_sample_with_no_other() -> None:
    source = RunArrays((("test", 3),))
    model = CausalFiLM(section(), source.spec).eval()
    batch = batch_of(source)
    views = model.score(batch).views
    alone = batch.view_mask.clone()
    alone[:, 1] = False
    samples = model.score(replace(batch, view_mask=alone)).samples
    assert views is not None
    assert samples is not None
    torch.testing.assert_close(views[:, 0], samples)


def test_what_is_missing_is_taken_as_normal_and_nothing_known_has_no_score() -> None:
    missing = {1: ("video", "audio", "sensor"), 2: ("stills",), 3: ("video", "audio", "sensor", "stills")}
    source = RunArrays((("train", 5),), missing)
    model = CausalFiLM(section(), source.spec)
    model.training_step(batch_of(source), draws_of(source))
    assert model.normal_result.abs().sum() > 0
    model.eval()
    batch = batch_of(source)
    before = model.score(batch).samples
    assert before is not None
    assert torch.isfinite(before).tolist() == [True, True, True, False, True]
    model.normal_prediction += 1
    after = model.score(batch).samples
    assert after is not None
    assert (after != before).tolist() == [False, True, False, True, False]
    model.normal_result += 1
    last = model.score(batch).samples
    assert last is not None
    assert (last != after).tolist() == [False, False, True, True, False]


def test_each_input_matters() -> None:
    source = RunArrays((("test", 1),))
    model = CausalFiLM(section(), source.spec).eval()
    nn.init.normal_(model.modulator.project_out.weight)
    batch = batch_of(source)
    whole = model.score(batch).samples
    for name in ("video", "audio", "sensor"):
        hidden = batch.present | {name: torch.tensor([False])}
        without = model.score(replace(batch, present=hidden)).samples
        assert whole is not None
        assert without is not None
        assert abs(whole - without).item() > 1e-6, name


def test_a_dropped_input_is_a_missing_one_and_never_the_last() -> None:
    source = RunArrays((("train", 6),), {1: ("video", "audio")})
    model = CausalFiLM(section(input_dropout=0.9), source.spec)
    present = {name: batch_of(source).present[name] for name in ("video", "audio", "sensor")}
    kept = model._drop_inputs(present, draws_of(source))
    for name, mask in kept.items():
        assert not (mask & ~present[name]).any()
    assert torch.stack(list(kept.values())).any(dim=0).all()
    assert torch.stack(list(kept.values())).sum() < torch.stack(list(present.values())).sum()


@pytest.mark.parametrize(("target", "learns"), [("joint", True), ("detach", False), ("ema", True)])
def test_the_target_says_which_encoder_learns(target: str, learns: bool) -> None:
    source = RunArrays()
    model = CausalFiLM(section(target=target), source.spec)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for step in range(2):
        model.training_step(batch_of(source), draws_of(source, step))["loss"].backward()
        optimizer.step()
    changed = {
        n.split(".")[0] for n, value in model.state_dict().items() if not torch.equal(value, before[n])
    }
    assert ("result" in changed) == learns
    assert "decoder" in changed
    assert ("slow_result" in changed) == (target == "ema")


def test_arrays_of_other_axes_are_refused_by_name() -> None:
    features = run_features()
    with pytest.raises(StoreMismatch, match="img_b99"):
        check_features(section(poolings=[{"array": "img_b99"}]), features)
    with pytest.raises(ConfigError, match="img_b31_mean has view, channel"):
        check_features(section(poolings=[{"array": "img_b31_mean"}]), features)
    with pytest.raises(ConfigError, match="less than the 5 tokens"):
        check_features(section(poolings=[{"array": "img_b20", "skip": 5}]), features)
    video, *others = features.encoders
    flat = ArraySpec("video", (VIEW, "channel"), (8,), "float32", "video")
    changed = FeatureSpec((replace(video, arrays=(flat,)), *others), 32, "float32", stores_images=False)
    with pytest.raises(ConfigError, match="video of the axes time, channel"):
        check_features(section(), changed)
