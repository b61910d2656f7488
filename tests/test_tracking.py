"""TensorBoard events: the log again, each step once, and nothing else changed by them."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning_fabric import Fabric
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from cli.__main__ import run
from idif.config import Config
from idif.config_file import resolve
from idif.corruption.textures import load_textures
from idif.live import LiveFeatures
from idif.methods import Method
from idif.runlog import read_log
from idif.tracking import TensorBoard, trackers
from idif.train import Task, train
from tests.tiny_data import tiny_index, untrained

INDEX = tiny_index(categories=("cup",), train=2, test=0)
EVENTS = "tensorboard.compat.proto.event_pb2"


def shown(folder: Path) -> EventAccumulator:
    """What TensorBoard makes of a folder of event files."""
    events = EventAccumulator(str(folder), size_guidance={"scalars": 0, "tensors": 0})
    events.Reload()
    return events


def as_scalars(log: list[dict[str, Any]]) -> dict[str, list[tuple[int, float]]]:
    """Tag -> (step, number) of every line, as the log holds them."""
    wanted: dict[str, list[tuple[int, float]]] = {}
    for line in log:
        numbers = {k: v for k, v in line.items() if k not in ("epoch", "step", "eval")}
        for key, value in (numbers | {f"eval/{k}": v for k, v in line.get("eval", {}).items()}).items():
            wanted.setdefault(key, []).append((line["step"], pytest.approx(value, rel=1e-6)))
    return wanted


def test_a_resumed_training_is_shown_once_and_is_the_untracked_one(data: Path, tmp_path: Path) -> None:
    source = LiveFeatures(data, INDEX, untrained(), 32, torch.device("cpu"))
    textures = load_textures("procedural", 32, tmp_path)

    def attempt(name: str, tracking: str, after_epoch: Callable[[Method, int], dict[str, Any]]) -> Path:
        raw = {
            "method": {
                "voxel": {"depth": 2, "height": 2, "width": 2, "channels": 16},
                "heads": 2,
                "blocks": 1,
            },
            "train": {"epochs": 3, "batch_size": 1, "eval_every": 1},
            "run": {"tracking": tracking},
        }
        folder = tmp_path / name
        folder.mkdir(exist_ok=True)
        task = Task("cup", folder, source, [0, 1], textures)
        fabric = Fabric(accelerator="cpu", devices=1)
        train(resolve(raw, source="test")[0], task, fabric, after_epoch=after_epoch)
        return folder

    def scored(_method: Method, epoch: int) -> dict[str, Any]:
        return {"s_auroc": epoch / 10}

    def dies(method: Method, epoch: int) -> dict[str, Any]:
        if epoch == 2:
            raise KeyboardInterrupt
        return scored(method, epoch)

    untracked = attempt("untracked", "none", scored)
    assert not (untracked / "tensorboard").exists()
    with pytest.raises(KeyboardInterrupt):
        attempt("tracked", "tensorboard", dies)
    folder = tmp_path / "tracked"
    assert [event.step for event in shown(folder / "tensorboard").Scalars("loss")] == [1, 2, 3, 4]
    attempt("tracked", "auto", scored)

    events, log = shown(folder / "tensorboard"), read_log(folder / "log.jsonl")
    found = {tag: [(e.step, e.value) for e in events.Scalars(tag)] for tag in events.Tags()["scalars"]}
    assert found == as_scalars(log)
    assert found["eval/s_auroc"] == [
        (2, pytest.approx(0.1)),
        (4, pytest.approx(0.2)),
        (6, pytest.approx(0.3)),
    ]
    texts = events.Tensors("config")
    assert [event.step for event in texts] == [1, 3]
    assert "    tracking: auto" in texts[-1].tensor_proto.string_val[0].decode()

    assert (folder / "log.jsonl").read_bytes() == (untracked / "log.jsonl").read_bytes()
    first, second = (load_file(f / "checkpoint" / "model.safetensors") for f in (folder, untracked))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_an_evaluation_without_a_figure_is_no_event(tmp_path: Path) -> None:
    """A split of one class has no S-AUROC; the log says null."""
    board = TensorBoard(tmp_path, "", after_step=0)
    board.write({"step": 1, "loss": 2.0}, {"step": 1, "eval": {"s_auroc": None}})
    assert shown(tmp_path).Tags()["scalars"] == ["loss"]


def test_where_tensorboard_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """By default nothing is done; asked for by name it is one sentence, before anything is written."""
    monkeypatch.setitem(sys.modules, EVENTS, None)
    assert trackers(Config(), tmp_path, after_step=0) == []
    (tmp_path / "c.yaml").write_text(f"run: {{tracking: tensorboard, dir: '{tmp_path.as_posix()}'}}")
    assert run(["train", f"--config={tmp_path / 'c.yaml'}"]) == 2
    said = " ".join(capsys.readouterr().err.split())
    assert "run.tracking: tensorboard is not installed; install the extra `tracking`" in said
    assert [path.name for path in tmp_path.iterdir()] == ["c.yaml"]
