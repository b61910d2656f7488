"""Memory and time of a training or fit, measured on two discarded batches."""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

from idif.config.sections import Config
from idif.data.batch import Batch
from idif.methods.protocol import FittedMethod, TrainedMethod
from idif.training.loop import step_inputs, train_step
from idif.training.optimizers import make_optimizer
from idif.training.schedule import StepCount
from idif.training.stages import stage_config, stages_of
from idif.training.state import StepModule
from idif.training.step_metrics import out_of_memory_as_error
from idif.training.task import Task, build_method


@dataclass(frozen=True)
class TrainingEstimate:
    """Estimate for the first stage of one model; later stages are not included."""

    parameters: int
    """Number of trainable parameters."""
    fixed_parameters: int
    """Number of the method's parameters that are not trained; the frozen encoders are not among them."""
    parts: dict[str, int]
    """Number of trainable parameters of each part of the method, by the part's name."""
    state_bytes: int
    """Weights, gradients and the optimizer's moments, in float32; of a fit its result."""
    activation_bytes: int
    """Memory that the forward pass saves for the backward pass, without weights."""
    steps: int
    """Number of optimizer steps in all epochs; of a fit the batches of its pass."""
    seconds_per_step: float
    """Duration of the second of the two steps, including loading its input."""
    seconds_per_epoch: float


def estimate(config: Config, task: Task, fabric: Fabric) -> TrainingEstimate:
    """Measure the first stage on this machine; nothing is written.

    Raises:
        CannotFinish: not enough memory for one step.
    """
    config = stage_config(config, stages_of(config)[0])
    settings, index = config.train, task.source.index
    method = build_method(config, task)
    if isinstance(method, FittedMethod):
        return _estimate_fit(config, task, method, fabric)
    assert isinstance(method, TrainedMethod), type(method)
    own = {p.untyped_storage().data_ptr() for p in method.parameters()}
    optimizer = make_optimizer(settings, method.parameters())
    module, wrapped = fabric.setup(StepModule(method), optimizer)
    kept: dict[int, int] = {}

    def note(saved: Tensor) -> Tensor:
        storage = saved.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return saved

    own |= {p.untyped_storage().data_ptr() for p in method.parameters()}  # moved to the device
    size = settings.batch_size
    order = (task.rows * (1 + 2 * size // len(task.rows)))[: 2 * size]
    began, batches = 0.0, task.source.batches(order, size)
    with out_of_memory_as_error(task.name, 1, size):
        for step, batch in enumerate(islice(batches, 2)):
            began = time.perf_counter()
            inputs = step_inputs(settings, index, [batch], 0, step, fabric)
            if step == 0:
                with saved_tensors_hooks(note, lambda saved: saved):
                    train_step(settings, module, wrapped, fabric, inputs)
            else:
                train_step(settings, module, wrapped, fabric, inputs)["loss"].item()  # waits for the device
    seconds = (time.perf_counter() - began) * settings.accumulate
    parameters = sum(p.numel() for p in method.parameters() if p.requires_grad)
    moments = sum(v.numel() for s in optimizer.state.values() for v in s.values() if v.ndim > 0)
    steps = StepCount.of(settings, len(task.rows), fabric.world_size)
    return TrainingEstimate(
        parameters=parameters,
        fixed_parameters=sum(p.numel() for p in method.parameters()) - parameters,
        parts=_parts(method),
        state_bytes=4 * (2 * parameters + moments),
        activation_bytes=sum(kept.values()),
        steps=steps.total,
        seconds_per_step=seconds,
        seconds_per_epoch=seconds * steps.per_epoch,
    )


def _parts(method: nn.Module) -> dict[str, int]:
    """Trainable parameters of the submodules, and of the method's own as ``own``; none are left out."""
    sizes = {
        name: sum(p.numel() for p in part.parameters() if p.requires_grad)
        for name, part in method.named_children()
    }
    sizes["own"] = sum(p.numel() for p in method.parameters(recurse=False) if p.requires_grad)
    return {name: size for name, size in sizes.items() if size}


def _estimate_fit(config: Config, task: Task, method: FittedMethod, fabric: Fabric) -> TrainingEstimate:
    """Fit to one batch, then to a second one; the size of the result is extrapolated linearly."""
    size, method = config.train.batch_size, method.to(fabric.device)
    order = (task.rows * (1 + 2 * size // len(task.rows)))[: 2 * size]
    seconds, sizes = 0.0, []
    batches = task.source.batches(order, size)
    with torch.no_grad(), out_of_memory_as_error(task.name, 1, size):
        for _ in range(2):
            began = time.perf_counter()
            method.fit(_on_device(batches, fabric), config.train.seed)
            seconds = time.perf_counter() - began
            sizes.append(sum(buffer.nbytes for buffer in method.state_dict().values()))
    steps = -(-len(task.rows) // size)
    return TrainingEstimate(
        parameters=0,
        fixed_parameters=0,
        parts={},
        state_bytes=sizes[0] + (sizes[1] - sizes[0]) * (steps - 1),
        activation_bytes=0,
        steps=steps,
        seconds_per_step=seconds,
        seconds_per_epoch=seconds * steps,
    )


def _on_device(batches: Iterator[Batch], fabric: Fabric) -> Iterator[Batch]:
    """The next batch alone, on the device."""
    for batch in islice(batches, 1):
        yield batch.to(fabric.device)
