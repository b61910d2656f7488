"""Consoles of all commands: results on stdout, everything else on stderr."""

import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Annotated, Any

import typer
from rich.console import Console, ConsoleOptions, RenderableType
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeRemainingColumn,
)
from rich.segment import Segment
from rich.text import Text

from idif.progress import Progress as Listener
from idif.progress import silent
from idif.visualization.text import json_line, printable


class _SafeConsole(Console):
    """A console in which names from files move no cursor and set no color."""

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """The segments of a renderable; raises what `rich.console.Console.render` raises."""
        for segment in super().render(renderable, options):
            text = segment.text if segment.control else printable(segment.text)
            yield Segment(text, segment.style, segment.control)


err = _SafeConsole(stderr=True, highlight=False, soft_wrap=True)
out = _SafeConsole(highlight=False)

JsonOption = Annotated[
    bool, typer.Option("--json", help="Print exactly one JSON object on stdout, everything else on stderr.")
]


def note(text: str) -> None:
    """Print a message on stderr. Brackets in ``text`` are not interpreted as markup."""
    err.print(Text(text))


def write_json_line(value: Any) -> None:
    """Write one line of JSON on stdout, in ASCII if the output's encoding lacks one of its letters."""
    line = json_line(value)
    try:
        line.encode(sys.stdout.encoding or "utf-8")
    except UnicodeEncodeError:
        line = json_line(value, ascii_only=True)
    sys.stdout.write(line)


def print_result(value: Any, *, as_json: bool, otherwise: Any = None) -> None:
    """Print the command's result: one JSON object, or ``otherwise``, any rich renderable."""
    if as_json:
        write_json_line(value)
    elif otherwise is not None:
        out.print(Text(otherwise) if isinstance(otherwise, str) else otherwise)


class _Rate(ProgressColumn):
    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text(
            "" if speed is None else f"{speed:,.1f} {task.fields['unit']}/s", style="progress.data.speed"
        )


@contextmanager
def progress_bar(title: str, unit: str, *, show: bool = True) -> Iterator[Listener]:
    """Context with a progress bar with rate and remaining time; shows nothing if stderr is not a terminal."""
    if not show or not err.is_terminal:
        yield silent
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        _Rate(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=err, transient=True) as bars:
        task = bars.add_task(title, total=None, unit=unit)

        def listen(done: int, total: int, what: str = "") -> None:
            bars.update(task, completed=done, total=total, description=what or title)

        yield listen
