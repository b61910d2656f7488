"""Tracking: the lines of a training's log again as TensorBoard events, where TensorBoard is installed."""

import textwrap
import time
from pathlib import Path
from typing import Any, Literal

from idif.config import Config
from idif.errors import ConfigError

FOLDER = "tensorboard"
"""Beside ``log.jsonl``: the folder of the event files."""


def tracks(wanted: Literal["auto", "none", "tensorboard"]) -> bool:
    """Whether ``run.tracking`` asks for events that can be written here.

    Raises:
        ConfigError: TensorBoard is asked for by name and is not installed.
    """
    if wanted == "none":
        return False
    try:
        import tensorboard.compat.proto.event_pb2  # noqa: F401
    except ImportError:
        if wanted == "auto":
            return False
        raise ConfigError(
            "run.tracking: tensorboard is not installed; install the extra `tracking`, or set auto or none"
        ) from None
    return True


def trackers(config: Config, folder: Path, *, after_step: int) -> list["TensorBoard"]:
    """What follows a training besides its log: one `TensorBoard` below ``folder``, or nothing.

    Raises:
        ConfigError: as `tracks`.
    """
    if not tracks(config.run.tracking):
        return []
    return [TensorBoard(folder / FOLDER, config.to_yaml(), after_step=after_step)]


class TensorBoard:
    """One event file, written like `idif.runlog.RunLog`: opened, appended to and closed at every call.

    TensorBoard reads a folder's files in the order of their names, and a start at a step makes it drop what
    earlier files hold from that step on. So a resumed training shows every step once.
    """

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
        """Append the numbers of log lines as scalars; ``eval`` holds numbers of its own, ``eval/<name>``."""
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.compat.proto.summary_pb2 import Summary

        now, events = time.time(), []
        for line in lines:
            found = {key: value for key, value in line.items() if key not in ("epoch", "step", "eval")}
            found |= {f"eval/{key}": value for key, value in line.get("eval", {}).items()}
            values = [Summary.Value(tag=k, simple_value=v) for k, v in found.items() if v is not None]
            if values:
                events.append(Event(wall_time=now, step=line["step"], summary=Summary(value=values)))
        self._append(*events)

    def _append(self, *events: Any) -> None:
        from tensorboard.summary.writer.record_writer import RecordWriter

        with self.path.open("ab") as file:
            records = RecordWriter(file)
            for event in events:
                records.write(event.SerializeToString())
