"""Charts of missing views: S-AUROC by number of missing views, by strategy, and the value of each camera."""

from collections.abc import Mapping, Sequence

import numpy as np

from idif.data.index import camera_name
from idif.report.charts import Axis, Line, bar_chart, category_axis, line_chart, linear_axis
from idif.report.figures import Figure, percent_axis
from idif.report.reference_results import ReferenceRow
from idif.report.run_data import Json, missing_counts
from idif.visualization.text import percent

ANY_VIEW, VISIBLE_VIEW = "label from all views", "label from the visible views"
"""The two rules for the label of a sample with missing views."""


def missing_views(by_missing: dict[str, Json], references: Sequence[ReferenceRow] = ()) -> Figure | None:
    """S-AUROC by number of missing views under both label rules; None if no value is defined.

    Args:
        by_missing: of ``sweep.json``.
        references: published results with 0, 1, ... views missing, drawn for comparison.
    """
    numbers = sorted(by_missing, key=int)
    lines = [
        _line(ANY_VIEW, "c1", {m: by_missing[m]["s_auroc"] for m in numbers}),
        _line(VISIBLE_VIEW, "c2", {m: by_missing[m]["s_auroc_visible"] for m in numbers}),
    ]
    if not any(line.points for line in lines):
        return None
    intervals = [by_missing[f"{missing:g}"].get("s_auroc_ci") for missing, _ in lines[0].points]
    caption = []
    band = [(ends[0], ends[1]) for ends in intervals if ends is not None]
    if band and len(band) == len(intervals):
        lines[0] = Line(ANY_VIEW, lines[0].points, "c1", lines[0].dots, band)
        caption.append("Shaded: 95 % interval over samples of the first curve.")
    published = {row.category: row.s_auroc for row in references if row.category in by_missing}
    if published:
        row = references[0]
        lines.append(_line(f"paper, {row.dataset}", "paper", published))
        caption.append(f"Paper: {row.method} on all categories, from {row.source}; {row.protocol}.")
    alt = "S-AUROC by number of missing views. " + "; ".join(text for line in lines for text in line.dots)
    svg = line_chart(lines, category_axis("missing views", numbers), _s_auroc_axis(lines), alt)
    legend = tuple((line.style, line.name) for line in lines)
    return Figure("S-AUROC by number of missing views", svg, " ".join(caption), legend)


def strategies(results: Json) -> Figure | None:
    """S-AUROC by number of missing views, one line per run and strategy of ``strategies.json``."""
    curves = results["curves"]
    runs = list(dict.fromkeys(curve["run"] for curve in curves))
    kinds = list(dict.fromkeys(curve["strategy"] for curve in curves))
    lines = []
    for curve in curves:
        name = curve["strategy"] if len(runs) == 1 else f"{curve['run']}: {curve['strategy']}"
        style = f"c{kinds.index(curve['strategy']) + 1}" + ("" if curve["run"] == runs[0] else " other")
        lines.append(_line(name, style, {m: found["s_auroc"] for m, found in curve["by_missing"].items()}))
    if not any(line.points for line in lines):
        return None
    numbers = missing_counts(results)
    alt = "S-AUROC by strategy. " + "; ".join(text for line in lines for text in line.dots)
    scored = "present and imputed views" if results["protocol"].get("score_imputed") else "the views present"
    dropout = {curve["run"]: curve["view_dropout"] for curve in curves}
    trained = ", ".join(f"{run} {share:g}" for run, share in dropout.items())
    caption = (
        f"Randomly chosen views are missing; scores are over {scored}. View dropout in training: {trained}."
    )
    if len(runs) > 1:
        caption += " The first run is drawn in full color, the others are pale."
    svg = line_chart(lines, category_axis("missing views", numbers), _s_auroc_axis(lines), alt)
    legend = tuple((line.style, line.name) for line in lines)
    return Figure("Strategies for missing views", svg, caption, legend)


def camera_values(
    values: dict[str, float], errors: dict[str, float] | None, cameras: Mapping[str, str]
) -> Figure:
    """Each camera's Shapley value in points of S-AUROC.

    Args:
        values: camera number -> its value, a fraction.
        errors: standard errors of the values; None if they are exact.
        cameras: camera number -> its name, if it has one.
    """
    return _shapley(
        "camera", {camera_name(cameras, camera): value for camera, value in values.items()}, errors
    )


def input_values(values: dict[str, float]) -> Figure:
    """The Shapley value of each input of a sample, like `camera_values`."""
    return _shapley("input", values, None)


def _shapley(kind: str, values: dict[str, float], errors: dict[str, float] | None) -> Figure:
    names = list(values)
    points = [100 * value for value in values.values()]
    top, bottom = max([*points, 0.0]), min([*points, 0.0])
    margin = 0.12 * (top - bottom or 1.0)
    y = linear_axis("points of S-AUROC", bottom - (margin if bottom < 0 else 0), top + margin, ticks=4)
    texts = [f"{point:+.1f}" for point in points]
    alt = f"Value of each {kind}: " + ", ".join(f"{n} {t}" for n, t in zip(names, texts, strict=True))
    caption = f"Shapley value: mean gain in S-AUROC over all orders of adding {kind}s, starting from 50 %."
    if errors is not None:
        largest = 100 * max(errors.values())
        caption += f" Estimated from random orders; standard errors up to {largest:.1f} points."
    return Figure(f"Value of each {kind}", bar_chart(names, points, texts, y, alt), caption)


def _line(name: str, style: str, by_missing: dict[str, float | None]) -> Line:
    """The defined values by number of missing views, with tooltips."""
    points = [(float(missing), value) for missing, value in by_missing.items() if value is not None]
    tooltips = [f"{name}, {missing:g} missing: {percent(value)} %" for missing, value in points]
    return Line(name, points, style, tooltips)


def _s_auroc_axis(lines: Sequence[Line]) -> Axis:
    """An axis that starts below every point and band, and at 80 % at most, as in `figures.overview`."""
    lowest = min(
        value for line in lines for value in (*(v for _, v in line.points), *(low for low, _ in line.band))
    )
    return percent_axis("S-AUROC, %", min(0.8, np.floor(lowest * 10) / 10))
