"""What a training will take: two steps are made, measured and thrown away."""

import math
import time
from dataclasses import dataclass
from itertools import islice

import torch
from lightning_fabric import Fabric
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

from idif.config.sections import Config
from idif.methods.catalog import METHODS
from idif.training.loop import Task, train_step
from idif.training.step_metrics import out_of_memory_as_error


@dataclass(frozen=True)
class Estimate:
    """Of one model's student; a segmentation head comes on top."""

    parameters: int
    """Numbers that are learned."""
    state_bytes: int
    """Weights, gradients and AdamW's two moments, in float32."""
    activation_bytes: int
    """What the forward pass keeps for the backward pass, weights aside."""
    steps: int
    """In all epochs."""
    seconds_per_step: float
    """Of the second of two steps, input included."""
    seconds_per_epoch: float


def estimate(config: Config, task: Task, fabric: Fabric) -> Estimate:
    """Measure on this machine; nothing is written.

    Raises:
        CannotFinish: memory does not suffice for one step.
    """
    method = config.method.model_copy(update={"head": "cosine"})
    config = config.model_copy(update={"method": method})
    settings, index = config.train, task.source.index
    torch.manual_seed(settings.seed)
    student = METHODS[method.name](config, task.source.spec, index.view_numbers)
    own = {p.untyped_storage().data_ptr() for p in student.parameters()}
    optimizer = torch.optim.AdamW(student.parameters(), lr=settings.lr, fused=True)
    model, wrapped = fabric.setup(student, optimizer)
    kept: dict[int, int] = {}

    def note(saved: Tensor) -> Tensor:
        storage = saved.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return saved

    own |= {p.untyped_storage().data_ptr() for p in student.parameters()}  # moved to the device
    order = (task.rows * (1 + 2 * settings.batch_size // len(task.rows)))[: 2 * settings.batch_size]
    began, batches = 0.0, task.source.batches(order, settings.batch_size)
    with out_of_memory_as_error(task.name, 1, settings.batch_size):
        for step, batch in enumerate(islice(batches, 2)):
            began = time.perf_counter()
            moved = batch.to(fabric.device)
            if step == 0:
                with saved_tensors_hooks(note, lambda saved: saved):
                    train_step(config, task, model, wrapped, fabric, moved, 0, step)
            else:
                loss = train_step(config, task, model, wrapped, fabric, moved, 0, step)["loss"]
                loss.item()  # waits for the device
    seconds = time.perf_counter() - began
    parameters = sum(p.numel() for p in student.parameters())
    per_epoch = math.ceil(math.ceil(len(task.rows) / fabric.world_size) / settings.batch_size)
    return Estimate(
        parameters=parameters,
        state_bytes=16 * parameters,
        activation_bytes=sum(kept.values()),
        steps=per_epoch * settings.epochs,
        seconds_per_step=seconds,
        seconds_per_epoch=seconds * per_epoch,
    )
