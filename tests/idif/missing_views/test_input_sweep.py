"""Sweeps over inputs: what each choice scores, which samples have no score, and what each input is worth."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from idif.config.sections import Config, EvalConfig
from idif.data.batch import Batch
from idif.errors import ConfigError
from idif.evaluation.scoring import Scorer
from idif.methods.catalog import METHODS
from idif.methods.protocol import Needs, Scores, TrainedMethod
from idif.missing_views.input_sweep import keep_inputs, mean_input_sweep, score_inputs, sweep_inputs
from idif.randomness import Draws
from idif.runs.run import method_context
from tests.helpers.run_arrays import RunArrays

CPU = torch.device("cpu")


class LargestMean(TrainedMethod):
    """Scores a sample by the largest mean of its arrays; a missing input counts as minus nine."""

    draws_maps = False

    def __init__(self, *arrays: str) -> None:
        super().__init__()
        self.needs = Needs(training=(), scoring=arrays)
        self.unused = nn.Linear(1, 1)

    def training_step(self, batch: Batch, draws: Draws) -> dict[str, Tensor]:
        raise NotImplementedError

    def score(self, batch: Batch) -> Scores:
        means = []
        for name in self.needs.scoring:
            shown = batch.present[name] if name in batch.present else batch.view_mask.any(dim=1)
            means.append(batch.arrays[name].flatten(1).mean(dim=1).masked_fill(~shown, -9.0))
        scores = torch.stack(means).amax(dim=0)
        return Scores(views=torch.zeros(batch.view_mask.shape), samples=scores)

    def describe(self) -> dict[str, str]:
        return {}


def scorer_of(method: TrainedMethod) -> Scorer:
    return Scorer(EvalConfig(batch_size=5), method, CPU)


def by_inputs(sweep: dict[str, Any]) -> dict[tuple[str, ...], dict[str, Any]]:
    return {tuple(found["inputs"]): found for found in sweep["subsets"]}


def test_every_subset_and_the_value_of_each_input() -> None:
    source = RunArrays((("test", 24),), shows_in=("audio",))
    sweep = sweep_inputs(scorer_of(LargestMean("audio", "sensor", "img_b31_mean")), source)
    assert sweep["inputs"] == ["audio", "sensor", "image"]
    found = by_inputs(sweep)
    assert len(found) == 7
    assert found["audio",]["s_auroc"] > 0.9
    assert found["audio",]["per_defect"]["burn"] >= found["audio",]["per_defect"]["crack"]
    assert abs(found["sensor",]["s_auroc"] - 0.5) < 0.3
    assert sum(sweep["value"].values()) == pytest.approx(found["audio", "sensor", "image"]["s_auroc"] - 0.5)
    assert max(sweep["value"], key=sweep["value"].__getitem__) == "audio"
    assert sweep["best_subsets"]["1"]["inputs"] == ["audio"]
    lost = found["audio", "sensor", "image"]["s_auroc"] - found["sensor", "image"]["s_auroc"]
    assert sweep["leave_one_out"]["audio"] == pytest.approx(lost)


def test_samples_without_the_chosen_inputs_have_no_score() -> None:
    source = RunArrays((("test", 8),), {0: ("audio",), 1: ("audio", "sensor"), 2: ("stills",)})
    scorer = scorer_of(LargestMean("audio", "sensor", "img_b31_mean"))
    audio, both, image = score_inputs(scorer, source, [("audio",), ("audio", "sensor"), ("image",)])
    assert np.isnan(audio).tolist() == [True, True, *[False] * 6]
    assert np.isnan(both).tolist() == [False, True, *[False] * 6]
    assert np.isnan(image).tolist() == [False, False, True, *[False] * 5]
    counts = by_inputs(sweep_inputs(scorer, source))["audio",]
    assert (counts["samples"], counts["unscorable"]) == (6, 2)


def test_a_subset_scores_as_if_the_rest_were_absent_in_the_data() -> None:
    section = METHODS["causal-film"].smallest()
    config = Config.model_validate({"method": section})
    source = RunArrays((("test", 4),))
    missing: tuple[str, ...] = ("video", "still 1", "still 2")
    lacking = RunArrays((("test", 4),), dict.fromkeys(range(4), missing))
    method = METHODS["causal-film"].build(section, method_context(config, source.spec, (1, 2), ["weld"]))
    kept, _ = score_inputs(scorer_of(method), source, [("audio", "sensor"), ("video",)])  # type: ignore[arg-type]
    (absent,) = score_inputs(scorer_of(method), lacking, [("audio", "sensor", "video", "image")])  # type: ignore[arg-type]
    np.testing.assert_allclose(kept, absent, rtol=1e-6)


def test_hidden_inputs_are_absent_and_zero() -> None:
    source = RunArrays((("test", 3),))
    (batch,) = source.batches(range(3), 3)
    shown = keep_inputs(batch, source.spec, ("audio",))
    assert not shown.view_mask.any()
    assert {name: bool(mask.any()) for name, mask in shown.present.items()} == {
        "video": False,
        "audio": True,
        "sensor": False,
    }
    assert not shown.arrays["img_b20"].any()
    assert torch.equal(shown.arrays["audio"], batch.arrays["audio"])
    assert torch.equal(shown.arrays["text"], batch.arrays["text"])


def test_one_input_cannot_be_missing() -> None:
    source = RunArrays((("test", 3),))
    with pytest.raises(ConfigError, match="several inputs of a sample; this one reads audio"):
        sweep_inputs(scorer_of(LargestMean("audio")), source)


def test_the_mean_over_categories() -> None:
    sweeps = [
        sweep_inputs(scorer_of(LargestMean("audio", "sensor")), RunArrays((("test", count),), shows_in=shows))
        for count, shows in ((12, ("audio",)), (8, ("sensor",)))
    ]
    mean = mean_input_sweep({"a": sweeps[0], "b": sweeps[1]})
    each = [by_inputs(sweep)["audio",]["s_auroc"] for sweep in sweeps]
    assert by_inputs(mean)["audio",]["s_auroc"] == pytest.approx(sum(each) / 2)
    assert by_inputs(mean)["audio",]["samples"] == 20
    assert set(mean["categories"]) == {"a", "b"}


def test_only_a_sample_without_any_input_may_lack_a_score() -> None:
    missing = {1: ("video", "audio", "sensor", "stills")}
    source = RunArrays((("test", 3),), missing)
    section = METHODS["causal-film"].smallest()
    config = Config.model_validate({"method": section})
    method = METHODS["causal-film"].build(section, method_context(config, source.spec, (1, 2), ["weld"]))
    scores = Scorer(EvalConfig(), method, CPU).collect(source, range(3), title="")
    assert scores.scorable.tolist() == [True, False, True]
    (batch,) = source.batches([0], 1)
    broken = replace(batch, arrays=batch.arrays | {"audio": batch.arrays["audio"] * torch.nan})
    assert not torch.isfinite(method.score(broken).samples).any()  # type: ignore[arg-type]
