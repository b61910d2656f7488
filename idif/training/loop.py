"""The one training loop: `train` walks the epochs, `train_step` makes a step."""

import math
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import Tensor
from torch.optim.swa_utils import AveragedModel

from idif.config.sections import Config
from idif.corruption.synthesis import corrupt
from idif.corruption.textures import TextureBank
from idif.data.batch import Batch
from idif.data.features import FeatureSource
from idif.encoders.encode import encode_views
from idif.encoders.frozen import FrozenEncoder
from idif.methods.catalog import METHODS
from idif.methods.protocol import Method
from idif.methods.view_dropout import drop_views
from idif.progress import Progress, silent
from idif.randomness import view_seeds
from idif.training.checkpoint import (
    TrainingProgress,
    find_checkpoint,
    load_into,
    load_state,
    read_progress,
    save_checkpoint,
)
from idif.training.precision import convolution_backend, training_convolutions
from idif.training.run_log import RunLog
from idif.training.sampling import epoch_order
from idif.training.schedule import _mean_of_weights, learning_rate
from idif.training.step_metrics import FLUSH_EVERY, PART, StepMetrics, out_of_memory_as_error
from idif.training.tracking import Tracker, tracking
from idif.training.validation import ValidationResult


@dataclass(frozen=True)
class Task:
    """One model to train."""

    name: str
    """Category, or ``all``."""
    folder: Path
    """Where its checkpoint and log go."""
    source: FeatureSource
    rows: list[int]
    """Rows of the source to train on."""
    textures: TextureBank
    init: Path | None = None
    """Checkpoint whose weights a fresh training starts from; None starts from random ones."""
    init_part: str | None = None
    """The part of the model that ``init`` holds; None means all of it."""
    encoder: FrozenEncoder | None = None
    """Frozen encoder, on the device, whose features of the corrupted images the method learns from; None
    gives it the source's, which are those of the clean images."""


def train(
    config: Config,
    task: Task,
    fabric: Fabric,
    *,
    progress: Progress = silent,
    after_epoch: Callable[[Method, int], ValidationResult] | None = None,
) -> Method:
    """Train one model to the last epoch, from its checkpoint where there is one.

    Args:
        config: the run.
        task: what to train on, and where to write.
        fabric: device, precision and processes.
        progress: told steps done, steps in all, and the loss.
        after_epoch: called every ``train.eval_every`` epochs; its figures are logged, its pictures tracked.

    Returns:
        The method with the weights that were kept: the last epoch's, or their exponential mean.

    Raises:
        CannotFinish: the loss or its gradient is no longer finite, or memory ran out.
        ConfigError: `run.tracking` names what is not installed or does not start.
        RunError: a checkpoint to go on or to start from is damaged or does not fit the config.
    """
    settings, index = config.train, task.source.index
    torch.manual_seed(settings.seed)
    method = METHODS[config.method.name](config, task.source.spec, index.view_numbers)
    checkpoint = find_checkpoint(task.folder)
    if checkpoint is None and task.init is not None:
        load_into(method, task.init, within=task.init_part)
    optimizer = torch.optim.AdamW(
        method.parameters(), lr=settings.lr, weight_decay=settings.weight_decay, fused=True
    )
    per_epoch = math.ceil(math.ceil(len(task.rows) / fabric.world_size) / settings.batch_size)
    total = per_epoch * settings.epochs
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: learning_rate(step, total, settings.warmup)
    )
    average = (
        AveragedModel(method, multi_avg_fn=_mean_of_weights(settings.ema), use_buffers=True)
        if settings.ema
        else None
    )
    kept: Method = method if average is None else average.module  # type: ignore[assignment]
    model, fabric_optimizer = fabric.setup(method, optimizer)
    if average is not None:
        average.to(fabric.device)
    start, run_id = TrainingProgress(epoch=0, step=0, finished=False), None
    if checkpoint is not None:
        start = read_progress(checkpoint)
        state = load_state(checkpoint)
        load_into(kept, checkpoint)
        if average is not None:
            method.load_state_dict(state["method"])
            average.n_averaged.copy_(state["averaged"])
        optimizer.load_state_dict(state["optimizer"])
        schedule.load_state_dict(state["schedule"])
        run_id = state.get("tracked_as")
    first = fabric.is_global_zero
    follow = tracking(config, task.folder, after_step=start.step, run_id=run_id) if first else nullcontext()
    with follow as tracker:
        logs: list[RunLog | Tracker] = []
        timing = None
        if first:
            logs = [RunLog(task.folder / "log.jsonl", after_step=start.step)]
            timing = RunLog(task.folder / "timing.jsonl", after_step=start.step)
        if tracker is not None:
            logs.append(tracker)

        meter, step = StepMetrics(task.name, fabric, start.epoch), start.step
        for epoch in range(start.epoch, settings.epochs):
            began = time.perf_counter()
            method.train()
            rank, world = fabric.global_rank, fabric.world_size
            order = epoch_order(task.rows, seed=settings.seed, epoch=epoch, rank=rank, world=world)
            for batch in task.source.batches(order, settings.batch_size):
                with out_of_memory_as_error(task.name, step + 1, settings.batch_size):
                    moved = batch.to(fabric.device)
                    losses = train_step(config, task, model, fabric_optimizer, fabric, moved, epoch, step)
                meter.add(losses, float(schedule.get_last_lr()[0]))
                schedule.step()
                if average is not None:
                    average.update_parameters(method)
                step += 1
                if len(meter) == FLUSH_EVERY or step % per_epoch == 0:
                    lines = meter.take(epoch + 1, step)
                    for log in logs:
                        log.write(*lines)
                    where = f"{task.name}  epoch {epoch + 1}/{settings.epochs}"
                    progress(step, total, f"{where}  loss {lines[-1]['loss']:.3f}")
            seconds = time.perf_counter() - began
            summary: dict[str, Any] = {"epoch": epoch + 1, "step": step}
            if timing is not None:
                rate = len(order) * world / seconds
                timing.write(summary | {"seconds": seconds, "samples_per_s": rate})
            if after_epoch is not None and settings.eval_every and (epoch + 1) % settings.eval_every == 0:
                seen = after_epoch(kept, epoch + 1)
                summary["eval"] = seen.figures
                if tracker is not None and seen.pictures:
                    tracker.show(step, seen.pictures)
            for log in logs:
                log.write(summary)
            if first:
                state = {"optimizer": optimizer.state_dict(), "schedule": schedule.state_dict()}
                if average is not None:
                    state |= {"method": method.state_dict(), "averaged": average.n_averaged}
                if tracker is not None and tracker.run_id is not None:
                    state["tracked_as"] = tracker.run_id
                done = TrainingProgress(epoch=epoch + 1, step=step, finished=epoch + 1 == settings.epochs)
                save_checkpoint(task.folder, kept.state_dict(), state, done)
            meter.checkpoint_epoch = epoch + 1
            fabric.barrier()
    return kept.eval()


def train_step(
    config: Config,
    task: Task,
    model: Any,
    optimizer: Any,
    fabric: Fabric,
    batch: Batch,
    epoch: int,
    step: int,
) -> dict[str, Tensor]:
    """One step: corrupt, drop views, learn. Returns the losses and gradient norms, detached."""
    samples = task.source.index.samples
    ids = [samples[row].sample_id for row in batch.rows.tolist()]
    seeds = view_seeds(config.train.seed, epoch, ids, task.source.index.view_numbers).to(fabric.device)
    corrupted, defects = corrupt(batch.images, seeds, task.textures, config.corruption.probability)
    dropout = config.train.dropout
    kept = drop_views(batch.view_mask, seeds, dropout.probability, dropout.per)
    # the bottleneck draws from torch's own generator: seeded at each step, a resumed run repeats it
    torch.manual_seed(_step_seed(config.train.seed, step, fabric.global_rank))
    with convolution_backend(training_convolutions(config.train, fabric.device)):
        features = batch.features if task.encoder is None else encode_views(task.encoder, corrupted, kept)
        return optimizer_step(
            model, optimizer, fabric, config.train.clip_norm, corrupted, features, kept, defects
        )


def optimizer_step(
    model: Any,
    optimizer: Any,
    fabric: Fabric,
    clip_norm: float,
    corrupted: Tensor,
    features: dict[str, Tensor],
    kept: Tensor,
    defects: Tensor,
) -> dict[str, Tensor]:
    """Forward, backward, clip, update: what a step costs once its input is there.

    Args:
        corrupted, features, kept, defects: as `Method.forward` takes them.

    Returns:
        The losses, ``grad_norm`` before clipping, and its share of each part of the model, ``grad/<part>``.
    """
    losses: dict[str, Tensor] = model(corrupted, features, kept, defects)
    fabric.backward(losses["loss"])
    norms = {}
    for name, part in model.module.named_children():
        gradients = [p.grad for p in part.parameters() if p.grad is not None]
        if gradients:
            norms[PART + name] = torch.nn.utils.get_total_norm(gradients)
    whole = torch.linalg.vector_norm(torch.stack(list(norms.values())))
    torch.nn.utils.clip_grads_with_norm_(model.parameters(), clip_norm, whole)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return {name: loss.detach() for name, loss in losses.items()} | {"grad_norm": whole} | norms


def _step_seed(seed: int, step: int, rank: int) -> int:
    return (seed * 1_000_003 + step * 8_191 + rank) & 0x7FFF_FFFF_FFFF_FFFF
