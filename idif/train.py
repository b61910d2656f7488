"""The one training loop: `train` walks the epochs, `train_step` makes a step."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import Tensor
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from idif.batch import Batch
from idif.checkpoint import (
    Reached,
    find_checkpoint,
    load_into,
    load_state,
    reached,
    save_checkpoint,
)
from idif.config import Config
from idif.corruption.synthesis import corrupt
from idif.corruption.textures import TextureBank
from idif.errors import CannotFinish
from idif.features import FeatureSource
from idif.methods import METHODS, Method
from idif.order import epoch_order
from idif.progress import Progress, silent
from idif.runlog import RunLog
from idif.seeding import view_seeds
from idif.views import drop_views

FLUSH_EVERY = 10
"""Steps between two looks at the losses: one transfer from the device, one check, one piece of log."""


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


def train(
    config: Config,
    task: Task,
    fabric: Fabric,
    *,
    progress: Progress = silent,
    after_epoch: Callable[[Method, int], dict[str, Any]] | None = None,
) -> Method:
    """Train one model to the last epoch, from its checkpoint where there is one.

    Args:
        config: the run.
        task: what to train on, and where to write.
        fabric: device, precision and processes.
        progress: told steps done, steps in all, and the loss.
        after_epoch: called every ``train.eval_every`` epochs; what it returns is logged.

    Returns:
        The method with the weights that were kept: the last epoch's, or their exponential mean.

    Raises:
        CannotFinish: the loss is no longer finite.
        RunError: a checkpoint to go on or to start from is damaged or does not fit the config.
    """
    settings, index = config.train, task.source.index
    torch.manual_seed(settings.seed)
    method = METHODS[config.method.name](config, task.source.spec, index.view_numbers)
    checkpoint = find_checkpoint(task.folder)
    if checkpoint is None and task.init is not None:
        load_into(method, task.init)
    optimizer = torch.optim.AdamW(
        method.parameters(), lr=settings.lr, weight_decay=settings.weight_decay, fused=True
    )
    per_epoch = math.ceil(math.ceil(len(task.rows) / fabric.world_size) / settings.batch_size)
    total = per_epoch * settings.epochs
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: learning_rate(step, total, settings.warmup)
    )
    average = (
        AveragedModel(method, multi_avg_fn=get_ema_multi_avg_fn(settings.ema), use_buffers=True)  # type: ignore[no-untyped-call]
        if settings.ema
        else None
    )
    kept: Method = method if average is None else average.module  # type: ignore[assignment]
    model, fabric_optimizer = fabric.setup(method, optimizer)
    if average is not None:
        average.to(fabric.device)
    start = Reached(epoch=0, step=0, finished=False)
    if checkpoint is not None:
        start = reached(checkpoint)
        state = load_state(checkpoint)
        load_into(kept, checkpoint)
        if average is not None:
            method.load_state_dict(state["method"])
            average.n_averaged.copy_(state["averaged"])
        optimizer.load_state_dict(state["optimizer"])
        schedule.load_state_dict(state["schedule"])
    log = RunLog(task.folder / "log.jsonl", after_step=start.step) if fabric.is_global_zero else None

    step = start.step
    for epoch in range(start.epoch, settings.epochs):
        began = time.perf_counter()
        method.train()
        order = epoch_order(
            task.rows, seed=settings.seed, epoch=epoch, rank=fabric.global_rank, world=fabric.world_size
        )
        pending: list[dict[str, Tensor]] = []
        rates: list[float] = []
        for batch in task.source.batches(order, settings.batch_size):
            rates.append(float(schedule.get_last_lr()[0]))
            pending.append(
                train_step(
                    config, task, model, fabric_optimizer, fabric, batch.to(fabric.device), epoch, step
                )
            )
            schedule.step()
            if average is not None:
                average.update_parameters(method)
            step += 1
            if len(pending) == FLUSH_EVERY or step % per_epoch == 0:
                lines = _fetch(pending, rates, epoch, step, task.name)
                if log is not None:
                    log.write(*lines)
                where = f"{task.name}  epoch {epoch + 1}/{settings.epochs}"
                progress(step, total, f"{where}  loss {lines[-1]['loss']:.3f}")
                pending, rates = [], []
        seconds = time.perf_counter() - began
        summary: dict[str, Any] = {"epoch": epoch + 1, "step": step, "seconds": seconds}
        summary["samples_per_s"] = len(order) * fabric.world_size / seconds
        if after_epoch is not None and settings.eval_every and (epoch + 1) % settings.eval_every == 0:
            summary["eval"] = after_epoch(kept, epoch + 1)
        if log is not None:
            log.write(summary)
            state = {"optimizer": optimizer.state_dict(), "schedule": schedule.state_dict()}
            if average is not None:
                state |= {"method": method.state_dict(), "averaged": average.n_averaged}
            done = Reached(epoch=epoch + 1, step=step, finished=epoch + 1 == settings.epochs)
            save_checkpoint(task.folder, kept.state_dict(), state, done)
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
    """One step: corrupt, drop views, forward, backward, clip, update. Returns the losses, detached."""
    samples = task.source.index.samples
    ids = [samples[row].sample_id for row in batch.rows.tolist()]
    seeds = view_seeds(config.train.seed, epoch, ids, task.source.index.view_numbers).to(fabric.device)
    corrupted, _ = corrupt(batch.images, seeds, task.textures, config.corruption.probability)
    dropout = config.train.dropout
    kept = drop_views(batch.view_mask, seeds, dropout.probability, dropout.per)
    # the bottleneck draws from torch's own generator: seeded at each step, a resumed run repeats it
    torch.manual_seed(_step_seed(config.train.seed, step, fabric.global_rank))
    losses: dict[str, Tensor] = model(corrupted, batch.features, kept)
    fabric.backward(losses["loss"])
    fabric.clip_gradients(model, optimizer, max_norm=config.train.clip_norm, error_if_nonfinite=False)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return {name: loss.detach() for name, loss in losses.items()}


def learning_rate(step: int, total: int, warmup: float) -> float:
    """Share of the peak learning rate at ``step``: a linear rise, then a cosine to zero at ``total``."""
    rising = max(1, round(warmup * total))
    if step < rising:
        return (step + 1) / rising
    return 0.5 * (1 + math.cos(math.pi * (step - rising) / max(1, total - rising)))


def _step_seed(seed: int, step: int, rank: int) -> int:
    return (seed * 1_000_003 + step * 8_191 + rank) & 0x7FFF_FFFF_FFFF_FFFF


def _fetch(
    pending: list[dict[str, Tensor]], rates: list[float], epoch: int, step: int, name: str
) -> list[dict[str, Any]]:
    """The losses of the last steps as log lines, brought from the device at once.

    Raises:
        CannotFinish: one is not finite.
    """
    names = list(pending[0])
    values = torch.stack([torch.stack([losses[n].float() for n in names]) for losses in pending]).tolist()
    lines = []
    for place, (row, rate) in enumerate(zip(values, rates, strict=True)):
        number = step - len(pending) + place + 1
        for key, value in zip(names, row, strict=True):
            if not math.isfinite(value):
                raise CannotFinish(
                    f"{name}: {key} is {value} at step {number} (epoch {epoch + 1}); "
                    f"the last checkpoint is from the epoch before; try a smaller train.lr"
                )
        lines.append({"epoch": epoch + 1, "step": number, **dict(zip(names, row, strict=True)), "lr": rate})
    return lines
