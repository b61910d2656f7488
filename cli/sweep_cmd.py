"""`idif sweep`: what a trained run is worth when cameras fail."""

from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from rich.table import Table

from cli.console import JsonOption, emit, percent, progress_bar
from cli.device import evaluation_device
from cli.eval_cmd import calibration
from cli.session import Run, Sources, load_method, open_run
from cli.train_cmd import SetOption
from idif.runlog import write_json
from idif.sweep import mean_sweep, sweep_all, sweep_paper

app = typer.Typer(help="Evaluate a trained run with views missing.", no_args_is_help=True)

Subsets = Literal["all", "paper"]


@app.callback()
def _group() -> None:
    pass


@app.command("missing-views")
def missing_views(
    run: Annotated[Path, typer.Argument(help="A run's folder, or one category's folder inside it.")],
    subsets: Annotated[
        Subsets, typer.Option(help="Every subset of the cameras, or the paper's random choices.")
    ] = "all",
    seed: Annotated[int, typer.Option(help="Of the random choices of --subsets paper.", min=0)] = 0,
    overrides: SetOption = [],  # noqa: B006
    as_json: JsonOption = False,
) -> None:
    """Score the test split with cameras missing and write sweep.json; the teacher does not run.

    Example:

        idif sweep missing-views runs/realiad-missing-views --subsets all
    """
    sweep = sweep_run(open_run(run, overrides), subsets=subsets, seed=seed)
    emit(sweep, as_json=as_json, otherwise=sweep_table(sweep))


def sweep_run(run: Run, *, subsets: Subsets = "all", seed: int = 0) -> dict[str, Any]:
    """Sweep every category of a run and write ``sweep.json``."""
    device = evaluation_device()
    sources = Sources(run.config, device)
    categories: dict[str, dict[str, Any]] = {}
    numbers: tuple[int, ...] = ()
    sweep = sweep_all if subsets == "all" else partial(sweep_paper, seed=seed)
    for category, name in run.models(sources):
        source = sources.open([category], "test")
        numbers = source.index.view_numbers
        method = load_method(run, name, source.spec, numbers).to(device)
        fitted = calibration(run, sources, category, method, device)
        with progress_bar(f"sweeping {category}", "samples") as listen:
            categories[category] = sweep(
                run.config.eval, method, source, device, calibration=fitted, progress=listen
            )
    protocol = {"subsets": subsets, "seed": seed if subsets == "paper" else None, "views": list(numbers)}
    whole = mean_sweep(categories, numbers) | {"protocol": protocol}
    write_json(run.results / "sweep.json", whole)
    return whole


def sweep_table(sweep: dict[str, Any]) -> Table:
    """S- and P-AUROC by number of missing views, and each camera's value."""
    table = Table("missing views", "S-AUROC", "S-AUROC, visible defects", "P-AUROC")
    for missing, values in sweep["by_missing"].items():
        cells = (values["s_auroc"], values["s_auroc_visible"], values["p_auroc"])
        table.add_row(missing, *map(percent, cells))
    if sweep["view_value"] is not None:
        values = ", ".join(f"C{view} {100 * value:+.1f}" for view, value in sweep["view_value"].items())
        table.caption = f"Value of each camera (Shapley, points of S-AUROC above 50): {values}"
    return table
