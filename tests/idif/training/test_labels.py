"""A method that learns from labels: what it may read, what it must not choose, what readers are told."""

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import idif
from cache import FeatureStore
from cli.__main__ import run
from idif.config.loader import load_config
from idif.config.sections import Config
from idif.data.batch import Batch
from idif.data.index import Index
from idif.errors import ConfigError, StoreMismatch
from idif.report.page import write_report
from idif.training.labels import LEARNED_FROM, labels_note, labels_text, require_labels
from idif.training.sampling import balanced_order, epoch_order, training_normals, training_rows
from tests.helpers.run_arrays import RunArrays
from tests.helpers.tiny_weld import make_tiny_weld, make_tiny_weld_store

SUPCON = Config.model_validate({"method": {"name": "supcon"}})
SMALL = (
    "method.width=16",
    "method.attention_heads=2",
    "method.feedforward=32",
    "method.series_encoder={width: 8, layers: 1, attention_heads: 2, feedforward: 16}",
    "train.epochs=2",
    "train.batch_size=4",
    "train.holdout=0.5",
)


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


class Recorded(FeatureStore):
    """A store that notes which samples are read."""

    seen: set[str]

    def batches(
        self, order: Sequence[int], batch_size: int, variants: Sequence[int] | None = None
    ) -> Iterator[Batch]:
        self.seen |= {self.index.samples[row].sample_id for row in order}
        return super().batches(order, batch_size, variants)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    home = tmp_path_factory.mktemp("labels")
    make_tiny_weld(home / "data")
    make_tiny_weld_store(home / "data", home / "store.zarr")
    (home / "c.yaml").write_text(
        f"data: {{root: '{(home / 'data').as_posix()}', reader: weld}}\n"
        f"cache: {{store: '{(home / 'store.zarr').as_posix()}'}}\n"
        "method: {name: supcon}\n"
        f"run: {{dir: '{(home / 'runs').as_posix()}', tracking: none}}\n",
        encoding="utf-8",
    )
    return home


def test_from_python_no_test_sample_is_read(home: Path) -> None:
    store = Recorded.open(home / "store.zarr")
    store.seen = set()
    config = load_config(home / "c.yaml", [*SMALL, "run.name=api"])
    trained = idif.train(config, store, device="cpu")
    splits = {sample.sample_id: sample.split for sample in store.index.samples}
    assert {splits[name] for name in store.seen} == {"train", "val"}
    metrics = trained.evaluate(FeatureStore.open(home / "store.zarr", split="test"), store)
    assert "samples of train and val" in metrics["protocol"][LEARNED_FROM]
    with pytest.raises(ConfigError, match="of the split val, of which the data of weld have none"):
        idif.train(
            load_config(home / "c.yaml", [*SMALL, "run.name=none"]),
            FeatureStore.open(home / "store.zarr", split="train"),
            device="cpu",
        )
    assert not (home / "runs" / "none").exists()


def test_the_commands_read_no_test_sample_and_say_what_was_learned_from(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = sorted(path for path in (home / "store.zarr" / "weld" / "test").rglob("*") if path.is_file())
    shards = [path for path in files if path.suffix != ".json"]
    content = {path: path.read_bytes() for path in shards}
    settings = [f"--config={home / 'c.yaml'}", *(f"--set={option}" for option in SMALL), "--set=run.name=cli"]
    try:
        for path, data in content.items():
            path.write_bytes(bytes(len(data)))  # reading a single row of it fails
        assert run(["train", *settings, "--dry-run"]) == 0
        assert "supcon learned from labeled defects" in capsys.readouterr().err.replace("\n", " ")
        assert run(["train", *settings, "--json"]) == 0
    finally:
        for path, data in content.items():
            path.write_bytes(data)
    samples = FeatureStore.open(home / "store.zarr").index.samples
    learned = [sample for sample in samples if sample.split != "test"]
    (model,) = json.loads(capsys.readouterr().out)["runs"][0]["models"]
    assert model["samples"] == len(learned) - 2, "half of four training runs are held out"
    folder = home / "runs" / "cli"
    facts = json.loads((folder / "environment.json").read_text(encoding="utf-8"))
    counted = f"{sum(sample.label for sample in learned)} of the {len(learned)} samples of train and val"
    assert counted in facts[LEARNED_FROM]
    assert any(counted in caveat for caveat in facts["caveats"])
    assert run(["eval", str(folder), "--json"]) == 0
    printed = capsys.readouterr()
    metrics = json.loads(printed.out)
    assert counted in metrics["protocol"][LEARNED_FROM]
    assert counted in printed.err.replace("\n", " ")
    assert metrics["categories"]["weld"]["decision"]["rule"] == "false-positive-rate"
    assert metrics["protocol"]["epoch"] == "last"
    page = write_report([folder]).read_text(encoding="utf-8")
    assert "on normal samples and labeled defects and evaluated" in page
    assert counted in page
    assert run(["eval", str(folder), "--split=val", "--json"]) == 0
    assert "the samples of the split val are those that the run learned from" in capsys.readouterr().err
    page = write_report([folder]).read_text(encoding="utf-8")
    assert "Evaluated on the val split, whose samples were learned from, not on the test split." in page
    for setting in ("eval.threshold=validation", "train.eval_every=1"):
        assert run(["eval", str(folder), f"--set={setting}", "--json"]) == 2
        assert "supcon learns from the split val" in json.loads(capsys.readouterr().out)["error"]


class Relabeled(FeatureStore):
    """A store in which the first defect of val is called good."""

    @property
    def index(self) -> Index:
        samples = list(super().index.samples)
        place = next(at for at, sample in enumerate(samples) if sample.split == "val" and sample.label)
        samples[place] = replace(samples[place], sample_class="OK")
        return Index(super().index.view_numbers, tuple(samples))


def test_a_run_is_resumed_on_its_own_labels_alone(home: Path) -> None:
    """Another label in val is another training set, though the split train is the same."""
    settings = [*SMALL, "run.name=again"]
    idif.train(load_config(home / "c.yaml", settings), FeatureStore.open(home / "store.zarr"), device="cpu")
    longer = load_config(home / "c.yaml", [*settings, "train.epochs=3"])
    with pytest.raises(StoreMismatch, match="the training samples of weld are not those of the run"):
        idif.train(longer, Relabeled.open(home / "store.zarr"), resume=True, device="cpu")
    idif.train(longer, FeatureStore.open(home / "store.zarr"), resume=True, device="cpu")


def test_data_without_labeled_defects_are_refused(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    manifest = home / "data" / "manifest.csv"
    text = manifest.read_text(encoding="utf-8")
    lines = text.splitlines()
    good = [line for line in lines if "VAL" not in line or "good" in line]
    assert len(good) < len(lines)
    settings = [
        f"--config={home / 'c.yaml'}",
        *(f"--set={option}" for option in SMALL),
        "--set=run.name=good",
    ]
    settings += [
        "--set=cache.source=live",
        "--set=teacher.encoder=weld-tiny",
        "--set=teacher.weights=untrained",
    ]
    try:
        manifest.write_text("\n".join(good) + "\n", encoding="utf-8")
        assert run(["train", *settings, "--json"]) == 2
    finally:
        manifest.write_text(text, encoding="utf-8")
    assert json.loads(capsys.readouterr().out)["error"] == (
        "method.name: supcon learns from labeled defects of the split val, of which the data of weld have "
        "none; add some, or use a method that learns from normal samples alone"
    )
    assert not (home / "runs" / "good").exists()
