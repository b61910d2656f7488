"""The loop: it learns, a resumed run is the uninterrupted one, checkpoints are checked."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning_fabric import Fabric
from safetensors.torch import load_file

from idif.config.loader import resolve
from idif.config.sections import Config
from idif.corruption.textures import TextureBank, load_textures
from idif.data.batch import Batch
from idif.encoders.live import LiveFeatures
from idif.errors import CannotFinish, RunError
from idif.evaluation.test_pass import scoring_protocol
from idif.methods.idif.decoder import ViewDecoders
from idif.methods.idif.model import IDIF
from idif.methods.protocol import Method
from idif.randomness import Draws
from idif.training.checkpoint import load_state, load_weights, read_progress, save_checkpoint
from idif.training.checkpoint_files import TrainingProgress, find_checkpoint
from idif.training.loop import train
from idif.training.run_log import RunLog, read_log
from idif.training.state import TrainingState
from idif.training.step_metrics import out_of_memory_as_error
from idif.training.validation import ValidationResult
from tests.helpers.hostile_pickle import Hostile
from tests.helpers.tiny_data import make_tiny_realiad, tiny_index
from tests.helpers.tiny_training import SMALL, idif_task, live_source

SIZE = 32


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("data")


@pytest.fixture(scope="module")
def source(root: Path) -> LiveFeatures:
    index = tiny_index(categories=("cup",), train=5, test=2)
    make_tiny_realiad(root, index)
    train_rows = index.rows(lambda sample: sample.split == "train")
    return live_source(root, index.take(train_rows), SIZE)


@pytest.fixture(scope="module")
def textures(tmp_path_factory: pytest.TempPathFactory) -> TextureBank:
    return load_textures("procedural", SIZE, tmp_path_factory.mktemp("textures"))


def config(**train_settings: Any) -> Config:
    raw = {
        "method": SMALL,
        "train": {"epochs": 4, "batch_size": 2, "lr": 1e-3} | train_settings,
    }
    return resolve(raw, source="test")[0]


def fabric() -> Fabric:
    torch.set_num_threads(1)
    return Fabric(accelerator="cpu", devices=1)


@pytest.mark.parametrize(
    "settings",
    [{}, {"dropout": {"probability": 0.3}, "ema": 0.9}, {"steps": 7}],
    ids=["plain", "dropout+ema", "steps"],
)
def test_a_resumed_run_is_the_uninterrupted_one(
    source: LiveFeatures, textures: TextureBank, tmp_path: Path, settings: dict[str, Any]
) -> None:
    """Bit-identical weights and log, though the first attempt died after its second epoch."""
    settings = {"eval_every": 1, "validate_every": 0} | settings
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    nothing = ValidationResult({})
    train(
        config(**settings),
        idif_task(config(**settings), source, textures, whole),
        fabric(),
        after_epoch=lambda _m, _e: nothing,
    )

    def die(_method: Method, epoch: int) -> ValidationResult:
        if epoch == 3:
            raise KeyboardInterrupt
        return nothing

    with pytest.raises(KeyboardInterrupt):
        train(
            config(**settings),
            idif_task(config(**settings), source, textures, broken),
            fabric(),
            after_epoch=die,
        )
    checkpoint = find_checkpoint(broken)
    assert checkpoint is not None
    assert read_progress(checkpoint).epoch == 2
    assert not read_progress(checkpoint).finished
    train(
        config(**settings),
        idif_task(config(**settings), source, textures, broken),
        fabric(),
        after_epoch=lambda _m, _e: ValidationResult({}),
    )
    first, second = (load_file(f / "checkpoint" / "model.safetensors") for f in (whole, broken))
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert (whole / "log.jsonl").read_bytes() == (broken / "log.jsonl").read_bytes()
    steps = [line["step"] for line in read_log(whole / "log.jsonl") if "loss" in line]
    count = settings.get("steps", 12)
    assert steps == list(range(1, count + 1))
    timing = read_log(broken / "timing.jsonl")
    assert [line["epoch"] for line in timing] == list(range(1, -(-count // 3) + 1))
    samples = [round(line["samples_per_s"] * line["seconds"]) for line in timing]
    assert samples == ([5, 5, 2] if "steps" in settings else [5, 5, 5, 5])
    done = find_checkpoint(broken)
    assert done is not None
    assert read_progress(done) == TrainingProgress(epoch=len(timing), step=count, finished=True)


def test_the_mean_of_the_weights_is_the_recurrence_written_out(
    source: LiveFeatures, textures: TextureBank, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its decay rises to ``train.ema``; the checkpoint holds the mean and the last step's weights."""
    once, steps = TrainingState.advance, []

    def watched(state: TrainingState) -> None:
        steps.append({name: value.clone() for name, value in state.method.state_dict().items()})
        once(state)

    monkeypatch.setattr(TrainingState, "advance", watched)
    settings = config(epochs=2, ema=0.28)
    train(settings, idif_task(settings, source, textures, tmp_path), fabric())
    decays = [2 / 11, 3 / 12, 0.28, 0.28, 0.28]
    kept = load_weights(tmp_path / "checkpoint")
    for name, value in kept.items():
        if value.is_floating_point():
            mean = steps[0][name].double()
            for decay, weights in zip(decays, steps[1:], strict=True):
                mean = decay * mean + (1 - decay) * weights[name]
            torch.testing.assert_close(value.double(), mean, rtol=1e-5, atol=1e-6)
    last = load_state(tmp_path / "checkpoint")["method"]
    assert all(torch.equal(last[name], value) for name, value in steps[-1].items())
    assert any(not torch.equal(last[name], value) for name, value in kept.items())
    assert "min(0.28, (1 + n) / (10 + n))" in scoring_protocol(settings, {})["weights"]


def test_training_lowers_the_loss_and_keeps_the_checkpoint_before(
    source: LiveFeatures, textures: TextureBank, tmp_path: Path
) -> None:
    train(
        config(epochs=12, lr=2e-3),
        idif_task(config(epochs=12, lr=2e-3), source, textures, tmp_path),
        fabric(),
    )
    losses = [line["distill"] for line in read_log(tmp_path / "log.jsonl") if "distill" in line]
    assert np.mean(losses[-3:]) < 0.6 * np.mean(losses[:3])
    assert read_progress(tmp_path / "checkpoint").finished
    assert read_progress(tmp_path / "checkpoint.previous").epoch == 11


def test_a_loss_that_is_not_finite_stops_the_run_and_says_where(
    source: LiveFeatures, textures: TextureBank, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from idif.methods.idif import model

    calls = 0

    def broken(*_: object) -> torch.Tensor:
        nonlocal calls
        calls += 1
        return torch.tensor(float("nan") if calls == 5 else 1.0, requires_grad=True)

    monkeypatch.setattr(model, "distillation_loss", broken)
    told = (
        r"cup: loss is nan at step 5 \(epoch 2\); one step before: .*distill 1.*; gradients: .*encoder.*; "
        r"the last checkpoint of epoch 1 stays; try a smaller train\.lr"
    )
    with pytest.raises(CannotFinish, match=told):
        train(config(lr=1e-9), idif_task(config(lr=1e-9), source, textures, tmp_path), fabric())
    assert read_progress(tmp_path / "checkpoint").epoch == 1


def test_a_gradient_that_explodes_stops_the_run_and_names_the_part(
    source: LiveFeatures, textures: TextureBank, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    once, calls = ViewDecoders.forward, 0

    def broken(self: ViewDecoders, fused: torch.Tensor, sizes: dict[str, tuple[int, int]]) -> Any:
        nonlocal calls
        calls += 1
        if calls == 5:
            fused.register_hook(lambda gradient: gradient * float("inf"))
        return once(self, fused, sizes)

    monkeypatch.setattr(ViewDecoders, "forward", broken)
    told = (
        r"cup: the gradient's norm is nan at step 5 \(epoch 2\), from encoder, bottleneck, voxel, transform; "
        r"one step before: loss \S+, .*; gradients: \w+ \S+, .*; the last checkpoint of epoch 1 stays; "
        r"try a smaller train\.lr or train\.clip_norm"
    )
    with pytest.raises(CannotFinish, match=told):
        train(config(), idif_task(config(), source, textures, tmp_path), fabric())
    assert read_progress(tmp_path / "checkpoint").epoch == 1


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to"),
        MemoryError(),
    ],
    ids=["device", "torch on a CPU", "python"],
)
def test_running_out_of_memory_says_what_to_change(
    source: LiveFeatures,
    textures: TextureBank,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    error: Exception,
) -> None:
    once = IDIF.training_step

    def short(method: IDIF, batch: Batch, draws: Draws) -> dict[str, torch.Tensor]:
        if draws.step == 4:
            raise error
        return once(method, batch, draws)

    monkeypatch.setattr(IDIF, "training_step", short)
    with pytest.raises(CannotFinish, match=r"cup: out of memory at step 5 .*train\.batch_size \(2 now\)"):
        train(config(), idif_task(config(), source, textures, tmp_path), fabric())
    assert read_progress(tmp_path / "checkpoint").epoch == 1


def test_other_errors_are_not_taken_for_lack_of_memory() -> None:
    with pytest.raises(RuntimeError, match="shapes"), out_of_memory_as_error("cup", 1, 2):
        raise RuntimeError("shapes do not fit")


def test_a_damaged_checkpoint_is_named_and_the_one_before_offered(
    source: LiveFeatures, textures: TextureBank, tmp_path: Path
) -> None:
    train(config(epochs=2), idif_task(config(epochs=2), source, textures, tmp_path), fabric())
    weights = tmp_path / "checkpoint" / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[len(data) // 2] ^= 1
    weights.write_bytes(data)
    with pytest.raises(RunError, match=r"model\.safetensors: damaged.*resume from .*checkpoint\.previous"):
        load_weights(tmp_path / "checkpoint")
    with pytest.raises(RunError, match="damaged"):
        train(config(epochs=2), idif_task(config(epochs=2), source, textures, tmp_path), fabric())
    (tmp_path / "checkpoint" / "checkpoint.json").write_text("{")
    with pytest.raises(RunError, match="damaged checkpoint"):
        read_progress(tmp_path / "checkpoint")


def test_the_state_of_a_training_runs_no_code(tmp_path: Path) -> None:
    """Runs are handed around, and their digests are no signatures."""
    mark = tmp_path / "mark"
    save_checkpoint(tmp_path, {}, {"optimizer": Hostile(mark)}, TrainingProgress(1, 1, finished=False))
    assert read_progress(tmp_path / "checkpoint").step == 1
    with pytest.raises(RunError, match=r"training\.pt: no state of a training that can be read without"):
        load_state(tmp_path / "checkpoint")
    assert not mark.exists()


def test_a_stop_between_the_renames_falls_back_to_the_checkpoint_before(
    source: LiveFeatures, textures: TextureBank, tmp_path: Path
) -> None:
    train(config(epochs=2), idif_task(config(epochs=2), source, textures, tmp_path), fabric())
    (tmp_path / "checkpoint").rename(tmp_path / "checkpoint.part")
    found = find_checkpoint(tmp_path)
    assert found == tmp_path / "checkpoint.previous"
    assert read_progress(found).epoch == 1
    train(config(epochs=2), idif_task(config(epochs=2), source, textures, tmp_path), fabric())
    assert read_progress(tmp_path / "checkpoint").finished


def test_training_goes_on_from_weights_learned_on_smaller_images(
    root: Path, source: LiveFeatures, textures: TextureBank, tmp_path: Path
) -> None:
    """Its first loss is about what the small images' training reached, not what random weights give."""
    train(
        config(epochs=12, lr=2e-3),
        idif_task(config(epochs=12, lr=2e-3), source, textures, tmp_path / "small"),
        fabric(),
    )
    larger = live_source(root, source.index, 2 * SIZE)
    larger_textures = load_textures("procedural", 2 * SIZE, tmp_path)
    first = {}
    for name, init in (("fresh", None), ("warm", tmp_path / "small" / "checkpoint")):
        short = config(epochs=1, lr=1e-6)
        train(short, replace(idif_task(short, larger, larger_textures, tmp_path / name), init=init), fabric())
        first[name] = read_log(tmp_path / name / "log.jsonl")[0]["distill"]
    reached_small = [line["distill"] for line in read_log(tmp_path / "small" / "log.jsonl") if "loss" in line]
    assert first["warm"] < 0.5 * (first["fresh"] + reached_small[-1])


def test_weights_of_another_model_are_refused(
    source: LiveFeatures, textures: TextureBank, tmp_path: Path
) -> None:
    train(config(epochs=1), idif_task(config(epochs=1), source, textures, tmp_path / "first"), fabric())
    wider = config(epochs=1)
    wider = wider.model_copy(update={"method": wider.method.model_copy(update={"blocks": 2})})
    init = tmp_path / "first" / "checkpoint"
    other = replace(idif_task(wider, source, textures, tmp_path / "second"), init=init)
    with pytest.raises(RunError, match=r"first.*does not fit the run's config.*blocks"):
        train(wider, other, fabric())
    assert find_checkpoint(tmp_path / "second") is None


def test_a_log_cut_short_is_read_up_to_the_cut(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    path.write_text('{"step": 1}\n{"step": 2}\n{"ste')
    assert [line["step"] for line in read_log(path)] == [1, 2]
    RunLog(path, after_step=1).write({"step": 2, "again": True})
    assert [json.loads(line) for line in path.read_text().splitlines()] == [
        {"step": 1},
        {"step": 2, "again": True},
    ]
