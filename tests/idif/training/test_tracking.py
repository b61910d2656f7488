"""Trackers show the log and a few pictures again, each step once, and change nothing else."""

import json
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning_fabric import Fabric
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from cli.__main__ import run
from idif.config.loader import resolve
from idif.config.sections import Config, EvalConfig
from idif.corruption.textures import load_textures
from idif.evaluation.scoring import Scorer
from idif.methods.protocol import Method
from idif.training.checkpoint import load_state
from idif.training.loop import train
from idif.training.run_log import read_log
from idif.training.tracking import TensorBoard, tracking
from idif.training.validation import ValidationResult, validate
from tests.helpers.tiny_data import tiny_index
from tests.helpers.tiny_training import SMALL, idif_task, live_source

INDEX = tiny_index(categories=("cup",), train=0, test=2)
PICTURE = "maps/cup/NG/scratch/S1001"
"""The anomalous one of the two samples."""
FILES = ["checkpoint", "checkpoint.previous", "log.jsonl", "timing.jsonl"]


def shown(folder: Path) -> EventAccumulator:
    """The content of a folder of event files, as TensorBoard reads it."""
    events = EventAccumulator(str(folder), size_guidance={"scalars": 0, "tensors": 0})
    events.Reload()
    return events


def as_scalars(log: list[dict[str, Any]]) -> dict[str, list[tuple[int, Any]]]:
    """Tag -> (step, number) of every line, as the log holds them."""
    wanted: dict[str, list[tuple[int, Any]]] = {}
    for line in log:
        numbers = {k: v for k, v in line.items() if k not in ("epoch", "step", "eval")}
        for key, value in (numbers | {f"eval/{k}": v for k, v in line.get("eval", {}).items()}).items():
            wanted.setdefault(key, []).append((line["step"], pytest.approx(value, rel=1e-6)))
    return wanted


class Trainings:
    """The same tiny training, tracked or not, whole or interrupted."""

    def __init__(self, data: Path, folder: Path) -> None:
        self.folder = folder
        self.source = live_source(data, INDEX, 32)
        self.textures = load_textures("procedural", 32, folder)

    def attempt(self, name: str, tracking: str, *, dies_in_epoch: int = 0) -> Path:
        """Train into the folder ``name``; an attempt may be interrupted in the evaluation of an epoch."""
        raw = {
            "method": SMALL,
            "train": {"epochs": 3, "batch_size": 1, "eval_every": 1},
            "run": {"tracking": tracking},
        }
        (config,), folder = resolve(raw, source="test"), self.folder / name
        task = idif_task(config, self.source, self.textures, folder)

        def scored(method: Method, epoch: int) -> ValidationResult:
            if epoch == dies_in_epoch:
                raise KeyboardInterrupt
            return validate(Scorer(EvalConfig(), method, torch.device("cpu")), self.source)

        fabric = Fabric(accelerator="cpu", devices=1)
        with pytest.raises(KeyboardInterrupt) if dies_in_epoch else nullcontext():
            train(config, task, fabric, after_epoch=scored)
        return folder


@pytest.fixture(scope="module")
def trainings(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Trainings:
    return Trainings(data, tmp_path_factory.mktemp("trainings"))


@pytest.fixture(scope="module")
def untracked(trainings: Trainings) -> Path:
    return trainings.attempt("untracked", "none")


def same_bytes(folder: Path, other: Path) -> bool:
    names = ("log.jsonl", "checkpoint/model.safetensors")
    return all((folder / name).read_bytes() == (other / name).read_bytes() for name in names)


def test_a_resumed_training_is_shown_once_and_is_the_untracked_one(
    trainings: Trainings, untracked: Path
) -> None:
    assert sorted(path.name for path in untracked.iterdir()) == FILES
    folder = trainings.attempt("tensorboard", "tensorboard", dies_in_epoch=2)
    assert [event.step for event in shown(folder / "tensorboard").Scalars("loss")] == [1, 2, 3, 4]
    trainings.attempt("tensorboard", "auto")

    events, log = shown(folder / "tensorboard"), read_log(folder / "log.jsonl")
    found = {tag: [(e.step, e.value) for e in events.Scalars(tag)] for tag in events.Tags()["scalars"]}
    assert found == as_scalars(log)
    assert [step for step, _ in found["eval/s_auroc"]] == [2, 4, 6]
    texts = events.Tensors("config/text_summary")
    assert [event.step for event in texts] == [1, 3]
    assert "    tracking: auto" in texts[-1].tensor_proto.string_val[0].decode()
    assert events.Tags()["images"] == [PICTURE]
    pictures = events.Images(PICTURE)
    assert [event.step for event in pictures] == [2, 4, 6]
    # three cameras side by side, the photographs above their heat
    assert [(event.width, event.height) for event in pictures] == [(3 * 32, 2 * 32)] * 3
    assert same_bytes(folder, untracked)


def records(folder: Path) -> list[Any]:
    """Records of the one run that Weights & Biases wrote into a folder while offline."""
    from wandb.proto.wandb_internal_pb2 import Record
    from wandb.sdk.internal.datastore import DataStore

    (file,) = folder.glob("*.wandb")
    store = DataStore()
    store.open_for_scan(str(file))
    found = []
    while (data := store.scan_data()) is not None:
        found.append(Record.FromString(data))
    store.close()
    return found


@pytest.mark.long
def test_weights_and_biases_goes_on_in_the_same_run(
    trainings: Trainings, untracked: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Offline, with the real package: both starts have one id, every line arrives, nothing else changes."""
    pytest.importorskip("wandb", reason="the extra `wandb` is not installed")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_ERROR_REPORTING", "false")
    folder = trainings.attempt("wandb", "wandb", dies_in_epoch=2)
    known = load_state(folder / "checkpoint")["tracked_as"]
    trainings.attempt("wandb", "wandb")
    assert load_state(folder / "checkpoint")["tracked_as"] == known
    starts = sorted((folder / "wandb").glob("offline-run-*"))
    assert [start.name.rsplit("-", 1)[1] for start in starts] == [known, known]

    first, second = map(records, starts)
    (run,) = [record.run for record in second if record.HasField("run")]
    assert (run.run_id, run.run_group, run.display_name) == (known, "idif", f"{folder.parent.name}/wandb")
    assert {"train", "method"} <= {update.key for update in run.config.update}
    assert [record.exit.exit_code for record in first + second if record.HasField("exit")] == [1, 0]
    told: dict[str, list[tuple[int, float]]] = {}
    pictures = []
    for record in second:
        items = {("/".join(i.nested_key) or i.key): json.loads(i.value_json) for i in record.history.item}
        for key, value in items.items():
            if key.startswith(PICTURE):
                if key.endswith("/path"):
                    pictures.append(items["step"])
                    assert (starts[1] / "files" / value).is_file()
            elif not key.startswith("_") and key != "step":
                told.setdefault(key, []).append((items["step"], value))
    log = [line for line in read_log(folder / "log.jsonl") if line["step"] > 2]
    assert told == as_scalars(log)
    assert pictures == [4, 6]
    assert same_bytes(folder, untracked)


def test_an_evaluation_without_a_figure_is_no_event(tmp_path: Path) -> None:
    """A split of one class has no S-AUROC; the log says null."""
    board = TensorBoard(tmp_path, "", after_step=0)
    board.write({"step": 1, "loss": 2.0}, {"step": 1, "eval": {"s_auroc": None}})
    assert shown(tmp_path).Tags()["scalars"] == ["loss"]
    board.close()


def test_where_tensorboard_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """By default nothing is done; asked for by name it is one sentence, before anything is written."""
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with tracking(Config(), tmp_path) as tracker:
        assert tracker is None
    (tmp_path / "c.yaml").write_text(f"run: {{tracking: tensorboard, dir: '{tmp_path.as_posix()}'}}")
    assert run(["train", f"--config={tmp_path / 'c.yaml'}"]) == 2
    said = " ".join(capsys.readouterr().err.split())
    assert "run.tracking: tensorboard is not installed; install the extra `tracking`" in said
    assert [path.name for path in tmp_path.iterdir()] == ["c.yaml"]
