"""Learning rate and weight averaging over the steps of a training."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor
from torch.optim.swa_utils import get_ema_multi_avg_fn

from idif.config.sections import TrainConfig


@dataclass(frozen=True)
class StepCount:
    """Number of optimizer steps of a training."""

    per_pass: int
    """Steps in one pass over the training samples."""
    per_epoch: int
    """Steps in a whole epoch; the last one is shorter where ``train.steps`` end within it."""
    total: int

    @property
    def epochs(self) -> int:
        """Epochs, the last one included."""
        return math.ceil(self.total / self.per_epoch)

    @classmethod
    def of(cls, train: TrainConfig, rows: int, world_size: int) -> "StepCount":
        """The number of steps of each of ``world_size`` processes for ``rows`` training samples."""
        batches = math.ceil(math.ceil(rows / world_size) / train.batch_size)
        per_pass = math.ceil(batches / train.accumulate)
        per_epoch = per_pass * train.sub_epochs
        total = per_epoch * train.epochs if train.steps is None else train.steps
        return cls(per_pass, per_epoch, total)


def learning_rate(train: TrainConfig, steps: StepCount, step: int) -> float:
    """Learning rate at ``step`` as a share of its peak: linear warm-up, then ``train.schedule``.

    The warm-up is ``train.warmup``, over steps, or ``train.schedule.warmup``, over the schedule's units.
    """
    schedule = train.schedule
    unit = {"step": 1, "sub_epoch": steps.per_pass, "epoch": steps.per_epoch}[schedule.unit]
    if schedule.warmup:
        rising = schedule.warmup * unit
        if step < rising:
            start = schedule.warmup_start
            return start + (1 - start) * (step // unit) / schedule.warmup
    else:
        rising = max(1, round(train.warmup * steps.total))
        if step < rising:
            return train.warmup_from + (1 - train.warmup_from) * (step + 1) / rising
    if schedule.name == "constant":
        return 1.0
    if schedule.name == "milestones":
        passed = sum(step // unit >= milestone for milestone in schedule.milestones)
        return float(schedule.factor**passed)
    counted = max(rising, step // unit * unit)
    end = steps.total if schedule.horizon is None else schedule.horizon * unit
    length = max(1, end - rising)
    left = 0.5 * (1 + math.cos(math.pi * min(counted - rising, length) / length))
    return schedule.final + (1 - schedule.final) * left


def ema_decay(averaged: int, decay: float) -> float:
    """Decay of the moving average of the weights after ``averaged`` steps; it rises to ``decay``.

    The warm-up is that of TensorFlow's ``ExponentialMovingAverage`` with ``num_updates``. It reduces the
    influence of the first, nearly random weights.
    """
    return min(decay, (1 + averaged) / (10 + averaged))


def average_weights(decay: float) -> Callable[[Any, Any, Tensor | int], None]:
    """Update function for torch's ``AveragedModel`` with the decay of `ema_decay`."""

    def update(mean: Any, current: Any, averaged: Tensor | int) -> None:
        if not current[0].is_floating_point():
            # integer buffers are no quantities to average, e.g. the order of a permutation
            for kept, value in zip(mean, current, strict=True):
                kept.copy_(value)
            return
        get_ema_multi_avg_fn(ema_decay(int(averaged), decay))(mean, current, averaged)  # type: ignore[no-untyped-call]

    return update
