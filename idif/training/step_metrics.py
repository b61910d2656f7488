"""Per-step metrics, fetched from the device in batches; raises on a non-finite loss or gradient."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from idif.errors import CannotFinish

if TYPE_CHECKING:
    # a type only: importing it takes seconds, and commands that train nothing import this module
    from lightning_fabric import Fabric

FLUSH_EVERY = 10
"""Steps between two flushes; each transfers, checks and logs the collected losses."""
PART = "grad/"
"""Prefix of the gradient norms of the model's parts, which are used in messages but not logged."""


class StepMetrics:
    """Collects the losses and gradient norms of steps without waiting for the device."""

    def __init__(self, name: str, fabric: "Fabric", checkpoint_epoch: int) -> None:
        """Metrics of the model ``name``, whose last checkpoint is of epoch ``checkpoint_epoch`` (0: none)."""
        self.name, self.checkpoint_epoch = name, checkpoint_epoch
        self._fabric = fabric
        self._pending: list[tuple[dict[str, Tensor], float]] = []
        self._before: dict[str, float] = {}

    def __len__(self) -> int:
        return len(self._pending)

    def add(self, values: dict[str, Tensor], lr: float) -> None:
        """Add the scalars of one step, still on the device, and its learning rate."""
        self._pending.append((values, lr))

    def flush(self, epoch: int, step: int) -> list[dict[str, Any]]:
        """The collected steps as log lines, means over processes; the last is ``step`` of ``epoch``.

        Raises:
            CannotFinish: a loss or a gradient is not finite.
        """
        names = list(self._pending[0][0])
        stacked = torch.stack(
            [torch.stack([values[n].float() for n in names]) for values, _ in self._pending]
        )
        reduced = self._fabric.all_reduce(stacked, reduce_op="mean")
        assert isinstance(reduced, Tensor)
        rows = reduced.tolist()
        lines = []
        for place, row in enumerate(rows):
            number, values = step - len(rows) + place + 1, dict(zip(names, row, strict=True))
            if not all(map(math.isfinite, row)):
                raise CannotFinish(self._explain(values, epoch, number))
            logged = {key: value for key, value in values.items() if not key.startswith(PART)}
            lines.append({"epoch": epoch, "step": number, **logged, "lr": self._pending[place][1]})
            self._before = values
        self._pending = []
        return lines

    def _explain(self, values: dict[str, float], epoch: int, step: int) -> str:
        broken = [key for key, value in values.items() if not math.isfinite(value)]
        what = "the gradient's norm" if broken[0] == "grad_norm" else broken[0]
        found = f"{self.name}: {what} is {values[broken[0]]} at step {step} (epoch {epoch})"
        parts = [key.removeprefix(PART) for key in broken if key.startswith(PART)]
        if parts and broken[0] == "grad_norm":
            found += f", from {', '.join(parts)}"
        if self._before:
            losses = {k: v for k, v in self._before.items() if not k.startswith(PART) and k != "grad_norm"}
            norms = {k.removeprefix(PART): v for k, v in self._before.items() if k.startswith(PART)}
            found += f"; one step before: {_largest_first(losses)}; gradients: {_largest_first(norms)}"
        kept = f"of epoch {self.checkpoint_epoch} stays" if self.checkpoint_epoch else "is not written yet"
        return f"{found}; the last checkpoint {kept}; try a smaller train.lr or train.clip_norm, or float32"


def _largest_first(values: dict[str, float]) -> str:
    return ", ".join(f"{k} {v:.3g}" for k, v in sorted(values.items(), key=lambda item: -item[1]))


@contextmanager
def out_of_memory_as_error(name: str, step: int, batch_size: int) -> Iterator[None]:
    """Context that converts out-of-memory errors to `CannotFinish`.

    Raises:
        CannotFinish: memory ran out, on the device or in main memory.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        said = str(error).splitlines()[0] if str(error) else "MemoryError"
        # the CPU allocator raises a plain RuntimeError
        short = isinstance(error, MemoryError | torch.OutOfMemoryError) or "allocate memory" in said
        if not short:
            raise
        raise CannotFinish(
            f"{name}: out of memory at step {step} ({said}); the last checkpoint stays; lower "
            f"train.batch_size ({batch_size} now), keep features on disk (cache.placement: disk), or use "
            "smaller images"
        ) from None
