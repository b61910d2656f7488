"""`idif runs`: list runs with their state and figures."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from cli.terminal.console import JsonOption, note, print_result
from idif.runs.listing import METRICS, ModelProgress, RunSummary, list_runs
from idif.visualization.text import percent


def runs(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder that holds runs, or one run.")] = Path(
        "runs"
    ),
    as_json: JsonOption = False,
) -> None:
    """List runs with their state and mean metrics.

    Metrics are those of the last `idif eval`, in percent. Epochs are those finished and asked for, by stage.

    Examples:

        idif runs

        idif runs /mnt/results/runs --json
    """
    found = list_runs(folder)
    value = {"folder": str(folder), "runs": [_as_json(run) for run in found]}
    print_result(value, as_json=as_json, otherwise=runs_table(found) if found else f"{folder}: no runs")
    for run in found:
        if run.problem is not None:
            note(f"note: {run.name}: {run.problem}")


def runs_table(found: Sequence[RunSummary]) -> Table:
    """Two lines per run, so that all columns fit into a terminal of 80 characters."""
    table = Table(box=SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=0)
    table.add_column("run", overflow="fold")
    table.add_column("state")
    for name in METRICS:
        table.add_column(name.replace("_", "-\n").upper(), justify="right", no_wrap=True)
    table.add_column("size,\nlast change", justify="right", no_wrap=True)
    for run in found:
        metrics = run.metrics or dict.fromkeys(METRICS)
        table.add_row(
            _two_lines(run.name, _contents(run)),
            _two_lines(state_text(run), epochs_text(run.models)),
            *(percent(metrics[name], "") for name in METRICS),
            _two_lines(_size(run.bytes), run.changed.astimezone().strftime("%Y-%m-%d %H:%M")),
        )
    return table


def _two_lines(first: str, second: str) -> Text:
    return Text.assemble(first, "\n", (second, "dim"))


def _contents(run: RunSummary) -> str:
    """Method and categories of a run; of several categories their number."""
    if run.method is None:
        return ""
    named = run.categories[0] if len(run.categories) == 1 else f"{len(run.categories)} categories"
    return f"{run.method}, {named}"


def state_text(run: RunSummary) -> str:
    """The state of a run; of one that stopped, the models that are finished."""
    finished = sum(model.finished for model in run.models)
    return f"stopped, {finished}/{len(run.models)} done" if run.state == "stopped" and finished else run.state


def epochs_text(models: Sequence[ModelProgress]) -> str:
    """Epochs of each stage: ``20 epochs``, ``3/20 epochs``, or ``0-20/20 epochs`` where models differ.

    Where the config asks for steps: ``150/2000 steps``.
    """
    parts = []
    for stages in zip(*(model.stages for model in models), strict=True):
        of_steps = stages[0].of_steps
        asked = stages[0].of if of_steps is None else of_steps
        made = [s.epochs if of_steps is None else s.steps for s in stages]
        low, high = min(made), max(made)
        done = str(low) if low == high else f"{low}-{high}"
        parts.append((done if low == asked else f"{done}/{asked}", "epochs" if of_steps is None else "steps"))
    units = {unit for _, unit in parts}
    if len(units) > 1:
        return " + ".join(f"{done} {unit}" for done, unit in parts)
    return f"{' + '.join(done for done, _ in parts)} {units.pop()}" if parts else ""


def _size(size: int) -> str:
    if size < 1e6:
        return f"{size / 1e3:,.1f} kB"
    return f"{size / 1e6:,.1f} MB" if size < 1e9 else f"{size / 1e9:,.2f} GB"


def _as_json(run: RunSummary) -> dict[str, Any]:
    times = {"folder": str(run.folder), "changed": run.changed.isoformat(timespec="seconds")}
    return asdict(run) | times
