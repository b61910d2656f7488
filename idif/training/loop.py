"""The training loop: `train` runs all epochs or the one pass of a fit, `train_step` one optimizer step."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from itertools import islice
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from idif.config.sections import Config, TrainConfig
from idif.data.batch import Batch
from idif.data.features import FeatureSource
from idif.data.index import Index
from idif.methods.protocol import FittedMethod, Method, TrainedMethod
from idif.progress import Progress, silent
from idif.randomness import Draws, integers, stream, view_seeds
from idif.training.fit import fit
from idif.training.precision import convolution_backend, training_convolutions
from idif.training.run_log import RunLog
from idif.training.sampling import balanced_order, epoch_order
from idif.training.schedule import StepCount
from idif.training.state import StepInput, TrainingState
from idif.training.step_metrics import FLUSH_EVERY, PART, StepMetrics, out_of_memory_as_error
from idif.training.task import Task, build_method
from idif.training.tracking import Tracker, tracking
from idif.training.validation import ValidationResult, is_due, is_due_every

if TYPE_CHECKING:
    # a type only: importing it takes seconds, and commands that train nothing import this module
    from lightning_fabric import Fabric

CHOSEN_BY = "s_auroc"
"""Figure of an evaluation by which ``train.patience`` chooses an epoch; higher is better."""
CURRENT = "_without_ema"
"""End of the names of figures of the current weights, where a moving average of them is evaluated too."""
BEST_EPOCH = "best_epoch"
"""Number of the epoch with the best evaluation so far, beside the figures of one, with ``train.patience``."""
AfterEpoch = Callable[[Method, int], ValidationResult]
"""Callback: takes the method with its current final weights, and the number of finished epochs."""


class EpochSummary(NamedTuple):
    """A finished epoch."""

    model: str
    epoch: int
    epochs: int
    loss: float
    """Mean over the epoch's steps."""
    seconds: float
    figures: Mapping[str, Any]
    """Result of `AfterEpoch`; empty if it was not called."""


OnEpoch = Callable[[EpochSummary], None]


def train(
    config: Config,
    task: Task,
    fabric: "Fabric",
    *,
    progress: Progress = silent,
    after_epoch: AfterEpoch | None = None,
    on_epoch: OnEpoch | None = None,
) -> Method:
    """Train one model to the last epoch, or fit it, starting from its checkpoint if there is one.

    Args:
        config: the run, with the method's section and the epochs of this stage.
        task: the training data and the output folder.
        fabric: device, precision and processes.
        progress: called with the steps done, the number of steps, and the loss.
        after_epoch: called every ``train.eval_every`` and every ``train.validate_every`` epochs; its figures
            are logged, its pictures tracked.
        on_epoch: called by the first process when the checkpoint of an epoch is written.

    Returns:
        The method with the final weights: those of the last epoch, or their exponential moving average; with
        ``train.patience`` those of the best evaluation.

    Raises:
        CannotFinish: the loss or its gradient is no longer finite, or memory ran out.
        ConfigError: `run.tracking` names a tracker that is not installed or does not start.
        RunError: a checkpoint to resume or start from is damaged or does not fit the config.
        StoreMismatch: the source lacks arrays that the method needs for training.
    """
    method = build_method(config, task)
    if isinstance(method, FittedMethod):
        return fit(config, task, method, fabric, progress=progress)
    assert isinstance(method, TrainedMethod), type(method)
    settings, first = config.train, fabric.is_global_zero
    steps = StepCount.of(settings, len(task.rows), fabric.world_size)
    state = TrainingState.start(config, task, method, steps, fabric)
    done = state.progress
    if done.finished and state.best is not None:
        return state.kept.eval()
    follow = (
        tracking(config, task.folder, after_step=done.step, run_id=state.tracked_as)
        if first
        else nullcontext()
    )
    with follow as tracker:
        logs: list[RunLog | Tracker] = []
        run_log = timing = None
        if first:
            run_log = RunLog(task.folder / "log.jsonl", after_step=done.step)
            logs = [run_log]
            timing = RunLog(task.folder / "timing.jsonl", after_step=done.step)
        if tracker is not None:
            logs.append(tracker)

        metrics, step = StepMetrics(task.name, fabric, done.epoch), done.step
        for epoch in range(done.epoch, steps.epochs):
            began = time.perf_counter()
            state.method.train()
            losses_seen: list[float] = []
            samples = 0
            for passed in range(settings.sub_epochs):
                number = epoch * settings.sub_epochs + passed
                for batches in islice(_groups(task, settings, number, fabric), steps.total - step):
                    with out_of_memory_as_error(task.name, step + 1, settings.batch_size):
                        inputs = step_inputs(settings, task.source.index, batches, number, step, fabric)
                        losses = train_step(settings, state.module, state.fabric_optimizer, fabric, inputs)
                    metrics.add(losses, state.learning_rate)
                    state.advance()
                    step += 1
                    samples += sum(map(len, batches)) * fabric.world_size
                    if len(metrics) == FLUSH_EVERY or step % steps.per_epoch == 0 or step == steps.total:
                        lines = metrics.flush(epoch + 1, step)
                        for log in logs:
                            log.write(*lines)
                        losses_seen += [line["loss"] for line in lines]
                        where = f"{task.name}  epoch {epoch + 1}/{steps.epochs}"
                        progress(step, steps.total, f"{where}  loss {lines[-1]['loss']:.3f}")
            seconds = time.perf_counter() - began
            summary: dict[str, Any] = {"epoch": epoch + 1, "step": step}
            if timing is not None:
                timing.write(summary | {"seconds": seconds, "samples_per_s": samples / seconds})
            if after_epoch is not None and is_due(settings, epoch + 1):
                seen = _evaluate(settings, state, after_epoch, epoch + 1, fabric)
                if seen.figures:
                    summary["eval"] = seen.figures
                if tracker is not None and seen.pictures:
                    tracker.show(step, seen.pictures)
            for log in logs:
                log.write(summary)
            if run_log is not None:
                run_log.sync()
                if timing is not None:
                    timing.sync()
                state.save(epoch + 1, step, None if tracker is None else tracker.run_id)
                if on_epoch is not None:
                    mean = sum(losses_seen) / len(losses_seen)
                    shown = summary.get("eval", {})
                    on_epoch(EpochSummary(task.name, epoch + 1, steps.epochs, mean, seconds, shown))
            metrics.checkpoint_epoch = epoch + 1
            fabric.barrier()
            if state.is_last(epoch + 1):
                break
    if state.best is not None and state.best.weights:
        state.kept.load_state_dict(state.best.weights)
    return state.kept.eval()


def _evaluate(
    settings: TrainConfig, state: TrainingState, after_epoch: AfterEpoch, epoch: int, fabric: "Fabric"
) -> ValidationResult:
    """Result of the final weights after ``epoch`` epochs; `CURRENT` and `BEST_EPOCH` are among its figures.

    With ``train.patience`` the weights of the best evaluation so far are set aside.
    """
    seen = after_epoch(state.kept, epoch)
    if not is_due_every(settings.eval_every, epoch):
        return seen
    figures = dict(seen.figures)
    if state.average is not None:
        current = after_epoch(state.method, epoch).figures
        figures |= {f"{name}{CURRENT}": value for name, value in current.items()}
    if state.best is not None:
        # the processes' figures may differ in the last bits; they must stop together
        value = fabric.broadcast(seen.figures.get(CHOSEN_BY))
        state.best.add(value, epoch, state.kept)
        figures[BEST_EPOCH] = state.best.epoch or None
    return seen._replace(figures=figures)


def train_step(
    settings: TrainConfig, module: Any, optimizer: Any, fabric: "Fabric", inputs: Sequence[StepInput]
) -> dict[str, Tensor]:
    """One optimizer step over the batches of ``inputs``: forward, backward, clip, update.

    Args:
        module: a `StepModule` wrapped by ``fabric.setup``; ``optimizer`` likewise.

    Returns:
        The losses (means over the batches), ``grad_norm`` before clipping, and its share of each part of the
        method, ``grad/<part>``; all detached.
    """
    each = []
    with convolution_backend(training_convolutions(settings, fabric.device)):
        for number, given in enumerate(inputs, start=1):
            with fabric.no_backward_sync(module, enabled=number < len(inputs)):
                losses: dict[str, Tensor] = module(given)
                fabric.backward(losses["loss"] / len(inputs) if len(inputs) > 1 else losses["loss"])
            each.append({name: loss.detach() for name, loss in losses.items()})
        norms = {}
        for name, part in module.module.method.named_children():
            gradients = [p.grad for p in part.parameters() if p.grad is not None]
            if gradients:
                norms[PART + name] = torch.nn.utils.get_total_norm(gradients)
        own = [p.grad for p in module.module.method.parameters(recurse=False) if p.grad is not None]
        if own:
            norms[PART + "own"] = torch.nn.utils.get_total_norm(own)
        total = torch.linalg.vector_norm(torch.stack(list(norms.values())))
        if settings.clip_norm is not None:
            torch.nn.utils.clip_grads_with_norm_(module.parameters(), settings.clip_norm, total)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    return mean_losses(each) | {"grad_norm": total} | norms


def mean_losses(each: Sequence[dict[str, Tensor]]) -> dict[str, Tensor]:
    """The mean of each loss over the batches of a step."""
    if len(each) == 1:
        return each[0]
    return {name: torch.stack([losses[name] for losses in each]).mean() for name in each[0]}


def step_inputs(
    settings: TrainConfig, index: Index, batches: Sequence[Batch], number: int, step: int, fabric: "Fabric"
) -> list[StepInput]:
    """The inputs of optimizer step ``step``, on the device, in pass ``number`` over the samples."""
    inputs = []
    for place, batch in enumerate(batches):
        ids = tuple(index.samples[row].sample_id for row in batch.rows.tolist())
        draws = Draws(
            seed=settings.seed,
            epoch=number,
            step=step * settings.accumulate + place,
            rank=fabric.global_rank,
            sample_ids=ids,
            view_numbers=index.view_numbers,
            device=fabric.device,
        )
        inputs.append(StepInput(batch.to(fabric.device), draws))
    return inputs


def _groups(task: Task, settings: TrainConfig, number: int, fabric: "Fabric") -> Iterator[list[Batch]]:
    """The batches of pass ``number`` over the samples, grouped by optimizer step (``train.accumulate``)."""
    rank, world = fabric.global_rank, fabric.world_size
    if task.balanced:
        labels = [task.source.index.samples[row].label for row in task.rows]
        order = balanced_order(task.rows, labels, seed=settings.seed, epoch=number, rank=rank, world=world)
    else:
        order = epoch_order(task.rows, seed=settings.seed, epoch=number, rank=rank, world=world)
    variants = draw_variants(task.source, order, settings.seed, number, task.variants)
    batches = task.source.batches(order, settings.batch_size, variants)
    while group := list(islice(batches, settings.accumulate)):
        yield group


def draw_variants(
    source: FeatureSource, rows: Sequence[int], seed: int, epoch: int, names: Sequence[str] = ()
) -> list[int] | None:
    """A variant for each row, drawn by sample id and epoch; None if the source has no variants.

    Args:
        names: the variants to draw from; all of the source if there are none.
    """
    known = source.spec.variants
    if not known:
        return None
    chosen = [known.index(name) for name in names or known]
    ids = [source.index.samples[row].sample_id for row in rows]
    seeds = view_seeds(seed, epoch, ids, (0,))[:, 0]
    drawn: list[int] = integers(seeds, stream("variant"), 1, len(chosen))[:, 0].tolist()
    return [chosen[place] for place in drawn]
