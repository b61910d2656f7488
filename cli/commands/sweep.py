"""`idif sweep`: what a trained run is worth when cameras fail."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
import typer
from rich.console import Group
from rich.table import Table

from cli.commands.eval import calibration
from cli.commands.train import SetOption, training_rows
from cli.terminal.console import JsonOption, emit, percent, progress_bar, say
from cli.workflow.device import evaluation_device
from cli.workflow.run_folder import Run, load_method, open_run
from cli.workflow.sources import Sources
from idif.missing_views.imputation import Filler
from idif.missing_views.inpainting import Painter, Reconstructor, load_painter, train_painter
from idif.missing_views.retrieval import Retriever
from idif.missing_views.strategies import STRATEGIES, mean_curve, score_strategy
from idif.missing_views.sweep import mean_sweep, sweep_all, sweep_paper
from idif.training.run_log import write_json

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


@app.command("strategies")
def strategies(
    runs: Annotated[
        list[Path],
        typer.Argument(metavar="RUN...", help="Trained runs; strategies.json goes into the first."),
    ],
    seed: Annotated[int, typer.Option(help="Of the choice of missing views.", min=0)] = 0,
    overrides: SetOption = [],  # noqa: B006
    as_json: JsonOption = False,
) -> None:
    """Compare what can be done about missing views, as the paper's Fig. 4 does, and write strategies.json.

    `dropout` scores the views present alone; `retrieve` borrows missing ones from the nearest training
    samples; `reconstruct` paints them, with a network that is trained into RUN/CATEGORY/reconstruct where
    there is none. The config's `strategies` section has the choices.

    Examples:

        idif sweep strategies runs/realiad runs/realiad-missing-views

        idif sweep strategies runs/mvtec3d --set strategies.neighbours=3 --set strategies.score_filled=true
    """
    found = strategies_of([open_run(run, overrides) for run in runs], seed=seed)
    emit(found, as_json=as_json, otherwise=strategies_table(found))


def strategies_of(runs: Sequence[Run], *, seed: int = 0) -> dict[str, Any]:
    """Every strategy on every run, into ``strategies.json`` of the first."""
    curves: list[dict[str, Any]] = []
    compared: dict[str, list[str]] = {}
    for run in runs:
        categories = _strategies_of_run(run, seed)
        compared[run.results.name] = sorted(categories["dropout"])
        for strategy, of_categories in categories.items():
            curves.append(
                {
                    "run": run.config.run.name,
                    "view_dropout": run.config.train.dropout.probability,
                    "strategy": strategy,
                    "by_missing": mean_curve(of_categories),
                    "categories": of_categories,
                }
            )
    if len({tuple(names) for names in compared.values()}) > 1:
        say("note: the runs' categories differ, so their means are not of the same thing")
    chosen = runs[0].config.strategies.model_dump(mode="json")
    found = {"curves": curves, "protocol": {"seed": seed, "labels": "any view", **chosen}}
    write_json(runs[0].results / "strategies.json", found)
    return found


def _strategies_of_run(run: Run, seed: int) -> dict[str, dict[str, Any]]:
    """{strategy: {category: curve}} of one run."""
    device = evaluation_device()
    sources, chosen = Sources(run.config, device), run.config.strategies
    found: dict[str, dict[str, Any]] = {strategy: {} for strategy in STRATEGIES}
    for category, name in run.models(sources):
        source, normals = sources.open([category], "test"), sources.open([category], "train")
        method = load_method(run, name, source.spec, source.index.view_numbers).to(device)
        fitted = calibration(run, sources, category, method, device)
        with progress_bar(f"{category}: pooling", "samples") as listen:
            retriever = Retriever.build(normals, chosen.layer, chosen.neighbours, listen)
        painter = _painter(run, sources, name, device)
        teacher = sources.encoder() if chosen.score_filled else None
        if teacher is not None:
            teacher.module.to(device)
        fillers: dict[str, Filler] = {
            "retrieve": retriever,
            "reconstruct": Reconstructor(painter, teacher, device),
        }
        for strategy in STRATEGIES:
            title = f"{category}: {strategy}"
            with progress_bar(title, "samples") as listen:
                found[strategy][category] = score_strategy(
                    run.config.eval,
                    method,
                    source,
                    device,
                    seed=seed,
                    filler=fillers.get(strategy),
                    score_filled=chosen.score_filled,
                    calibration=fitted,
                    progress=listen,
                    what=title,
                )
    return found


def _painter(run: Run, sources: Sources, name: str, device: torch.device) -> Painter:
    """The painter of a model: the one in its folder, or one trained into it now."""
    folder, chosen = run.folder / name / "reconstruct", run.config.strategies.painter
    members = sources.categories() if run.config.train.mode == "unified" else [name]
    source = sources.open(members, "train")
    painter = load_painter(folder, chosen, source)
    if painter is None:
        rows, _ = training_rows(run.config, source.index)
        with progress_bar(f"{name}: training the painter", "steps") as listen:
            painter = train_painter(folder, chosen, source, rows, device, progress=listen)
    return painter.to(device)


def strategies_table(found: dict[str, Any]) -> Table:
    """S-AUROC by strategy and number of missing views."""
    missing = list(found["curves"][0]["by_missing"])
    table = Table("run", "dropout p", "strategy", *missing)
    for curve in found["curves"]:
        cells = [percent(curve["by_missing"][m]["s_auroc"]) for m in missing]
        table.add_row(curve["run"], f"{curve['view_dropout']:g}", curve["strategy"], *cells)
    scored = "present and filled in" if found["protocol"]["score_filled"] else "present"
    table.caption = f"S-AUROC in percent by number of random views missing, scored on the views {scored}"
    return table


def sweep_run(run: Run, *, subsets: Subsets = "all", seed: int = 0) -> dict[str, Any]:
    """Sweep every category of a run and write ``sweep.json``."""
    device = evaluation_device()
    sources = Sources(run.config, device)
    categories: dict[str, dict[str, Any]] = {}
    numbers: tuple[int, ...] = ()
    incomplete: dict[str, int] = {}
    sweep = sweep_all if subsets == "all" else partial(sweep_paper, seed=seed)
    for category, name in run.models(sources):
        source = sources.open([category], "test")
        numbers = source.index.view_numbers
        method = load_method(run, name, source.spec, numbers).to(device)
        fitted = calibration(run, sources, category, method, device)
        incomplete[category] = sum(not all(sample.present) for sample in source.index.samples)
        if incomplete[category]:
            some = f"{incomplete[category]} of {len(source.index)} samples"
            say(f"note: {category}: {some} lack views in the data; they are scored on the rest")
        with progress_bar(f"sweeping {category}", "samples") as listen:
            categories[category] = sweep(
                run.config.eval, method, source, device, calibration=fitted, progress=listen
            )
    protocol = {
        "subsets": subsets,
        "seed": seed if subsets == "paper" else None,
        "views": list(numbers),
        "incomplete_samples": incomplete,
        "labels": {
            "s_auroc": "anomalous when any view is, seen or not",
            "s_auroc_visible": "anomalous when a view that is seen is",
        },
    }
    whole = mean_sweep(categories, numbers) | {"protocol": protocol}
    write_json(run.results / "sweep.json", whole)
    return whole


def sweep_table(sweep: dict[str, Any]) -> Group:
    """S- and P-AUROC by number of missing views, and what each camera is worth."""
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
    for camera, lost in sweep["leave_one_out"].items():
        value = None if sweep["view_value"] is None else sweep["view_value"][camera]
        cameras.add_row(f"C{camera}", _points(value), _points(lost), percent(alone.get(int(camera))))
    cameras.caption = "points of S-AUROC; values add up to what all cameras reach above 50"
    best = Table("cameras", "the best of that many", "S-AUROC")
    for size, found in sweep["best_subsets"].items():
        names = " ".join(f"C{number}" for number in found["views"])
        best.add_row(size, names, percent(found["s_auroc"]))
    best.caption = "picked on these very data"
    return Group(table, cameras, best)


def _ends(interval: list[float] | None) -> str:
    return "-" if interval is None else " to ".join(map(percent, interval))


def _points(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:+.1f}"
