"""Learning rate and weight averaging over the steps."""

import math
from collections.abc import Callable
from typing import Any

from torch import Tensor
from torch.optim.swa_utils import get_ema_multi_avg_fn


def learning_rate(step: int, total: int, warmup: float) -> float:
    """Share of the peak learning rate at ``step``: a linear rise, then a cosine to zero at ``total``."""
    rising = max(1, round(warmup * total))
    if step < rising:
        return (step + 1) / rising
    return 0.5 * (1 + math.cos(math.pi * (step - rising) / max(1, total - rising)))


def ema_decay(averaged: int, decay: float) -> float:
    """Decay of the mean of weights that already holds ``averaged`` steps: it rises to ``decay``.

    The rise is that of TensorFlow's ``ExponentialMovingAverage`` with ``num_updates``. It lets the mean
    forget the first, nearly random weights.
    """
    return min(decay, (1 + averaged) / (10 + averaged))


def _mean_of_weights(decay: float) -> Callable[[Any, Any, Tensor | int], None]:
    def update(mean: Any, current: Any, averaged: Tensor | int) -> None:
        get_ema_multi_avg_fn(ema_decay(int(averaged), decay))(mean, current, averaged)  # type: ignore[no-untyped-call]

    return update
