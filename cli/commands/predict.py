"""`idif predict`: score photographs with a trained run, without its store or dataset."""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from cli.options import SetOption
from cli.terminal.console import JsonOption, note, print_result, progress_bar, write_json_line
from cli.workflow.device import evaluation_device
from idif.errors import DatasetError
from idif.evaluation.scoring import Scorer
from idif.files import make_folder, replace_file, require_writable
from idif.inference.photo_grouping import RESULTS_FILE, PredictInput, find_parts, left_out_of
from idif.inference.predict import (
    Prediction,
    Thresholds,
    predict,
    prediction_json,
    require_images,
    write_pictures,
)
from idif.runs.fitted import load_color_limits, load_decision
from idif.runs.run import Run, open_run
from idif.visualization.text import json_line


def predict_images(
    run: Annotated[Path, typer.Argument(help="A run's folder, or one category's folder inside it.")],
    images: Annotated[
        list[Path], typer.Argument(metavar="IMAGE...", help="Photographs, or folders of them.")
    ],
    category: Annotated[
        str | None,
        typer.Option(help="Category of images whose name lacks it; required for runs with several."),
    ] = None,
    to: Annotated[
        Path | None, typer.Option("--out", help="Folder for heat maps (.png) and raw maps (.npy).")
    ] = None,
    jsonl: Annotated[bool, typer.Option("--jsonl", help="Print a line of JSON for each part.")] = False,
    overrides: SetOption = [],  # noqa: B006
    as_json: JsonOption = False,
) -> None:
    """Score photographs of parts and mark where they are anomalous.

    Files named as in Real-IAD (``<category>_<number>_..._C<view>_...``), or otherwise with a camera
    (``part7_C3.jpg``, ``cam3.png``), are grouped by name, and the camera is obeyed. Other files are the
    views of one part, in the order given; a folder of them is one part. A view that is absent or cannot
    be read counts as missing, and the part is scored by its other views.

    Examples:

        idif predict runs/realiad audiojack_0001_NG_C1.jpg audiojack_0001_NG_C2.jpg --out found

        idif predict runs/realiad parts/ --category audiojack --jsonl
    """
    opened = open_run(run, overrides)
    require_images(opened.features())
    numbers = opened.view_numbers()
    parts = find_parts(images, numbers, opened.known_categories(), category)
    if (left_out := left_out_of(images)) is not None:
        note(f"note: {left_out}")
    if to is not None:
        make_folder(to)
        require_writable(to)
    results = []
    for result in _predict(opened, numbers, parts, to):
        results.append(result)
        for problem in result["problems"]:
            note(f"note: {result['sample']}: counted as missing: {problem}")
        if jsonl and not as_json:
            write_json_line(result)
    if all(result["score"] is None for result in results):
        raise DatasetError(f"{images[0]}: none of the photographs could be read")
    if to is not None:
        lines = "".join(map(json_line, results))
        replace_file(to / RESULTS_FILE, lines)
    print_result({"parts": results}, as_json=as_json, otherwise=None if jsonl else _table(results))


def _predict(
    run: Run, numbers: tuple[int, ...], parts: list[PredictInput], to: Path | None
) -> Iterator[dict[str, Any]]:
    """Results of all parts, grouped by category."""
    encoders, features = run.encoders(), run.features()
    for category in dict.fromkeys(part.category for part in parts):
        of_category = [part for part in parts if part.category == category]
        method = run.method(run.model_name(category), features, numbers)
        decision = load_decision(run, category, note)
        scale = None if to is None else load_color_limits(run, category, note)
        scorer = Scorer(decision.rules, method, evaluation_device(), decision.calibration)
        with progress_bar(f"predicting {category}", "parts") as listen:
            for prediction in predict(scorer, encoders, of_category, progress=listen):
                yield _result(prediction, numbers, decision.thresholds, to, scale)


def _result(
    judged: Prediction,
    numbers: tuple[int, ...],
    limits: Thresholds,
    to: Path | None,
    scale: tuple[float, float] | None,
) -> dict[str, Any]:
    result = prediction_json(judged, numbers, limits)
    if to is not None:
        write_pictures(to / judged.part.name, judged, numbers, scale)
    return result


def _table(results: list[dict[str, Any]]) -> Table:
    views = sorted({view for result in results for view in result["views"]}, key=int)
    categories = list(dict.fromkeys(result["category"] for result in results))
    table = Table(title=categories[0] if len(categories) == 1 else None)
    table.add_column("part", overflow="fold")
    if len(categories) > 1:
        table.add_column("category", overflow="fold")
    for name in ("score", "decision", *(f"C{view}" for view in views)):
        table.add_column(name, no_wrap=True)
    for result in results:
        cells = [result["views"].get(view) for view in views]
        decision = {True: "anomalous", False: "normal", None: "-"}[result["anomalous"]]
        score = "-" if result["score"] is None else f"{result['score']:#.3g}"
        shown = ("-" if cell is None else f"{cell['score']:#.3g}" for cell in cells)
        names = [result["sample"], result["category"]] if len(categories) > 1 else [result["sample"]]
        table.add_row(*names, score, decision, *shown)
    threshold = {result["threshold"] for result in results} - {None}
    if len(threshold) == 1:
        table.caption = f"Anomalous from {threshold.pop():.4g} on, the run's threshold."
    return table
