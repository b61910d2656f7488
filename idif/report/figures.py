"""Which charts a report shows of a run's metrics and training log. All shares are in percent."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from markupsafe import Markup

from idif.evaluation.predictions import Predictions, RowArray
from idif.metrics.threshold import f1_max_threshold
from idif.report.charts import (
    Axis,
    Interval,
    Line,
    Point,
    interval_chart,
    line_chart,
    linear_axis,
    log_axis,
    mirrored_bars,
)
from idif.report.reference_results import PaperRow
from idif.report.run_data import Json

BINS = 24
CURVE_POINTS = 120
"""Points a training curve is averaged down to, and a ROC curve thinned to, so that a page stays small."""

RULES = {
    "f1-max": "threshold: best F1 here",
    "false-positive-rate": "threshold: rate of false alarms",
    "fixed": "threshold: fixed",
}
"""Words for how a threshold was chosen."""


@dataclass(frozen=True)
class Figure:
    """A chart with its words."""

    title: str
    svg: Markup
    caption: str = ""
    legend: tuple[tuple[str, str], ...] = ()
    """(style, name) of each line."""


@dataclass(frozen=True)
class Ranked:
    """The samples of one category that have a score."""

    rows: RowArray
    scores: npt.NDArray[np.float32]
    anomalous: npt.NDArray[np.bool_]
    threshold: float | None = None
    """The sample score from which on the run calls a sample anomalous; None where it has none."""
    rule: str = "f1-max"
    """How the threshold was chosen."""

    @property
    def both_classes(self) -> bool:
        """Whether there is anything to tell apart."""
        return bool(self.anomalous.any() and not self.anomalous.all())


def ranked(predictions: Predictions, category: str, recorded: Json | None = None) -> Ranked:
    """The category's samples that have any view, with their scores and truth.

    Args:
        predictions: the run's.
        category: whose samples.
        recorded: the threshold of samples in ``metrics.json``; without one (the metrics are of an earlier
            version) the greatest F1 on these very samples decides, as it does by default.
    """
    rows = predictions.rows(category)
    rows = rows[np.any(predictions.present[rows], axis=1)]
    anomalous: npt.NDArray[np.bool_] = np.any(predictions.labels[rows] & predictions.present[rows], axis=1)
    scores = predictions.sample_scores[rows]
    if recorded is not None:
        return Ranked(rows, scores, anomalous, recorded["value"], recorded["rule"])
    if anomalous.all() or not anomalous.any():
        return Ranked(rows, scores, anomalous)
    return Ranked(rows, scores, anomalous, f1_max_threshold(scores, anomalous).value)


def overview(categories: dict[str, Json], paper: dict[str, PaperRow]) -> Figure | None:
    """S-AUROC of every category with its interval, the best first; None below two."""
    rows = []
    for name, values in categories.items():
        if values["s_auroc"] is None:
            continue
        low, high = values.get("s_auroc_ci") or (None, None)
        reference = paper[name].s_auroc if name in paper else None
        text = f"{name}: {100 * values['s_auroc']:.1f} %"
        rows.append(Interval(name, values["s_auroc"], low, high, reference, text))
    if len(rows) < 2:
        return None
    rows.sort(key=lambda row: -row.value)
    # the axis ends at the lowest whisker, and never makes a small difference look large
    lowest = min(v for row in rows for v in (row.value, row.low, row.reference) if v is not None)
    x = percent_axis("S-AUROC, %", min(0.8, np.floor(lowest * 10) / 10))
    legend = [("c1", "this run, with its 95 % interval")]
    if paper:
        legend.append(("reference", "paper"))
    alt = "S-AUROC by category. " + "; ".join(row.text for row in rows)
    return Figure("S-AUROC by category", interval_chart(rows, x, alt), legend=tuple(legend))


def score_histogram(samples: Ranked) -> Figure:
    """Sample scores, normal upwards and anomalous downwards, each as shares of its own class."""
    scores = samples.scores.astype(np.float64)
    low, high = float(scores.min()), float(scores.max())
    if low == high:
        low, high = low - 0.5, high + 0.5
    edges = np.linspace(low, high, BINS + 1)
    heights, tips = [], []
    for name, chosen in (("normal", ~samples.anomalous), ("anomalous", samples.anomalous)):
        counts, _ = np.histogram(scores[chosen], edges)
        heights.append((100 * counts / max(1, chosen.sum())).tolist())
        bins = zip(counts, edges[:-1], edges[1:], strict=True)
        tips.append([f"{n} {name}, score {a:.3g} to {b:.3g}" for n, a, b in bins])
    normal, anomalous = int((~samples.anomalous).sum()), int(samples.anomalous.sum())
    alt = (
        f"Histogram of sample scores: {_spread(scores[~samples.anomalous], 'normal')}; "
        f"{_spread(scores[samples.anomalous], 'anomalous')}."
    )
    legend = [("normal", f"{normal} normal (up)"), ("anomalous", f"{anomalous} anomalous (down)")]
    if samples.threshold is not None:
        legend.append(("mark", f"{RULES.get(samples.rule, samples.rule)}, {samples.threshold:.3g}"))
    svg = mirrored_bars(
        heights[0], heights[1], edges.tolist(), "sample score", alt, (tips[0], tips[1]), samples.threshold
    )
    return Figure("Sample scores", svg, legend=tuple(legend))


def roc(samples: Ranked, area: float) -> Figure:
    """The ROC curve over samples; needs both classes."""
    order = np.argsort(-samples.scores, kind="stable")
    scores, truth = samples.scores[order], samples.anomalous[order]
    last = np.append(np.flatnonzero(np.diff(scores)), len(scores) - 1)  # ties move together
    tpr = np.append(0, np.cumsum(truth)[last] / truth.sum())
    fpr = np.append(0, np.cumsum(~truth)[last] / (~truth).sum())
    # of a straight stretch only the ends are needed
    a, b = np.diff(fpr), np.diff(tpr)
    corner = np.concatenate(([True], a[:-1] * b[1:] != a[1:] * b[:-1], [True]))
    points = list(zip(fpr[corner].tolist(), tpr[corner].tolist(), strict=True))
    x, y = percent_axis("false positives, %", 0), percent_axis("true positives, %", 0)
    alt = f"ROC curve over samples, area {100 * area:.1f} %."
    line = Line("ROC", _thin(points), "c1")
    return Figure(f"ROC over samples: {100 * area:.1f} %", line_chart([line], x, y, alt, chance=True))


def pro(values: Json) -> Figure | None:
    """The per-region-overlap curve over pixels, as evaluation recorded it; None where it is undefined."""
    points = values.get("pro_curve")
    if not points or values.get("aupro") is None:
        return None
    ends = [rate for rate, _ in points]
    x = linear_axis("false-positive pixels, %", 0, max(ends), ticks=4, text=_percent)
    y = percent_axis("overlap with regions, %", 0)
    alt = (
        f"Per-region overlap over the false-positive rate of pixels, up to {100 * max(ends):g} %; area "
        f"{100 * values['aupro']:.1f} %."
    )
    line = Line("PRO", _thin([(float(rate), float(overlap)) for rate, overlap in points]), "c1")
    return Figure(f"Region overlap: AUPRO@0.3 {100 * values['aupro']:.1f} %", line_chart([line], x, y, alt))


def loss_curves(lines: Sequence[Json]) -> Figure | None:
    """The loss and its parts over the steps, averaged down to `CURVE_POINTS`; None without step lines."""
    steps = [line for line in lines if "loss" in line]
    if not steps:
        return None
    names = [key for key in steps[0] if key not in ("epoch", "step", "lr", "grad_norm")]
    curves: dict[str, list[Point]] = {}
    for name in names:
        curve = _averaged([(line["step"], line[name]) for line in steps if name in line])
        curves[name] = [point for point in curve if point[1] > 0]
    values = [value for curve in curves.values() for _, value in curve]
    if not values:
        return None
    x = linear_axis("step", 0, steps[-1]["step"], ticks=4, text="{:g}".format)
    y = log_axis("loss, logarithmic", min(values), max(values))
    drawn = [Line(name, curve, f"c{place + 1}") for place, (name, curve) in enumerate(curves.items())]
    alt = f"Training loss over {steps[-1]['step']} steps. " + "; ".join(
        f"{name} from {curve[0][1]:.3g} to {curve[-1][1]:.3g}" for name, curve in curves.items() if curve
    )
    together = -(-len(steps) // CURVE_POINTS)
    caption = "" if together == 1 else f"Each point is the mean of {together} steps."
    legend = tuple((line.style, line.name) for line in drawn)
    return Figure("Training loss", line_chart(drawn, x, y, alt), caption, legend)


def eval_curve(lines: Sequence[Json]) -> Figure | None:
    """S-AUROC on the test split over the epochs; the best is called oracle, the last is what is reported."""
    found = [
        (line["epoch"], line["eval"]["s_auroc"])
        for line in lines
        if (line.get("eval") or {}).get("s_auroc") is not None
    ]
    if not found:
        return None
    best = max(found, key=lambda point: point[1])
    last = max(line["epoch"] for line in lines if "epoch" in line)
    x = linear_axis("epoch", 0, last, ticks=4)
    y = percent_axis("S-AUROC, %", min(0.5, np.floor(min(v for _, v in found) * 10) / 10))
    texts = [f"epoch {epoch}: {100 * value:.1f} %" for epoch, value in found]
    oracle = Line("oracle", [best], "oracle", [f"oracle: {texts[found.index(best)]}"])
    alt = f"S-AUROC on the test split over the epochs, from {texts[0]} to {texts[-1]}; {oracle.dots[0]}."
    svg = line_chart([Line("test split", found, "c1", texts), oracle], x, y, alt)
    caption = (
        f"The last epoch is reported. The oracle, {100 * best[1]:.1f} % at epoch {best[0]}, was picked on "
        "the test data and is no result."
    )
    return Figure("Test score while training", svg, caption, (("c1", "test split"), ("oracle", "oracle")))


def percent_axis(label: str, low: float) -> Axis:
    """A share from ``low`` to 1, its ticks in percent."""
    return linear_axis(label, float(low), 1.0, ticks=5, text=_percent)


def _percent(value: float) -> str:
    return f"{100 * value:g}"


def _spread(scores: npt.NDArray[np.float64], name: str) -> str:
    if not scores.size:
        return f"no {name} samples"
    return f"{name} from {scores.min():.3g} to {scores.max():.3g}, median {np.median(scores):.3g}"


def _averaged(points: list[Any]) -> list[Point]:
    """Neighbours averaged, so that at most `CURVE_POINTS` are left."""
    size = -(-len(points) // CURVE_POINTS)
    parts = (np.array(points[start : start + size], np.float64) for start in range(0, len(points), size))
    return [(float(part[:, 0].mean()), float(part[:, 1].mean())) for part in parts]


def _thin(points: list[Point]) -> list[Point]:
    """About `CURVE_POINTS` of a curve's points, both ends among them."""
    if len(points) <= CURVE_POINTS:
        return points
    return [points[round(i)] for i in np.linspace(0, len(points) - 1, CURVE_POINTS)]
