"""Writes the report: reads the runs, makes tables, charts and galleries, renders the template."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from jinja2 import Environment, PackageLoader, StrictUndefined

from idif.errors import RunError
from idif.evaluation.decision import Decisions
from idif.evaluation.reconstruction import RebuiltImages
from idif.files import replace_file, require_writable
from idif.methods.maps import MAP
from idif.progress import Progress, silent
from idif.report import figures, summary_text, sweep_figures, sweep_tables, tables
from idif.report.decisions import Costs, DecisionPart, decision_part
from idif.report.figures import Figure
from idif.report.gallery import Gallery, ImageLoader, load_images, make_gallery, select_samples
from idif.report.recordings import RecordingLoader, Sheet, load_recordings, make_sheets
from idif.report.reference_results import (
    covered_dataset,
    missing_view_reference,
    reference_rows,
)
from idif.report.run_data import RunData, read_run
from idif.report.side_by_side import side_by_side
from idif.report.strips import Strips, make_strips
from idif.report.tables import DASH, HEADLINE, Table, applicable, label
from idif.runs.baseline import compared_with_baseline
from idif.runs.files import RECONSTRUCTION_FILE
from idif.version import __version__
from idif.visualization.heatmap import color_bar_css
from idif.visualization.text import as_sentence, percent

IMAGE_BYTES = 6_500_000
"""Budget for all images of a page, so that it stays below 10 MB."""
STRIP_BYTES = 1_500_000
"""Budget for the pictures of reconstructions."""
FEW_CATEGORIES = 4
"""Up to this number of categories, their sections are open and show two samples of each kind."""


class Pictures(NamedTuple):
    """The pictures of one category."""

    gallery: Gallery | None
    strips: Strips | None
    notes: list[str]
    """Why some are missing."""
    sheets: list[Sheet]
    """Files of samples that are more than images."""


@dataclass(frozen=True)
class CategorySection:
    """The page's section on one category."""

    name: str
    s_auroc: str
    decision: DecisionPart | None
    figures: list[Figure]
    tables: list[Table]
    gallery: Gallery | None
    strips: Strips | None
    """Reconstructions beside photographs and maps, where evaluation kept them."""
    sheets: list[Sheet]
    """Files of samples that are more than images."""
    notes: list[str]


@dataclass(frozen=True)
class RunSection:
    """The page's section on one run."""

    name: str
    summary: str
    caveats: list[str]
    headline: list[tuple[str, str, str]]
    """(metric, value, remark)."""
    overview: Figure | None
    categories_table: Table
    baseline: tuple[str, Table | None] | None
    """Comparison with the run's baseline: a sentence, and the table of categories if there is one."""
    about_references: str | None
    """Where the published columns are from, if they are shown."""
    sweep_figures: list[Figure]
    sweep_tables: list[Table]
    sweep_note: str | None
    training: list[Figure]
    """Charts of one model for all categories; those of a category's model are in its section."""
    categories: list[CategorySection]
    details: list[tuple[str, list[Table]]]
    """(title, tables), collapsed on the page."""
    notes: list[str]
    has_views: bool
    several_cameras: bool
    swept: bool
    """Whether the page has a section on missing views or inputs."""
    of_inputs: bool
    """Whether that is on inputs."""


def write_report(
    runs: Sequence[Path],
    *,
    images: ImageLoader | None = None,
    recordings: RecordingLoader | None = None,
    costs: Costs | None = None,
    progress: Progress = silent,
) -> Path:
    """Write one self-contained HTML file about one or more evaluated runs.

    Args:
        runs: folders that hold ``metrics.json``; the report goes into the first.
        images: loads the photographs; if it is None or raises an `IdifError`, only maps are shown.
        recordings: loads samples that are more than images, and where their scores came from.
        costs: costs of wrong decisions, for the cheapest threshold.
        progress: called after each category.

    Returns:
        The path of ``report.html``.

    Raises:
        RunError: a folder is not a run, is not evaluated yet, or holds a damaged file.
        ConfigError: a run's config cannot be read.
        PathError, CannotFinish: the first run's folder cannot be written.
    """
    assert runs, "a report needs a run"
    data = [read_run(folder) for folder in dict.fromkeys(runs)]
    require_writable(data[0].folder)
    several = len(data) > 1
    compared = None
    if several:
        each = 2 if len(data[0].categories) <= FEW_CATEGORIES else 1
        compared = side_by_side(data, images, each, IMAGE_BYTES)
    shown_together = {} if compared is None else dict(compared.samples)
    total = sum(len(run.categories) for run in data)
    done = 0
    sections = []
    for run in data:
        galleries: list[Pictures] = []
        for name in run.categories:
            strips, why = _strips(run, name, images, total)
            shown = _Shown(None, [], [])
            if name not in shown_together or not run.draws_maps:
                shown = _shown(run, name, images, recordings, total)
            galleries.append(Pictures(shown.gallery, strips, [*shown.notes, *why], shown.sheets))
            done += 1
            progress(done, total, f"{run.name}: {name}")
        sections.append(_run_section(run, galleries, costs))
    page = _template().render(
        runs=sections,
        comparison=tables.comparison(data) if several else None,
        differences=tables.differences(data) if several else None,
        side_by_side=compared,
        comparison_notes=summary_text.comparison_notes(data) if several else [],
        open_categories=total <= FEW_CATEGORIES,
        color_bar=color_bar_css(),
        version=__version__,
    )
    path = data[0].folder / "report.html"
    replace_file(path, page)
    return path


def _template() -> Any:
    loader = PackageLoader("idif.report", ".")
    environment = Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return environment.get_template("report.html.j2")


class _Shown(NamedTuple):
    """The selected samples of a category."""

    gallery: Gallery | None
    sheets: list[Sheet]
    notes: list[str]
    """Why pictures are missing."""


def _shown(
    run: RunData, category: str, images: ImageLoader | None, recordings: RecordingLoader | None, total: int
) -> _Shown:
    """A category's samples: sheets of a method without maps, if the data has recordings; else a gallery."""
    if run.predictions is None or not run.predictions.rows(category).size:
        return _Shown(None, [], [])
    split = run.protocol.get("split", "test")
    if not run.draws_maps:
        few = select_samples(_scored_samples(run, category), 1, 2)
        examined, reason = load_recordings(recordings, run.folder, split, run.predictions, list(few))
        sheets = make_sheets(run.predictions, few, examined or {})
        return _Shown(None, sheets, [] if reason is None else [reason])
    if not run.has_views:
        return _Shown(None, [], [])
    each, wrong = (2, 6) if total <= FEW_CATEGORIES else (1, 1)
    selected = select_samples(_scored_samples(run, category), each, wrong)
    photos, why = load_images(images, run.folder, split, run.predictions, list(selected))
    if not photos and not run.predictions.has_maps:
        no_maps = "Maps are not shown: the predictions were written without them (--no-maps)."
        return _Shown(None, [], [no_maps, *([] if why is None else [why])])
    gallery = make_gallery(run.predictions, selected, photos, IMAGE_BYTES // total)
    return _Shown(gallery, [], [] if why is None else [why])


def _strips(
    run: RunData, category: str, images: ImageLoader | None, total: int
) -> tuple[Strips | None, list[str]]:
    """A category's strips, and why there are none although reconstructions were kept."""
    p = run.predictions
    if p is None or not p.has_maps or not p.rows(category).size:
        return None, []
    rebuilt = RebuiltImages.open(run.folder / RECONSTRUCTION_FILE)
    if rebuilt is None:
        return None, []
    if not rebuilt.belongs_to(p.protocol):
        again = (
            "Reconstructions are not shown: those kept are of other weights or settings; evaluate again with "
        )
        return None, [f"{again}--save-reconstruction."]
    selected = select_samples(_scored_samples(run, category), 1)
    photos, _ = load_images(images, run.folder, run.protocol.get("split", "test"), p, list(selected))
    return make_strips(p, selected, photos, rebuilt, STRIP_BYTES // total), []


def _scored_samples(run: RunData, category: str) -> figures.ScoredSamples:
    assert run.predictions is not None
    recorded = run.categories[category].get("thresholds", {}).get("sample")
    return figures.scored_samples(run.predictions, category, run.config.eval, recorded)


def _run_section(run: RunData, galleries: Sequence[Pictures], costs: Costs | None) -> RunSection:
    imported_from = run.protocol.get("imported_from", ())
    references = reference_rows(run.config.method.name, run.categories, imported_from)
    sections = [
        _category_section(run, name, pictures, costs)
        for name, pictures in zip(run.categories, galleries, strict=True)
    ]
    notes = []
    if run.predictions is None:
        notes.append("There is no predictions.h5: score histograms, ROC curves and images are not shown.")
    if run.environment is None:
        notes.append(
            "There is no environment.json: the machine, the libraries and the run's own caveats are unknown."
        )
    return RunSection(
        name=run.name,
        summary=summary_text.summary(run),
        caveats=summary_text.caveats(run),
        headline=_headline(run),
        overview=figures.overview(run.categories, references),
        categories_table=tables.category_table(run, references),
        baseline=_baseline(run),
        about_references=summary_text.about_references(references),
        **_sweep(run),
        training=_training(run, "all"),
        categories=sections,
        details=_details(run),
        notes=notes,
        has_views=run.has_views and run.draws_maps,
        several_cameras=run.several_cameras,
        swept=run.several_cameras or not run.draws_maps,
        of_inputs=not run.draws_maps,
    )


def _category_section(run: RunData, name: str, pictures: Pictures, costs: Costs | None) -> CategorySection:
    decision = None
    values = run.categories[name]
    drawn: list[Figure] = []
    notes = list(pictures.notes)
    if run.predictions is not None:
        samples = _scored_samples(run, name)
        if (recorded := values.get("decision")) is not None and len(samples.rows):
            decision = decision_part(Decisions.from_json(recorded), samples, costs)
        if len(samples.rows):
            drawn.append(figures.score_histogram(samples))
        if values["s_auroc"] is not None and samples.both_classes:
            drawn.append(figures.roc(samples, values["s_auroc"]))
        elif values["s_auroc"] is None:
            reason = values.get("reasons", {}).get("s_auroc", tables.NOT_COMPUTED)
            notes.insert(0, f"There is no ROC curve: {reason}.")
    pro_curve = figures.pro(values)
    drawn += [] if pro_curve is None else [pro_curve]
    drawn += _training(run, name)
    possible = (
        tables.per_map(values, run.protocol.get("rules", {}).get("region_map", MAP)),
        tables.per_defect(values, has_views=run.several_cameras),
        tables.class_scores(values),
        *([tables.per_view(values, run.protocol.get("cameras", {}))] if run.several_cameras else []),
    )
    shown = [table for table in possible if table.rows]
    s_auroc = DASH if values["s_auroc"] is None else f"{percent(values['s_auroc'])} %"
    return CategorySection(
        name,
        s_auroc,
        decision,
        drawn,
        shown,
        pictures.gallery,
        pictures.strips,
        pictures.sheets,
        notes,
    )


def _training(run: RunData, model: str) -> list[Figure]:
    lines = run.logs.get(model, [])
    drawn = (figures.loss_curves(lines), figures.painted_curve(lines), figures.eval_curve(lines))
    return [figure for figure in drawn if figure is not None]


def _sweep(run: RunData) -> dict[str, Any]:
    """The fields of a `RunSection` about missing views, or missing inputs of a method without maps."""
    if not run.draws_maps:
        return _input_sweep(run)
    if not run.several_cameras:
        return {"sweep_figures": [], "sweep_tables": [], "sweep_note": None}
    compared, table = [], []
    if run.strategies is not None:
        figure = sweep_figures.strategies(run.strategies)
        compared = [] if figure is None else [figure]
        table = [sweep_tables.strategies(run.strategies)]
    if run.sweep is None:
        why = f"There is no sweep of missing views yet; run `idif sweep missing-views {run.folder.name}`."
        if run.fused:
            why = "A late fusion has no model to run with missing views; sweep the fused runs instead."
        return {"sweep_figures": compared, "sweep_tables": table, "sweep_note": why}
    published = []
    imported_from = run.protocol.get("imported_from", ())
    dataset = covered_dataset(run.config.method.name, run.categories, imported_from)
    if dataset is not None:
        published = missing_view_reference(run.config.method.name, dataset)
    curve = sweep_figures.missing_views(run.sweep["by_missing"], published)
    drawn = [] if curve is None else [curve]
    made = [sweep_tables.missing_views(run.sweep)]
    if len(run.sweep["categories"]) > 1:
        made.append(sweep_tables.missing_by_category(run.sweep))
    if run.sweep.get("leave_one_out"):
        made += [sweep_tables.cameras(run.sweep), sweep_tables.best_subsets(run.sweep)]
    note = None
    if run.sweep["view_value"] is not None:
        named, errors = sweep_tables.camera_names(run.sweep), run.sweep.get("view_value_se")
        drawn.append(sweep_figures.camera_values(run.sweep["view_value"], errors, named))
    elif not run.sweep["subsets"]:
        note = "No camera values: the missing views were chosen at random (--subsets paper)."
    else:
        note = "No camera values: the S-AUROC of some subset is undefined."
    return {"sweep_figures": drawn + compared, "sweep_tables": made + table, "sweep_note": note}


def _input_sweep(run: RunData) -> dict[str, Any]:
    found = run.input_sweep
    if found is None:
        why = f"There is no sweep of missing inputs yet; run `idif sweep missing-views {run.folder.name}`."
        return {"sweep_figures": [], "sweep_tables": [], "sweep_note": why}
    made = [sweep_tables.inputs(found), sweep_tables.input_subsets(found)]
    drawn = [] if found["value"] is None else [sweep_figures.input_values(found["value"])]
    note = "No Shapley values: the S-AUROC of some subset is undefined." if found["value"] is None else None
    return {"sweep_figures": drawn, "sweep_tables": made, "sweep_note": note}


def _baseline(run: RunData) -> tuple[str, Table | None] | None:
    try:
        found = None if run.fused else compared_with_baseline(run.folder, run.config)
    except RunError as error:
        return f"The run cannot be compared with its baseline: {error}.", None
    return None if found is None else (as_sentence(found.sentence()), tables.paired(found))


def _headline(run: RunData) -> list[tuple[str, str, str]]:
    mean, total = run.metrics["mean"], len(run.categories)
    names = {"s": "samples", "i": "views", "p": "pixels", "a": "regions"}
    tiles = []
    for key in applicable(run, HEADLINE):
        value, null = mean.get(key), mean.get("nulls", {}).get(key, 0)
        if value is None:
            remark = mean.get("reasons", {}).get(key, tables.NOT_COMPUTED)
        else:
            remark = names[key[0]] + (f", {total - null} of {total} categories" if null else "")
        tiles.append((label(key), percent(value, DASH), remark))
    return tiles


def _details(run: RunData) -> list[tuple[str, list[Table]]]:
    further = tables.other_metrics(run)
    sections = [("Further metrics", [further])] if further.columns else []
    sections.append(
        ("Protocol: how scores and metrics were computed", [tables.key_values("Protocol", run.protocol)])
    )
    sections.append(("Settings", [tables.key_values("Resolved config", run.config.model_dump(mode="json"))]))
    timing = _timing(run)
    environment = [tables.key_values("Environment", run.environment)] if run.environment else []
    sections.append(("Training time and environment", [timing, *environment] if timing.rows else environment))
    return [(title, shown) for title, shown in sections if shown]


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
