"""Tracking: a training's log and a few pictures again, for TensorBoard or Weights & Biases."""

import os
import secrets
import textwrap
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, Protocol

import cv2

from idif.config.sections import Config
from idif.errors import ConfigError
from idif.visualization.heatmap import Pixels

FOLDER = "tensorboard"
"""Beside ``log.jsonl``: the folder of the event files."""
PROJECT = "idif"
"""Where Weights & Biases puts runs, unless its variable ``WANDB_PROJECT`` says otherwise."""


class Tracker(Protocol):
    """What follows a training besides its log. It changes neither the log nor the weights."""

    @property
    def run_id(self) -> str | None:
        """What a resumed training needs to go on in the same place; kept in the checkpoint."""
        ...

    def write(self, *lines: dict[str, Any]) -> None:
        """Take log lines; ``eval`` holds numbers of its own, shown as ``eval/<name>``."""
        ...

    def show(self, step: int, pictures: Mapping[str, Pixels]) -> None:
        """Take pictures uint8 [H,W,3], RGB, by sample id, shown as ``maps/<sample id>``."""
        ...


def require_tracker(wanted: Literal["auto", "none", "tensorboard", "wandb"]) -> str:
    """What ``run.tracking`` comes to here: ``none``, ``tensorboard`` or ``wandb``.

    Raises:
        ConfigError: what is asked for by name is not installed.
    """
    try:
        if wanted == "wandb":
            import wandb  # noqa: F401
        elif wanted != "none":
            import tensorboard.compat.proto.event_pb2  # noqa: F401
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
    """The tracker that ``run.tracking`` names, writing below ``folder``, or None; closed on the way out.

    Args:
        after_step: steps made when the training was last stopped.
        run_id: the `Tracker.run_id` of then.

    Raises:
        ConfigError: what is asked for by name is not installed or does not start.
    """
    kind = require_tracker(config.run.tracking)
    if kind == "wandb":
        with _wandb_run(config, folder, run_id) as run:
            yield WeightsAndBiases(run)
    elif kind == "tensorboard":
        yield TensorBoard(folder / FOLDER, config.to_yaml(), after_step=after_step)
    else:
        yield None


class TensorBoard:
    """One event file, written like `RunLog`: opened, appended to and closed at every call.

    TensorBoard reads a folder's files in the order of their names, and a start at a step makes it drop what
    earlier files hold from that step on. So a resumed training shows every step once.
    """

    run_id: str | None = None

    def __init__(self, folder: Path, config: str, *, after_step: int) -> None:
        """Start a file that continues behind ``after_step``, with the resolved ``config`` as text."""
        from tensorboard.compat.proto.event_pb2 import Event, SessionLog
        from tensorboard.plugins.text.summary_v2 import text_pb

        folder.mkdir(parents=True, exist_ok=True)
        # nanoseconds: the names of two starts within a second keep their order
        self.path = folder / f"events.out.tfevents.{time.time_ns()}"
        first, now = after_step + 1, time.time()
        # Markdown shows indented text as it stands
        text = text_pb("config", textwrap.indent(config, "    "))
        self._append(
            Event(wall_time=now, file_version="brain.Event:2"),
            Event(wall_time=now, step=first, session_log=SessionLog(status=SessionLog.START)),
            Event(wall_time=now, step=first, summary=text),
        )

    def write(self, *lines: dict[str, Any]) -> None:
        """Append the numbers of log lines as scalars."""
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.compat.proto.summary_pb2 import Summary

        now, events = time.time(), []
        for line in lines:
            values = [Summary.Value(tag=k, simple_value=v) for k, v in _numbers(line).items()]
            if values:
                events.append(Event(wall_time=now, step=line["step"], summary=Summary(value=values)))
        self._append(*events)

    def show(self, step: int, pictures: Mapping[str, Pixels]) -> None:
        """Append pictures as PNG."""
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.compat.proto.summary_pb2 import Summary

        values = []
        for name, picture in pictures.items():
            height, width, channels = picture.shape
            png = cv2.imencode(".png", picture[:, :, ::-1])[1].tobytes()
            image = Summary.Image(height=height, width=width, colorspace=channels, encoded_image_string=png)
            values.append(Summary.Value(tag=f"maps/{name}", image=image))
        self._append(Event(wall_time=time.time(), step=step, summary=Summary(value=values)))

    def _append(self, *events: Any) -> None:
        from tensorboard.summary.writer.record_writer import RecordWriter

        with self.path.open("ab") as file:
            records = RecordWriter(file)
            for event in events:
                records.write(event.SerializeToString())


class WeightsAndBiases:
    """A run of Weights & Biases; ``step`` is the axis of its charts.

    A training that died and was resumed sends the steps behind its checkpoint again: the same numbers on the
    same steps.
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
    """A run of its own for each model, those of one training grouped; ended as failed where that fails."""
    import wandb

    try:
        run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", PROJECT),
            group=config.run.name,
            name=f"{folder.parent.name}/{folder.name}",
            dir=folder,
            config=config.model_dump(mode="json"),
            id=run_id or secrets.token_hex(4),
            # without a network each start leaves a folder of its own, with one id
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
    """What a log line holds to draw; a figure that is undefined is left out."""
    found = {key: value for key, value in line.items() if key not in ("epoch", "step", "eval")}
    found |= {f"eval/{key}": value for key, value in line.get("eval", {}).items()}
    return {key: value for key, value in found.items() if value is not None}
