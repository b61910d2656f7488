"""`fit`: fits a method in one pass over the training samples, and writes its checkpoint."""

import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Self

import torch

from idif.config.sections import Config
from idif.data.batch import Batch
from idif.data.features import FeatureSource
from idif.errors import ConfigError
from idif.methods.protocol import FittedMethod
from idif.progress import Progress, silent
from idif.training.checkpoint import load_into, load_state, save_checkpoint
from idif.training.checkpoint_files import TrainingProgress, find_checkpoint
from idif.training.run_log import RunLog
from idif.training.step_metrics import out_of_memory_as_error
from idif.training.task import Task

if TYPE_CHECKING:
    # a type only: importing it takes seconds, and commands that train nothing import this module
    from lightning_fabric import Fabric


class FittedTo(NamedTuple):
    """The samples that a checkpoint is fitted to, kept in its state."""

    samples: frozenset[str]
    """Their ids."""
    features: str
    """Fingerprint of the specification of their features."""

    @classmethod
    def of(cls, source: FeatureSource, rows: Sequence[int]) -> Self:
        """Some rows of a source."""
        samples = source.index.samples
        return cls(frozenset(samples[row].sample_id for row in rows), source.spec.fingerprint)

    @classmethod
    def read(cls, folder: Path) -> Self | None:
        """The samples of the checkpoint in a model's folder; None without one."""
        checkpoint = find_checkpoint(folder)
        if checkpoint is None:
            return None
        state = load_state(checkpoint)
        return cls(frozenset(state["samples"]), state["features"])

    def extended_by(self, other: Self) -> bool:
        """Whether the other samples are these and maybe more."""
        return self.features == other.features and self.samples <= other.samples


def fit(
    config: Config, task: Task, method: FittedMethod, fabric: "Fabric", *, progress: Progress = silent
) -> FittedMethod:
    """Fit one model, unless its checkpoint is of these samples already.

    A checkpoint of a part of them is extended by the others; any other checkpoint is replaced.

    Args:
        config: the run, with the method's section of this stage.
        task: the training data and the output folder.
        method: a new method.
        fabric: device; the fit runs in one process.
        progress: called with the samples read and their number, then by the method.

    Returns:
        The fitted method on the device, in eval mode.

    Raises:
        ConfigError: several processes share the batches.
        CannotFinish: the samples do not determine the model, or memory ran out.
        RunError: the checkpoint is damaged or does not fit the config.
    """
    if fabric.world_size > 1:
        raise ConfigError(
            f"train.distribute: {config.method.name} is fitted by one process, not by {fabric.world_size}; "
            "use `categories`, with one model for each"
        )
    size, began = config.train.batch_size, time.perf_counter()
    now, before = FittedTo.of(task.source, task.rows), FittedTo.read(task.folder)
    known: frozenset[str] = frozenset()
    checkpoint = find_checkpoint(task.folder)
    if checkpoint is not None and before is not None and before.extended_by(now):
        load_into(method, checkpoint)
        known = before.samples
    samples = task.source.index.samples
    rows = [row for row in task.rows if samples[row].sample_id not in known]
    method.to(fabric.device).eval()
    if not rows:
        return method
    steps = -(-len(rows) // size)
    with torch.no_grad(), out_of_memory_as_error(task.name, steps, size):
        method.fit(_batches(task, rows, size, fabric, progress), config.train.seed, progress)
    seconds = time.perf_counter() - began
    done = {"epoch": 1, "step": steps}
    timing = {"seconds": seconds, "samples_per_s": len(rows) / seconds}
    counts = {"samples": len(rows), "samples_before": len(known)}
    for file, values in (("log.jsonl", counts), ("timing.jsonl", timing)):
        log = RunLog(task.folder / file)
        log.write(done | values)
        log.sync()
    state = {"samples": sorted(now.samples), "features": now.features}
    save_checkpoint(task.folder, method.state_dict(), state, TrainingProgress(1, steps, finished=True))
    return method


def _batches(
    task: Task, rows: list[int], batch_size: int, fabric: "Fabric", progress: Progress
) -> Iterator[Batch]:
    """The batches of ``rows`` on the device; reports the samples read."""
    done = 0
    for batch in task.source.batches(rows, batch_size):
        yield batch.to(fabric.device)
        done += len(batch)
        progress(done, len(rows), f"fitting {task.name}")
