"""Tracking: sends a training's log and a few pictures to TensorBoard or Weights & Biases."""

import os
import secrets
import textwrap
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, Literal, Protocol

from idif.config.sections import Config
from idif.errors import ConfigError
from idif.files import writing
from idif.visualization.heatmap import Pixels

FOLDER = "tensorboard"
"""Folder of the event files, beside ``log.jsonl``."""
PROJECT = "idif"
"""Default Weights & Biases project; the environment variable ``WANDB_PROJECT`` overrides it."""


class Tracker(Protocol):
    """Receives a training's log and pictures; changes neither the log nor the weights."""

    @property
    def run_id(self) -> str | None:
        """Id with which a resumed training continues the tracked run; saved in the checkpoint."""
        ...

    def write(self, *lines: dict[str, Any]) -> None:
        """Track log lines; the numbers of the nested object ``eval`` are shown as ``eval/<name>``."""
        ...

    def show(self, step: int, pictures: Mapping[str, Pixels]) -> None:
        """Track pictures uint8 [H,W,3], RGB, by sample id, shown as ``maps/<sample id>``."""
        ...


def require_tracker(wanted: Literal["auto", "none", "tensorboard", "wandb"]) -> str:
    """Resolve ``run.tracking`` to ``none``, ``tensorboard`` or ``wandb``.

    Raises:
        ConfigError: the named tracker is not installed.
    """
    try:
        if wanted == "wandb":
            import wandb  # noqa: F401
        elif wanted != "none":
            import torch.utils.tensorboard  # noqa: F401
    except ImportError:
        if wanted == "auto":
            return "none"
        extra = "tracking" if wanted == "tensorboard" else wanted
        raise ConfigError(
            f"run.tracking: {wanted} is not installed; install the extra `{extra}`, or set auto or none"
        ) from None
    return "tensorboard" if wanted == "auto" else wanted


@contextmanager
def tracking(
    config: Config, folder: Path, *, after_step: int = 0, run_id: str | None = None
) -> Iterator[Tracker | None]:
    """Context with the tracker that ``run.tracking`` names, writing below ``folder``; None without one.

    Args:
        after_step: steps done when the training was interrupted.
        run_id: the `Tracker.run_id` before the interruption.

    Raises:
        ConfigError: the named tracker is not installed or does not start.
    """
    kind = require_tracker(config.run.tracking)
    if kind == "wandb":
        with _wandb_run(config, folder, run_id) as run:
            yield WeightsAndBiases(run)
    elif kind == "tensorboard":
        with closing(TensorBoard(folder / FOLDER, config.to_yaml(), after_step=after_step)) as board:
            yield board
    else:
        yield None


class TensorBoard:
    """One event file for each start of a training.

    Each start makes TensorBoard discard the steps of earlier files from its first step on, so a resumed
    training shows every step once. Data is on disk when a call returns.
    """

    run_id: str | None = None

    def __init__(self, folder: Path, config: str, *, after_step: int) -> None:
        """Start a file that continues after ``after_step``, with the resolved ``config`` as text."""
        from torch.utils.tensorboard import SummaryWriter

        first = after_step + 1
        self._folder = folder
        with writing(folder):
            self._writer: Any = SummaryWriter(str(folder), purge_step=first)
            # Markdown renders indented text as code
            self._writer.add_text("config", textwrap.indent(config, "    "), first)
            self._writer.flush()

    def write(self, *lines: dict[str, Any]) -> None:
        """Append the numbers of log lines as scalars."""
        with writing(self._folder):
            for line in lines:
                for tag, value in _numbers(line).items():
                    self._writer.add_scalar(tag, value, line["step"])
            self._writer.flush()

    def show(self, step: int, pictures: Mapping[str, Pixels]) -> None:
        """Append pictures."""
        with writing(self._folder):
            for name, picture in pictures.items():
                self._writer.add_image(f"maps/{name}", picture, step, dataformats="HWC")
            self._writer.flush()

    def close(self) -> None:
        """Close the file."""
        with writing(self._folder):
            self._writer.close()


class WeightsAndBiases:
    """A run of Weights & Biases; ``step`` is the x axis of its charts.

    A resumed training sends the steps after its checkpoint again, with the same values.
    """

    def __init__(self, run: Any) -> None:
        """``run`` is what ``wandb.init`` returned."""
        self._run = run
        self.run_id: str | None = run.id
        run.define_metric("step", hidden=True)
        run.define_metric("*", step_metric="step")

    def write(self, *lines: dict[str, Any]) -> None:
        """Send the numbers of log lines."""
        for line in lines:
            self._run.log(_numbers(line) | {"step": line["step"]})

    def show(self, step: int, pictures: Mapping[str, Pixels]) -> None:
        """Send pictures."""
        import wandb

        images = {f"maps/{name}": wandb.Image(picture) for name, picture in pictures.items()}
        self._run.log(images | {"step": step})


@contextmanager
def _wandb_run(config: Config, folder: Path, run_id: str | None) -> Iterator[Any]:
    """Context with one W&B run per model, grouped by training; marked as failed if an exception passes."""
    import wandb

    try:
        run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", PROJECT),
            group=config.run.name,
            name=f"{folder.parent.name}/{folder.name}",
            dir=folder,
            config=config.model_dump(mode="json"),
            id=run_id or secrets.token_hex(4),
            # offline, each start writes its own folder with the same id
            resume="allow" if run_id else None,
            settings=wandb.Settings(console="off", silent=True),
        )
    except wandb.Error as error:
        raise ConfigError(
            f"run.tracking: wandb does not start ({' '.join(str(error).split())}); use `wandb login`, set "
            "WANDB_MODE=offline, or choose another tracking"
        ) from None
    try:
        yield run
    except BaseException:
        run.finish(exit_code=1)
        raise
    run.finish()


def _numbers(line: dict[str, Any]) -> dict[str, float]:
    """The numbers of a log line by chart name; undefined ones are omitted."""
    found = {key: value for key, value in line.items() if key not in ("epoch", "step", "eval")}
    found |= {f"eval/{key}": value for key, value in line.get("eval", {}).items()}
    return {key: value for key, value in found.items() if value is not None}
