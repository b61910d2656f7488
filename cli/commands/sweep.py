"""`idif sweep`: evaluate a trained run with views missing."""

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Group
from rich.table import Table

from cli.options import SetOption, TablesOption
from cli.terminal.console import JsonOption, note, print_result
from cli.terminal.help import CommandGroup
from cli.workflow.sweep import strategies_of, sweep_run
from idif.data.index import camera_name
from idif.report.sweep_tables import camera_names, subset_text
from idif.report.table_export import (
    check_exports,
    export_table,
    input_sweep_export,
    strategies_export,
    sweep_export,
)
from idif.runs.run import open_run
from idif.runs.sweep import Subsets
from idif.visualization.text import percent, with_percent_sign

FIGURES = {"s_auroc": "S-AUROC", "p_auroc": "P-AUROC"}

app = CommandGroup(help="Evaluate a trained run with views missing.", no_args_is_help=True)


@app.callback()
def _group() -> None:
    pass


@app.command("missing-views")
def missing_views(
    run: Annotated[Path, typer.Argument(help="A run's folder, or one category's folder inside it.")],
    subsets: Annotated[
        Subsets,
        typer.Option(
            help="Every subset of the cameras, the paper's random choices, or every subset of the inputs "
            "(video, sound, ...; all views are one), which `all` stands for where a method reads several."
        ),
    ] = "all",
    seed: Annotated[int, typer.Option(help="Random seed (only with --subsets paper).", min=0)] = 0,
    exports: TablesOption = [],  # noqa: B006
    overrides: SetOption = [],  # noqa: B006
    as_json: JsonOption = False,
) -> None:
    """Score the test split with cameras or inputs missing; the teacher does not run.

    Writes sweep.json, or input_sweep.json for inputs.

    Example:

        idif sweep missing-views runs/realiad-missing-views --subsets all

        idif sweep missing-views runs/causal-film --subsets inputs
    """
    check_exports(exports, tables_only=True)
    sweep = sweep_run(open_run(run, overrides), subsets=subsets, seed=seed)
    of_inputs = sweep["protocol"]["subsets"] == "inputs"
    for path in exports:
        exported = input_sweep_export(sweep) if of_inputs else sweep_export(sweep)
        note(f"wrote {export_table(path, exported)}")
    print_result(sweep, as_json=as_json, otherwise=input_table(sweep) if of_inputs else sweep_table(sweep))


@app.command("strategies")
def strategies(
    runs: Annotated[
        list[Path],
        typer.Argument(metavar="RUN...", help="Trained runs; strategies.json goes into the first."),
    ],
    seed: Annotated[int, typer.Option(help="Random seed of the missing views.", min=0)] = 0,
    exports: TablesOption = [],  # noqa: B006
    overrides: SetOption = [],  # noqa: B006
    as_json: JsonOption = False,
) -> None:
    """Compare strategies for missing views, as in the paper's Fig. 4, and write strategies.json.

    `dropout` scores only the present views; `retrieve` imputes missing ones from the nearest training
    samples; `reconstruct` inpaints them with a network, which is trained into RUN/CATEGORY/reconstruct if it
    does not exist. The config's section `strategies` has the settings.

    Examples:

        idif sweep strategies runs/realiad runs/realiad-missing-views

        idif sweep strategies runs/mvtec3d --set strategies.neighbours=3 --set strategies.score_imputed=true
    """
    check_exports(exports, tables_only=True)
    found = strategies_of([open_run(run, overrides) for run in runs], seed=seed)
    for path in exports:
        note(f"wrote {export_table(path, strategies_export(found))}")
    print_result(found, as_json=as_json, otherwise=strategies_table(found))


def strategies_table(found: dict[str, Any]) -> Group:
    """S-AUROC by number of missing views and strategy; a table for each run."""
    tables = []
    for run in dict.fromkeys(curve["run"] for curve in found["curves"]):
        curves = [curve for curve in found["curves"] if curve["run"] == run]
        title = f"{run}, trained with view dropout {curves[0]['view_dropout']:g}"
        table = Table("missing", *(curve["strategy"] for curve in curves), title=title)
        for missing in curves[0]["by_missing"]:
            cells = [percent(curve["by_missing"][missing]["s_auroc"]) for curve in curves]
            table.add_row(missing, *cells)
        tables.append(table)
    scored = "present and imputed" if found["protocol"]["score_imputed"] else "present"
    tables[-1].caption = f"S-AUROC in percent by number of random views missing, scored on the views {scored}"
    return Group(*tables)


def sweep_table(sweep: dict[str, Any]) -> Group:
    """S- and P-AUROC by number of missing views, and the value of each camera; a sentence for one camera."""
    if len(sweep["protocol"]["views"]) == 1:
        seen = sweep["by_missing"]["0"]
        figures = ", ".join(f"{name} {with_percent_sign(seen[key])}" for key, name in FIGURES.items())
        return Group(f"one camera, and without it nothing to score: the sweep is the evaluation, {figures}")
    table = Table("missing", "S-AUROC", "95 %", "lost, 95 %", "visible", "P-AUROC")
    for missing, values in sweep["by_missing"].items():
        cells = [percent(values[key]) for key in ("s_auroc", "s_auroc_visible", "p_auroc")]
        ends = [_ends(values.get(key)) for key in ("s_auroc_ci", "loss_ci")]
        table.add_row(missing, cells[0], *ends, *cells[1:])
    table.caption = (
        "percent, mean over the choices of cameras, with intervals over samples, also of what is lost; "
        "visible: S-AUROC where only defects that are seen count"
    )
    if sweep["leave_one_out"] is None:
        return Group(table)
    cameras = Table("camera", "value (Shapley)", "lost when it alone fails", "alone")
    alone = {s["views"][0]: s["s_auroc"] for s in sweep["subsets"] if len(s["views"]) == 1}
    names = camera_names(sweep)
    for camera, lost in sweep["leave_one_out"].items():
        value = None if sweep["view_value"] is None else sweep["view_value"][camera]
        cameras.add_row(
            camera_name(names, camera), _points(value), _points(lost), percent(alone.get(int(camera)))
        )
    cameras.caption = "points of S-AUROC; values add up to what all cameras reach above 50"
    best = Table("cameras", "the best of that many", "S-AUROC")
    for size, found in sweep["best_subsets"].items():
        best.add_row(size, subset_text(sweep, found["views"]), percent(found["s_auroc"]))
    best.caption = "picked on these very data"
    return Group(table, cameras, best)


def input_table(sweep: dict[str, Any]) -> Group:
    """S-AUROC of every subset of the inputs, and the value of each."""
    table = Table("inputs", "S-AUROC", "samples")
    for found in sweep["subsets"]:
        table.add_row(", ".join(found["inputs"]), percent(found["s_auroc"]), str(found["samples"]))
    inputs = Table("input", "value (Shapley)", "lost when it alone fails")
    for name, lost in sweep["leave_one_out"].items():
        value = None if sweep["value"] is None else sweep["value"][name]
        inputs.add_row(name, _points(value), _points(lost))
    inputs.caption = "points of S-AUROC; values add up to what all inputs reach above 50"
    return Group(table, inputs)


def _ends(interval: list[float] | None) -> str:
    return "-" if interval is None else " to ".join(map(percent, interval))


def _points(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:+.1f}"
