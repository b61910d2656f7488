"""A method that learns from labels: what it may read, what it must not choose, what readers are told."""

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

import idif
from idif.config.sections import Config
from idif.data.batch import Batch
from idif.data.index import Split
from idif.errors import ConfigError, StoreMismatch
from idif.methods.catalog import METHODS
from idif.report.page import write_report
from idif.runs.api import TrainedRun
from idif.training.labels import LEARNED_FROM, labels_note, labels_text, require_labels
from idif.training.sampling import balanced_order, epoch_order, training_normals, training_rows
from tests.helpers.run_arrays import RunArrays

SUPCON = Config.model_validate({"method": {"name": "supcon"}})


@pytest.mark.parametrize("world", [1, 3])
@pytest.mark.parametrize("batch_size", [4, 5])
def test_balanced_batches_have_as_many_of_one_kind_as_of_the_other(world: int, batch_size: int) -> None:
    rows, labels = list(range(100, 131)), [place % 5 == 0 for place in range(31)]
    anomalous = {row for row, label in zip(rows, labels, strict=True) if label}
    seen: Counter[int] = Counter()
    for rank in range(world):
        order = balanced_order(rows, labels, seed=1, epoch=2, rank=rank, world=world)
        assert len(order) == len(epoch_order(rows, seed=1, epoch=2, rank=rank, world=world))
        for start in range(0, len(order), batch_size):
            batch = order[start : start + batch_size]
            bad = sum(row in anomalous for row in batch)
            assert abs(2 * bad - len(batch)) <= 1
        seen += Counter(order)
    for kind in (anomalous, set(rows) - anomalous):
        times = [seen[row] for row in kind]
        assert max(times) - min(times) <= 1
    assert min(seen[row] for row in anomalous) > 1, "the rarer kind is repeated"
    again = balanced_order(rows, labels, seed=1, epoch=2, world=world)
    assert again == balanced_order(rows, labels, seed=1, epoch=2, world=world)
    assert again != balanced_order(rows, labels, seed=1, epoch=3, world=world)


def test_one_kind_alone_is_in_the_usual_order() -> None:
    assert balanced_order(range(9), [False] * 9, seed=0, epoch=1) == epoch_order(range(9), seed=0, epoch=1)


def test_only_normal_training_samples_are_held_out() -> None:
    source = RunArrays((("train", 10), ("val", 8)))
    config = SUPCON.model_copy(update={"train": SUPCON.train.model_copy(update={"holdout": 0.3})})
    kept, held = training_rows(config, source.index)
    assert len(held) == 3
    assert sorted(kept + held) == list(range(18))
    assert all(source.index.samples[row].split == "train" for row in held)
    # evaluation opens the training split alone, and must find the same
    alone = RunArrays((("train", 10),))
    assert training_rows(config, alone.index)[1] == held
    normals, same = training_normals(config, source.index)
    assert same == held
    assert not any(source.index.samples[row].label for row in normals)
    assert len(normals) == len(kept) - 4


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"train": {"eval_every": 1}}, "train.eval_every: supcon learns from the split val"),
        ({"train": {"eval_every": 2, "patience": 3}}, "train.eval_every: supcon learns from the split val"),
        ({"eval": {"threshold": "validation"}}, "eval.threshold: supcon learns from the split val"),
        ({"eval": {"threshold": "validation-youden"}}, "eval.threshold: supcon learns from the split val"),
    ],
)
def test_nothing_can_be_chosen_on_what_was_learned_from(settings: dict[str, Any], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        Config.model_validate({"method": {"name": "supcon"}, **settings})
    defaults = SUPCON
    assert (defaults.train.eval_every, defaults.train.patience) == (0, 0)
    assert defaults.eval.threshold == "false-positive-rate"


def test_methods_of_normal_samples_are_told_nothing() -> None:
    source = RunArrays((("train", 4), ("val", 4)))
    require_labels(Config(), [], "weld")
    assert labels_text(Config(), source.index.samples) is None
    assert labels_note({"head": "idif"}) is None
    assert labels_note({"fused": [{"protocol": {}}, {"protocol": {LEARNED_FROM: "x"}}]}) == "x"
    with pytest.raises(ConfigError, match="of which the data of weld have none"):
        require_labels(SUPCON, source.index.samples[:5], "weld")
    told = labels_text(SUPCON, source.index.samples)
    assert told is not None
    assert "2 of the 8 samples of train and val" in told


class Source(RunArrays):
    """Arrays in memory with stand-ins for the encoders, which nothing calls; notes which samples are read."""

    def __init__(self, counts: Sequence[tuple[Split, int]] = (("train", 8), ("val", 8), ("test", 6))) -> None:
        super().__init__(counts, shows_in=("audio", "img_b31_mean"))
        self.seen: set[str] = set()

    def encoder_set(self) -> Any:
        return SimpleNamespace(encoders=[SimpleNamespace(module=nn.Linear(1, 1)) for _ in self.spec.encoders])

    def batches(
        self, order: Sequence[int], batch_size: int, variants: Sequence[int] | None = None
    ) -> Iterator[Batch]:
        self.seen |= {self.index.samples[row].split for row in order}
        return super().batches(order, batch_size, variants)


def config_of(folder: Path, **train: Any) -> Config:
    settings = {"epochs": 2, "batch_size": 4, "holdout": 0.25, "validate_every": 0} | train
    method, place = METHODS["supcon"].smallest().model_dump(), {"dir": str(folder), "tracking": "none"}
    return Config.model_validate({"method": method, "train": settings, "run": place})


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[TrainedRun, Source, list[str]]:
    """A finished run, the source that it was trained from, and what was said."""
    torch.set_num_threads(1)
    source, told = Source(), list[str]()
    config = config_of(tmp_path_factory.mktemp("labels"))
    return idif.train(config, source, device="cpu", notify=told.append), source, told


LEARNED = "supcon learned from labeled defects, 4 of the 16 samples of train and val"


def test_no_test_sample_is_read_in_training(trained: tuple[TrainedRun, Source, list[str]]) -> None:
    run, source, told = trained
    assert source.seen == {"train", "val"}
    assert any(LEARNED in line for line in told)
    facts = json.loads((run.run.folder / "environment.json").read_text(encoding="utf-8"))
    assert facts[LEARNED_FROM].startswith(LEARNED)
    assert any(caveat.startswith(LEARNED) for caveat in facts["caveats"])


def test_an_evaluation_says_what_was_learned_from(trained: tuple[TrainedRun, Source, list[str]]) -> None:
    told: list[str] = []
    run, source = replace(trained[0], notify=told.append), Source()
    metrics = run.evaluate(source)
    assert metrics["protocol"][LEARNED_FROM].startswith(LEARNED)
    assert metrics["protocol"]["epoch"] == "last"
    assert metrics["categories"]["weld"]["thresholds"]["sample"]["items"] == 2, "held-out normals"
    assert metrics["categories"]["weld"]["decision"]["rule"] == "false-positive-rate"
    assert [line for line in told if LEARNED in line]
    page = write_report([run.run.folder]).read_text(encoding="utf-8")
    assert "on normal samples and labeled defects and evaluated" in page
    assert LEARNED in page
    told.clear()
    run.evaluate(source, split="val")
    assert "note: the samples of the split val are those that the run learned from" in told
    page = write_report([run.run.folder]).read_text(encoding="utf-8")
    assert "Evaluated on the val split, whose samples were learned from, not on the test split." in page


def test_a_run_is_resumed_on_its_own_labels_alone(tmp_path: Path) -> None:
    """Another label in val is another training set, though the split train is the same."""
    idif.train(config_of(tmp_path), Source(), device="cpu")
    other, longer = Source(), config_of(tmp_path, epochs=3)
    samples = list(other.index.samples)
    place = next(at for at, sample in enumerate(samples) if sample.split == "val" and sample.label)
    samples[place] = replace(samples[place], sample_class="OK")
    other.index = replace(other.index, samples=tuple(samples))
    with pytest.raises(StoreMismatch, match="the training samples of weld are not those of the run"):
        idif.train(longer, other, resume=True, device="cpu")
    idif.train(longer, Source(), resume=True, device="cpu")


def test_data_without_labeled_defects_leave_no_run(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="of the split val, of which the data of weld have none"):
        idif.train(config_of(tmp_path), Source((("train", 8), ("test", 6))), device="cpu")
    assert not list(tmp_path.iterdir())
