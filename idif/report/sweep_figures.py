"""Which charts a report shows of missing views: how much they cost, what helps, what each camera is worth."""

from collections.abc import Sequence

import numpy as np

from idif.report.charts import Axis, Line, bar_chart, category_axis, line_chart, linear_axis
from idif.report.figures import Figure, percent_axis
from idif.report.reference_results import paper_missing_views
from idif.report.run_data import Json


def missing_views(by_missing: dict[str, Json]) -> Figure | None:
    """S-AUROC by number of missing views under both label rules, with the paper's curve."""
    number = sorted(by_missing, key=int)
    curves = [
        ("any view labelled", "c1", [(int(m), by_missing[m]["s_auroc"]) for m in number]),
        ("a visible view labelled", "c2", [(int(m), by_missing[m]["s_auroc_visible"]) for m in number]),
        ("paper, Real-IAD", "paper", list(enumerate(paper_missing_views()))[: len(number)]),
    ]
    lines = []
    for name, style, points in curves:
        known = [(float(m), value) for m, value in points if value is not None]
        texts = [f"{name}, {m:g} missing: {100 * value:.1f} %" for m, value in known]
        ends = [by_missing[f"{m:g}"].get("s_auroc_ci") for m, _ in known if style == "c1"]
        band = [(end[0], end[1]) for end in ends if end is not None]
        band = band if len(band) == len(known) else []
        lines.append(Line(name, known, style, texts, band))
    if not lines[0].points and not lines[1].points:
        return None
    x = category_axis("views missing", number)
    alt = "S-AUROC by number of missing views. " + "; ".join(text for line in lines for text in line.dots)
    legend = tuple((line.style, line.name) for line in lines)
    caption = "Shaded: 95 % interval of the first curve, over samples." if lines[0].band else ""
    svg = line_chart(lines, x, _s_auroc_axis(lines), alt)
    return Figure("S-AUROC with views missing", svg, caption, legend)


def strategies(found: Json) -> Figure | None:
    """S-AUROC by number of missing views of every strategy and run of ``strategies.json``."""
    styles = {"dropout": "c1", "retrieve": "c2", "reconstruct": "c3"}
    runs = list(dict.fromkeys(curve["run"] for curve in found["curves"]))
    lines = []
    for curve in found["curves"]:
        place = runs.index(curve["run"])
        name = curve["strategy"] if len(runs) == 1 else f"{curve['run']}: {curve['strategy']}"
        values = {m: of["s_auroc"] for m, of in curve["by_missing"].items()}
        known = [(float(m), value) for m, value in values.items() if value is not None]
        texts = [f"{name}, {m:g} missing: {100 * value:.1f} %" for m, value in known]
        lines.append(Line(name, known, styles[curve["strategy"]] + (" other" if place else ""), texts))
    if not any(line.points for line in lines):
        return None
    number = sorted(found["curves"][0]["by_missing"], key=int)
    alt = "S-AUROC by what is done about missing views. " + "; ".join(t for line in lines for t in line.dots)
    scored = (
        "the views present and those filled in" if found["protocol"]["score_filled"] else "the views present"
    )
    dropout = {curve["run"]: curve["view_dropout"] for curve in found["curves"]}
    trained = ", ".join(f"{run} with view dropout {share:g}" for run, share in dropout.items())
    caption = f"Random views missing; scored on {scored}. Trained: {trained}." + (
        " The first run is drawn strong, others faint." if len(runs) > 1 else ""
    )
    svg = line_chart(lines, category_axis("views missing", number), _s_auroc_axis(lines), alt)
    return Figure("What to do about missing views", svg, caption, tuple((li.style, li.name) for li in lines))


def _s_auroc_axis(lines: Sequence[Line]) -> Axis:
    """Down to the lowest point or band, and never so far up that a small difference looks large."""
    lowest = min(
        value for line in lines for value in (*(v for _, v in line.points), *(low for low, _ in line.band))
    )
    return percent_axis("S-AUROC, %", min(0.8, np.floor(lowest * 10) / 10))


def camera_values(values: dict[str, float], errors: dict[str, float] | None) -> Figure:
    """Each camera's Shapley value, in points of S-AUROC; ``errors`` where orders of cameras were sampled."""
    names = [f"C{camera}" for camera in values]
    points = [100 * value for value in values.values()]
    top, bottom = max([*points, 0.0]), min([*points, 0.0])
    room = 0.12 * (top - bottom or 1.0)
    y = linear_axis("points of S-AUROC", bottom - (room if bottom < 0 else 0), top + room, ticks=4)
    texts = [f"{point:+.1f}" for point in points]
    alt = "Value of each camera: " + ", ".join(f"{n} {t}" for n, t in zip(names, texts, strict=True))
    caption = "Shapley values: each camera's mean gain over all orders of adding cameras, starting from 50 %."
    if errors is not None:
        largest = 100 * max(errors.values())
        caption += f" Estimated from random orders; standard errors up to {largest:.1f} points."
    return Figure("What each camera is worth", bar_chart(names, points, texts, y, alt), caption)
