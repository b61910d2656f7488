"""Puts a report together: reads the runs, makes tables, charts and pictures, fills the template."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from idif import __version__
from idif.progress import Progress, silent
from idif.report import figures, summary_text, sweep_figures, sweep_tables, tables
from idif.report.figures import Figure
from idif.report.gallery import Gallery, ImageLoader, load_images, make_gallery
from idif.report.reference_results import paper_rows
from idif.report.run_data import RunData, read_run
from idif.report.tables import DASH, HEADLINE, Table, label, percent
from idif.visualization.heatmap import colour_bar

PICTURE_BYTES = 6_500_000
"""What all pictures of a page may take together, so that it stays below 10 MB."""
FEW_CATEGORIES = 4
"""Up to so many categories, their sections are open and show two samples of every kind."""


@dataclass(frozen=True)
class CategorySection:
    """What the page shows of one category."""

    name: str
    s_auroc: str
    figures: list[Figure]
    tables: list[Table]
    gallery: Gallery | None
    notes: list[str]


@dataclass(frozen=True)
class RunSection:
    """What the page shows of one run."""

    name: str
    summary: str
    caveats: list[str]
    headline: list[tuple[str, str, str]]
    """(metric, figure, remark)."""
    overview: Figure | None
    categories_table: Table
    paper: str | None
    """What the paper's columns are, where they are shown."""
    sweep_figures: list[Figure]
    sweep_tables: list[Table]
    sweep_note: str | None
    training: list[Figure]
    """Of a model for all categories; those of single ones are in their sections."""
    categories: list[CategorySection]
    details: list[tuple[str, list[Table]]]
    """(title, tables) of what is folded away."""
    notes: list[str]


def write_report(
    runs: Sequence[Path], *, images: ImageLoader | None = None, progress: Progress = silent
) -> Path:
    """Write one self-contained HTML file about one or more evaluated runs.

    Args:
        runs: folders that hold ``metrics.json``; the report goes into the first.
        images: where the gallery's photographs come from; None or an `IdifError` of its leaves maps alone.
        progress: told categories done.

    Returns:
        The path of ``report.html``.

    Raises:
        RunError: a folder is no run, was not evaluated, or holds a damaged file.
        ConfigError: a run's config cannot be read.
    """
    assert runs, "a report needs a run"
    found = [read_run(folder) for folder in dict.fromkeys(runs)]
    total = sum(len(run.categories) for run in found)
    done = 0
    sections = []
    for run in found:
        galleries = []
        for name in run.categories:
            galleries.append(_gallery(run, name, images, total))
            done += 1
            progress(done, total, f"{run.name}: {name}")
        sections.append(_run_section(run, galleries))
    several = len(found) > 1
    page = _template().render(
        runs=sections,
        comparison=tables.comparison(found) if several else None,
        differences=tables.differences(found) if several else None,
        comparison_notes=summary_text.comparison_notes(found) if several else [],
        open_categories=total <= FEW_CATEGORIES,
        colour_bar=colour_bar(),
        version=__version__,
    )
    path = found[0].folder / "report.html"
    beside = path.with_name(path.name + ".part")
    beside.write_text(page, encoding="utf-8")
    os.replace(beside, path)
    return path


def _template() -> Any:
    loader = PackageLoader("idif.report", ".")
    made = Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return made.get_template("report.html.j2")


def _gallery(
    run: RunData, category: str, images: ImageLoader | None, total: int
) -> tuple[Gallery | None, list[str]]:
    """A category's pictures, and what has to be said of them."""
    if run.predictions is None or not run.predictions.rows(category).size:
        return None, []
    each = 2 if total <= FEW_CATEGORIES else 1
    samples = _ranked(run, category)
    pictures, why = load_images(
        images, run.folder, run.protocol.get("split", "test"), run.predictions, samples, each
    )
    if not pictures and not run.predictions.has_maps:
        nothing = "There are no pictures: the predictions were kept without maps (--no-maps)."
        return None, [nothing, *([] if why is None else [why])]
    gallery = make_gallery(run.predictions, samples, pictures, each, PICTURE_BYTES // total)
    return gallery, [] if why is None else [why]


def _ranked(run: RunData, category: str) -> figures.Ranked:
    assert run.predictions is not None
    recorded = run.categories[category].get("thresholds", {}).get("sample")
    return figures.ranked(run.predictions, category, recorded)


def _run_section(run: RunData, galleries: list[tuple[Gallery | None, list[str]]]) -> RunSection:
    paper = paper_rows(run.categories)
    sections = [
        _category_section(run, name, *gallery)
        for name, gallery in zip(run.categories, galleries, strict=True)
    ]
    notes = []
    if run.predictions is None:
        notes.append("There is no predictions.h5, so score histograms, ROC curves and pictures are missing.")
    if run.environment is None:
        notes.append("There is no environment.json, so the machine and any stand-ins used are unknown.")
    return RunSection(
        name=run.name,
        summary=summary_text.summary(run),
        caveats=summary_text.caveats(run),
        headline=_headline(run),
        overview=figures.overview(run.categories, paper),
        categories_table=tables.category_table(run, paper),
        paper=summary_text.about_paper(run, paper),
        **_sweep(run),
        training=_training(run, "all"),
        categories=sections,
        details=_details(run),
        notes=notes,
    )


def _category_section(run: RunData, name: str, gallery: Gallery | None, notes: list[str]) -> CategorySection:
    values = run.categories[name]
    drawn: list[Figure] = []
    notes = list(notes)
    if run.predictions is not None:
        samples = _ranked(run, name)
        if len(samples.rows):
            drawn.append(figures.score_histogram(samples))
        if values["s_auroc"] is not None and samples.both_classes:
            drawn.append(figures.roc(samples, values["s_auroc"]))
        elif values["s_auroc"] is None:
            reason = values.get("reasons", {}).get("s_auroc", tables.NOT_COMPUTED)
            notes.insert(0, f"There is no ROC curve: {reason}.")
    overlap = figures.pro(values)
    drawn += [] if overlap is None else [overlap]
    drawn += _training(run, name)
    shown = [table for table in (tables.per_defect(values), tables.per_view(values)) if table.rows]
    s_auroc = DASH if values["s_auroc"] is None else f"{percent(values['s_auroc'])} %"
    return CategorySection(name, s_auroc, drawn, shown, gallery, notes)


def _training(run: RunData, model: str) -> list[Figure]:
    lines = run.logs.get(model, [])
    drawn = (figures.loss_curves(lines), figures.eval_curve(lines))
    return [figure for figure in drawn if figure is not None]


def _sweep(run: RunData) -> dict[str, Any]:
    compared, table = [], []
    if run.strategies is not None:
        figure = sweep_figures.strategies(run.strategies)
        compared = [] if figure is None else [figure]
        table = [sweep_tables.strategies(run.strategies)]
    if run.sweep is None:
        yet = f"No missing-view sweep has been made yet: idif sweep missing-views {run.folder.name}"
        if run.fused:
            yet = "A fusion has no model of its own, so no views can be left out; sweep its runs."
        return {"sweep_figures": compared, "sweep_tables": table, "sweep_note": yet}
    curve = sweep_figures.missing_views(run.sweep["by_missing"])
    drawn = [] if curve is None else [curve]
    made = [sweep_tables.missing_views(run.sweep)]
    if len(run.sweep["categories"]) > 1:
        made.append(sweep_tables.missing_by_category(run.sweep))
    if run.sweep.get("leave_one_out"):
        made += [sweep_tables.cameras(run.sweep), sweep_tables.best_subsets(run.sweep)]
    note = None
    if run.sweep["view_value"] is not None:
        drawn.append(sweep_figures.camera_values(run.sweep["view_value"], run.sweep.get("view_value_se")))
    elif not run.sweep["subsets"]:
        note = "Cameras have no value here: the views were left out at random (--subsets paper)."
    else:
        note = "Cameras have no value here: the S-AUROC of some subset is undefined."
    return {"sweep_figures": drawn + compared, "sweep_tables": made + table, "sweep_note": note}


def _headline(run: RunData) -> list[tuple[str, str, str]]:
    mean, total = run.metrics["mean"], len(run.categories)
    names = {"s": "samples", "i": "views", "p": "pixels", "a": "regions"}
    found = []
    for key in HEADLINE:
        value, null = mean.get(key), mean.get("nulls", {}).get(key, 0)
        if value is None:
            remark = mean.get("reasons", {}).get(key, tables.NOT_COMPUTED)
        else:
            remark = names[key[0]] + (f", {total - null} of {total} categories" if null else "")
        found.append((label(key), DASH if value is None else percent(value), remark))
    return found


def _details(run: RunData) -> list[tuple[str, list[Table]]]:
    further = tables.other_metrics(run)
    found = [("Further metrics", [further])] if further.columns else []
    found.append(("Protocol: how the numbers were made", [tables.key_values("Protocol", run.protocol)]))
    found.append(("Settings", [tables.key_values("Resolved config", run.config.model_dump(mode="json"))]))
    timing = _timing(run)
    environment = [tables.key_values("Environment", run.environment)] if run.environment else []
    found.append(("Training time and environment", [timing, *environment] if timing.rows else environment))
    return [(title, shown) for title, shown in found if shown]


def _timing(run: RunData) -> Table:
    table = Table("Training time", ["epochs", "seconds", "samples per second"])
    for model, lines in run.logs.items():
        epochs = [line for line in lines if "seconds" in line]
        if epochs:
            seconds = sum(line["seconds"] for line in epochs)
            rate = sum(line["samples_per_s"] * line["seconds"] for line in epochs) / max(seconds, 1e-9)
            cells = (str(len(epochs)), f"{seconds:.1f}", f"{rate:.1f}")
            table.rows.append((model, [tables.Cell(text) for text in cells]))
    return table
