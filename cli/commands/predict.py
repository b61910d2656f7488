"""`idif predict`: score photographs with a trained run, without its store or dataset."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from cli.options import CheckpointOption, SetOption
from cli.terminal.console import JsonOption, note, out, print_result, progress_bar, write_json_line
from cli.workflow.categories import recognize
from cli.workflow.device import evaluation_device
from idif.errors import DatasetError, RunError
from idif.files import make_folder, replace_file, require_writable
from idif.inference.photo_grouping import (
    RESULTS_FILE,
    PredictInput,
    find_parts,
    is_automatic,
    left_out_of,
)
from idif.inference.predict import (
    Thresholds,
    decode_part,
    predict,
    prediction_json,
    require_images,
    without_score,
    write_pictures,
)
from idif.inference.results_table import DECISIONS, Result, ranked, results_csv, summary
from idif.runs.fitted import fitted_scorer, load_color_limits, other_settings
from idif.runs.run import Run, open_run
from idif.visualization.text import json_line

LEFT_COLUMNS = 36
"""Columns of the terminal for a part's name, score and decision."""
SCORE_WIDTH = 5
SHOWN, LEAST_SHOWN = 3, 0.01
"""Categories whose probabilities the table shows, at most, and the least such probability."""


def predict_images(
    run: Annotated[Path, typer.Argument(help="A run's folder, or one category's folder inside it.")],
    images: Annotated[
        list[Path], typer.Argument(metavar="IMAGE...", help="Photographs, or folders of them.")
    ],
    category: Annotated[
        str | None,
        typer.Option(
            help="Category of images whose name lacks it; required for runs with several; auto: told by the "
            "photographs."
        ),
    ] = None,
    to: Annotated[
        Path | None, typer.Option("--out", help="Folder for heat maps (.png) and raw maps (.npy).")
    ] = None,
    jsonl: Annotated[bool, typer.Option("--jsonl", help="Print a line of JSON for each part.")] = False,
    to_csv: Annotated[
        Path | None, typer.Option("--csv", metavar="FILE", help="Also write a table for spreadsheets.")
    ] = None,
    checkpoint: CheckpointOption = "final",
    overrides: SetOption = [],  # noqa: B006
    as_json: JsonOption = False,
) -> None:
    """Score photographs of parts and mark where they are anomalous.

    Files named as in Real-IAD (``<category>_<number>_..._C<view>_...``), or otherwise with a camera by name
    or number (``part7_Top.png``, ``part7_C3.jpg``, ``cam3.png``, ``Top/part7.png``), are grouped by name, and
    the camera is obeyed. Other files are the views of one part, in the order given; a folder of them is one
    part. A view that is absent or cannot be read counts as missing, and the part is scored by its other
    views.

    With --category auto a linear probe on the run's features tells the category of each part; its
    probabilities are part of the results. How many held-out normals it assigns rightly, the training prints.

    Examples:

        idif predict runs/realiad audiojack_0001_NG_C1.jpg audiojack_0001_NG_C2.jpg --out found

        idif predict runs/realiad parts/ --category audiojack --csv parts.csv

        idif predict runs/realiad parts/ --category auto
    """
    if to_csv is not None and not to_csv.parent.is_dir():
        raise RunError(f"--csv {to_csv}: expected an existing folder, found no {to_csv.parent}")
    opened = open_run(run, overrides, checkpoint)
    require_images(opened.features())
    numbers = opened.view_numbers()
    categories = opened.known_categories()
    parts = find_parts(images, numbers, categories, category, opened.named_cameras())
    if is_automatic(category, categories):
        parts = recognize(opened, parts)
    if (left_out := left_out_of(images)) is not None:
        note(f"note: {left_out}")
    if to is not None:
        make_folder(to)
        require_writable(to)
    if to_csv is not None:
        require_writable(to_csv.parent)
    if (epoch := opened.epoch_text()) is not None:
        note(f"note: weights of epoch {epoch}; training is not finished")
    results = []
    for result in _predict(opened, numbers, parts, to):
        results.append(result)
        for problem in result["problems"]:
            note(f"note: {result['sample']}: counted as missing: {problem}")
        if jsonl and not as_json:
            write_json_line(result)
    if all(result["score"] is None for result in results):
        raise DatasetError(f"{images[0]}: none of the photographs could be read")
    names = opened.camera_names()
    wrote = []
    if to is not None:
        replace_file(to / RESULTS_FILE, "".join(map(json_line, results)))
        wrote.append(f"{to / RESULTS_FILE} and the heat maps of each part beside it")
    if to_csv is not None:
        replace_file(to_csv, results_csv(results, names))
        wrote.append(str(to_csv))
    table = None if jsonl else _table(results, names)
    print_result({"parts": results}, as_json=as_json, otherwise=table)
    note(summary(results))
    for path in wrote:
        note(f"wrote {path}")


def _predict(
    run: Run, numbers: tuple[int, ...], parts: list[PredictInput], to: Path | None
) -> Iterator[dict[str, Any]]:
    """Results of all parts, grouped by category."""
    encoders, epoch = run.encoders(), run.epoch_text()
    cameras = run.named_cameras()
    known = run.known_categories()
    for part in parts:
        if is_automatic(part.category, known):  # none of its photographs is readable
            unread = without_score(decode_part(part, encoders))
            yield prediction_json(unread, numbers, Thresholds(), cameras)
    for category in dict.fromkeys(part.category for part in parts):
        if is_automatic(category, known):
            continue
        of_category = [part for part in parts if part.category == category]
        scorer, thresholds = fitted_scorer(run, category, evaluation_device(), note)
        if (otherwise := other_settings(run, scorer.method)) is not None:
            note(f"note: {otherwise}")
        scale = None if to is None else load_color_limits(run, category, note)
        with progress_bar(f"predicting {category}", "parts") as listen:
            for prediction in predict(scorer, encoders, of_category, progress=listen):
                values = prediction_json(prediction, numbers, thresholds, cameras)
                if to is not None:
                    write_pictures(to / prediction.part.name, prediction, run.camera_names(), scale)
                if epoch is not None:
                    values["epoch"] = epoch
                yield values


def _table(results: list[dict[str, Any]], names: Mapping[int, str]) -> Table:
    """The parts, the highest scores first; scores of cameras where there are several."""
    views = sorted({view for result in results for view in result["views"]}, key=int)
    if len(names) == 1:
        views = []  # the view's score is the part's
    categories = list(dict.fromkeys(result["category"] for result in results))
    told = any("category_probabilities" in result for result in results)
    table = Table(title=categories[0] if len(categories) == 1 else None)
    table.add_column("part", overflow="fold")
    if len(categories) > 1:
        table.add_column("category", overflow="fold")
    headings = [names[int(view)] for view in views]
    # each column has a bar and two spaces
    room = out.width - (LEFT_COLUMNS if len(categories) == 1 else 2 * LEFT_COLUMNS)
    many = sum(3 + max(len(name), SCORE_WIDTH) for name in headings) > room
    if told:
        table.add_column("probability", overflow="fold")
    for name in ("score", "decision", *(["highest camera", "missing"] if many else headings)):
        table.add_column(name, no_wrap=name != "missing")
    for result in ranked(results):
        score = "-" if result["score"] is None else f"{result['score']:#.3g}"
        parts = [result["sample"], result["category"]] if len(categories) > 1 else [result["sample"]]
        if told:
            parts.append(_probabilities_text(result.get("category_probabilities")))
        cells = _worst_view(result, names) if many else _view_scores(result, views)
        table.add_row(*parts, score, DECISIONS[result["anomalous"]], *cells)
    return table


def _probabilities_text(told: Mapping[str, float] | None) -> str:
    """The most probable categories, in percent."""
    if told is None:
        return "-"
    likely = [(name, value) for name, value in list(told.items())[:SHOWN] if value >= LEAST_SHOWN]
    return ", ".join(f"{name} {100 * value:.0f} %" for name, value in likely)


def _view_scores(result: Result, views: list[str]) -> list[str]:
    """The score of each view; a dash for one that is missing."""
    cells = [result["views"].get(view) for view in views]
    return ["-" if cell is None else f"{cell['score']:#.3g}" for cell in cells]


def _worst_view(result: Result, names: Mapping[int, str]) -> list[str]:
    """The camera with the highest score and those that are missing, where there is no room for all scores."""
    scores = {names[int(view)]: values["score"] for view, values in result["views"].items()}
    worst = max(scores, key=lambda name: scores[name], default=None)
    missing = ", ".join(names[number] for number in result["missing"])
    return ["-" if worst is None else f"{worst} {scores[worst]:#.3g}", missing]
