"""`fit`: fits a method in one pass over the training samples, and writes its checkpoint."""

import time
from collections.abc import Iterator

import torch
from lightning_fabric import Fabric

from idif.config.sections import Config
from idif.data.batch import Batch
from idif.errors import ConfigError
from idif.methods.protocol import FittedMethod
from idif.progress import Progress, silent
from idif.training.checkpoint import load_into, load_state, save_checkpoint
from idif.training.checkpoint_files import TrainingProgress, find_checkpoint
from idif.training.run_log import RunLog
from idif.training.step_metrics import out_of_memory_as_error
from idif.training.task import Task

FITTED = "fitted"
"""Entry of a checkpoint's state: the ids of the samples that the method is fitted to."""


def fit(
    config: Config, task: Task, method: FittedMethod, fabric: Fabric, *, progress: Progress = silent
) -> FittedMethod:
    """Fit one model, unless its checkpoint is of these samples already.

    A checkpoint of a part of them is extended by the others; one with other samples is replaced.

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
    settings = config.train
    began = time.perf_counter()
    before = fitted_ids(task) or []
    ids = sample_ids(task)
    if set(before) <= set(ids) and before:
        checkpoint = find_checkpoint(task.folder)
        assert checkpoint is not None
        load_into(method, checkpoint)
    else:
        before = []
    known = set(before)
    rows = [row for row, name in zip(task.rows, ids, strict=True) if name not in known]
    method.to(fabric.device).eval()
    if not rows:
        return method
    steps = -(-len(rows) // settings.batch_size)
    with torch.no_grad(), out_of_memory_as_error(task.name, steps, settings.batch_size):
        method.fit(_batches(task, rows, settings.batch_size, fabric, progress), settings.seed, progress)
    seconds = time.perf_counter() - began
    summary = {"epoch": 1, "step": steps}
    RunLog(task.folder / "log.jsonl").write(summary)
    timing = {"seconds": seconds, "samples_per_s": len(rows) / seconds}
    RunLog(task.folder / "timing.jsonl").write(summary | timing)
    done = TrainingProgress(epoch=1, step=steps, finished=True)
    save_checkpoint(
        task.folder, method.state_dict(), {FITTED: before + [n for n in ids if n not in known]}, done
    )
    return method


def sample_ids(task: Task) -> list[str]:
    """The ids of a task's samples, in its order."""
    return [task.source.index.samples[row].sample_id for row in task.rows]


def fitted_ids(task: Task) -> list[str] | None:
    """The ids of the samples that the task's checkpoint is fitted to; None without a checkpoint."""
    checkpoint = find_checkpoint(task.folder)
    if checkpoint is None:
        return None
    recorded: list[str] = load_state(checkpoint)[FITTED]
    return recorded


def _batches(
    task: Task, rows: list[int], batch_size: int, fabric: Fabric, progress: Progress
) -> Iterator[Batch]:
    """The batches of ``rows`` on the device; reports the samples read."""
    done = 0
    for batch in task.source.batches(rows, batch_size):
        yield batch.to(fabric.device)
        done += len(batch)
        progress(done, len(rows), f"fitting {task.name}")
