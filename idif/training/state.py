"""`TrainingState`: the changing state of a training, its checkpoints and their restoring."""

import math
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from idif.config.sections import Config
from idif.data.batch import Batch
from idif.files import require_space
from idif.methods.protocol import LearnsStatistics, TrainedMethod
from idif.randomness import Draws
from idif.training.checkpoint import load_into, load_state, read_progress, save_checkpoint
from idif.training.checkpoint_files import TrainingProgress, find_checkpoint
from idif.training.optimizers import make_optimizer
from idif.training.schedule import StepCount, average_weights, learning_rate
from idif.training.task import Task

if TYPE_CHECKING:
    # a type only: importing it takes seconds, and commands that train nothing import this module
    from lightning_fabric import Fabric


class StepModule(nn.Module):
    """Module whose forward pass is a method's training step, as DDP requires for synchronization."""

    def __init__(self, method: TrainedMethod) -> None:
        super().__init__()
        self.method = method

    def forward(self, step: "StepInput") -> dict[str, Tensor]:
        """The losses, see `TrainedMethod.training_step`."""
        return self.method.training_step(step.batch, step.draws)


class StepInput:
    """A batch with its draws, on the device. Not a dataclass, since Fabric would convert its fields."""

    def __init__(self, batch: Batch, draws: Draws) -> None:
        self.batch, self.draws = batch, draws


@dataclass
class BestWeights:
    """The best evaluation so far, for ``train.patience``."""

    value: float = -math.inf
    """Its S-AUROC."""
    epoch: int = 0
    """Its epoch; 0: none yet."""
    worse: int = 0
    """Evaluations since then."""
    weights: dict[str, Tensor] = field(default_factory=dict)
    """State dict of the method, on the CPU; empty: none yet."""

    def add(self, value: float | None, epoch: int, method: nn.Module) -> None:
        """Note an evaluation; one whose value is undefined counts as none."""
        if value is None:
            return
        if value > self.value:
            self.value, self.epoch, self.worse = value, epoch, 0
            self.weights = {n: v.detach().cpu().clone() for n, v in method.state_dict().items()}
        else:
            self.worse += 1


@dataclass(frozen=True)
class TrainingState:
    """A method in training with its optimizer, schedule and averaged weights; made by `start`."""

    folder: Path
    """Folder of the checkpoints."""
    epochs: int
    """Epochs of the training, the last one included."""
    method: TrainedMethod
    average: AveragedModel | None
    module: Any
    """The method's `StepModule`, wrapped by Fabric."""
    optimizer: torch.optim.Optimizer
    fabric_optimizer: Any
    schedule: torch.optim.lr_scheduler.LambdaLR
    progress: TrainingProgress
    """Progress when the training was started or restored."""
    tracked_as: str | None
    """The tracker's id of the training, if the checkpoint contains one."""
    best: BestWeights | None
    """The best evaluation so far, with ``train.patience``."""
    patience: int

    @classmethod
    def start(
        cls, config: Config, task: Task, method: TrainedMethod, steps: StepCount, fabric: "Fabric"
    ) -> Self:
        """Start a new training, or restore it from the checkpoint in the task's folder.

        Args:
            method: a new method, from `build_method`.

        Raises:
            RunError: a checkpoint is damaged or does not fit the config.
            CannotFinish: the checkpoints do not fit on the disk.
        """
        settings = config.train
        checkpoint = find_checkpoint(task.folder)
        if checkpoint is None and task.init is not None:
            load_into(method, task.init, submodule=task.init_submodule)
        if checkpoint is None and isinstance(method, LearnsStatistics):
            method.prepare(task.source.batches(task.rows, settings.batch_size))
        optimizer = make_optimizer(settings, method.parameters())
        schedule = torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: learning_rate(settings, steps, step)
        )
        average = None
        if settings.ema:
            average = AveragedModel(method, multi_avg_fn=average_weights(settings.ema), use_buffers=True)
        module, fabric_optimizer = fabric.setup(StepModule(method), optimizer)
        if average is not None:
            average.to(fabric.device)
        best = BestWeights() if settings.patience else None
        progress, tracked_as = TrainingProgress(epoch=0, step=0, finished=False), None
        if checkpoint is not None:
            progress = read_progress(checkpoint)
            state = load_state(checkpoint)
            load_into(method if average is None else average.module, checkpoint)
            if average is not None:
                method.load_state_dict(state["method"])
                average.n_averaged.copy_(state["averaged"])
            optimizer.load_state_dict(state["optimizer"])
            schedule.load_state_dict(state["schedule"])
            # the bits of the checkpoint, unless the number of epochs has grown since
            for group, base in zip(optimizer.param_groups, schedule.base_lrs, strict=True):
                group["lr"] = base * learning_rate(settings, steps, schedule.last_epoch)
            tracked_as = state.get("tracked_as")
            if best is not None and "best" in state:
                best = BestWeights(**state["best"])
        at_once = 1 if checkpoint is not None else min(steps.epochs, 3)
        require_space(task.folder, at_once * _checkpoint_bytes(method, optimizer, average), "training")
        return cls(
            folder=task.folder,
            epochs=steps.epochs,
            method=method,
            average=average,
            module=module,
            optimizer=optimizer,
            fabric_optimizer=fabric_optimizer,
            schedule=schedule,
            progress=progress,
            tracked_as=tracked_as,
            best=best,
            patience=settings.patience,
        )

    @property
    def kept(self) -> TrainedMethod:
        """The method with the weights saved in checkpoints: the current ones, or their moving average."""
        if self.average is None:
            return self.method
        averaged = self.average.module
        assert isinstance(averaged, TrainedMethod)
        return averaged

    @property
    def learning_rate(self) -> float:
        """Learning rate of the next optimizer step."""
        return float(self.optimizer.param_groups[0]["lr"])

    def advance(self) -> None:
        """Update learning rate and averaged weights after an optimizer step."""
        self.schedule.step()
        if self.average is not None:
            self.average.update_parameters(self.method)

    def is_last(self, epoch: int) -> bool:
        """Whether training ends after ``epoch`` epochs: all are done, or ``train.patience`` is exhausted."""
        return epoch == self.epochs or (self.best is not None and self.best.worse >= self.patience > 0)

    def save(self, epoch: int, step: int, tracked_as: str | None) -> None:
        """Write a checkpoint after ``epoch`` epochs and ``step`` steps.

        The last one holds the weights of the best evaluation where ``train.patience`` is set.
        """
        state: dict[str, Any] = {
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
        }
        if self.average is not None:
            state |= {"method": self.method.state_dict(), "averaged": self.average.n_averaged}
        if tracked_as is not None:
            state["tracked_as"] = tracked_as
        done = TrainingProgress(epoch=epoch, step=step, finished=self.is_last(epoch))
        weights = self.kept.state_dict()
        if self.best is not None:
            if not done.finished:
                state["best"] = asdict(self.best)
            elif self.best.weights:
                weights = self.best.weights
        save_checkpoint(self.folder, weights, state, done)


def _checkpoint_bytes(
    method: TrainedMethod, optimizer: torch.optim.Optimizer, average: AveragedModel | None
) -> int:
    """Bytes of one checkpoint; a training has the last two at once, and the one that is being written."""
    weights: int = sum(value.nbytes for value in method.state_dict().values())
    learned: int = sum(p.nbytes for group in optimizer.param_groups for p in group["params"])
    moments = 2 if "betas" in optimizer.defaults else int(bool(optimizer.defaults.get("momentum")))
    copies = 1 if average is None else 2
    return copies * weights + moments * learned
