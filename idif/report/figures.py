"""Charts of a run's metrics and training log. All fractions are shown in percent."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from markupsafe import Markup

from idif.config.sections import EvalConfig
from idif.data.spacing import evenly_spaced
from idif.evaluation.predictions import BoolArray, FloatArray, Predictions, RowArray
from idif.evaluation.thresholds import sample_labels_of
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
from idif.report.reference_results import ReferenceRow
from idif.report.run_data import Json
from idif.training.validation import PAINTED_S_AUROC, TRAIN_S_AUROC
from idif.visualization.text import percent

BINS = 24
CURVE_POINTS = 120
"""Most points of a training curve (averaged) or a ROC curve (thinned), so that a page stays small."""

RULES = {
    "f1-max": "threshold (best F1 on these samples, an oracle)",
    "validation": "threshold (best F1 on the split val)",
    "validation-youden": "threshold (greatest TPR - FPR on the split val)",
    "false-positive-rate": "threshold (false-positive rate)",
    "fixed": "threshold (fixed)",
}
"""Legend text of a threshold by the rule that chose it."""


@dataclass(frozen=True)
class Figure:
    """A chart with title, caption and legend."""

    title: str
    svg: Markup
    caption: str = ""
    legend: tuple[tuple[str, str], ...] = ()
    """(style, name) of each line."""


@dataclass(frozen=True)
class ScoredSamples:
    """The samples of one category that have a score."""

    rows: RowArray
    """[N]: rows of the predictions file."""
    scores: FloatArray
    """[N]: sample scores."""
    anomalous: BoolArray
    """[N]: the sample's label."""
    threshold: float | None = None
    """Samples with at least this score are predicted anomalous; None if no threshold is known."""
    rule: str = "f1-max"
    """The rule that chose the threshold, a key of `RULES`."""

    @property
    def both_classes(self) -> bool:
        """Whether there are normal and anomalous samples."""
        return bool(self.anomalous.any() and not self.anomalous.all())


def scored_samples(
    predictions: Predictions, category: str, settings: EvalConfig, recorded: Json | None = None
) -> ScoredSamples:
    """The category's samples that have a score, with their labels.

    Args:
        predictions: of the run.
        category: one it holds.
        settings: the rule of a sample's label.
        recorded: the threshold of samples in ``metrics.json``; None (metrics of an earlier version) takes the
            threshold of greatest F1 on these samples, the default rule.
    """
    rows = predictions.rows(category)
    rows = rows[predictions.scorable[rows]]
    anomalous = sample_labels_of(predictions, rows, settings)
    scores = predictions.sample_scores[rows]
    if recorded is not None:
        return ScoredSamples(rows, scores, anomalous, recorded["value"], recorded["rule"])
    if anomalous.all() or not anomalous.any():
        return ScoredSamples(rows, scores, anomalous)
    return ScoredSamples(rows, scores, anomalous, f1_max_threshold(scores, anomalous).value)


def overview(categories: dict[str, Json], references: dict[str, ReferenceRow]) -> Figure | None:
    """S-AUROC of every category with its interval, highest first; None for fewer than two categories."""
    rows = []
    for name, values in categories.items():
        if values["s_auroc"] is None:
            continue
        low, high = values.get("s_auroc_ci") or (None, None)
        reference = references[name].s_auroc if name in references else None
        text = f"{name}: {percent(values['s_auroc'])} %"
        rows.append(Interval(name, values["s_auroc"], low, high, reference, text))
    if len(rows) < 2:
        return None
    rows.sort(key=lambda row: -row.value)
    # starts at the lowest interval, and no higher than 80 %, which would exaggerate small differences
    lowest = min(v for row in rows for v in (row.value, row.low, row.reference) if v is not None)
    x = percent_axis("S-AUROC, %", min(0.8, np.floor(lowest * 10) / 10))
    legend = [("c1", "this run with 95 % interval")]
    if references:
        legend.append(("reference", "paper"))
    alt = "S-AUROC by category. " + "; ".join(row.text for row in rows)
    return Figure("S-AUROC by category", interval_chart(rows, x, alt), legend=tuple(legend))


def score_histogram(samples: ScoredSamples) -> Figure:
    """Histogram of sample scores: normal upwards, anomalous downwards, each in percent of its class."""
    scores = samples.scores.astype(np.float64)
    low, high = float(scores.min()), float(scores.max())
    if low == high:
        low, high = low - 0.5, high + 0.5
    edges = np.linspace(low, high, BINS + 1)
    heights, tips = [], []
    for name, in_class in (("normal", ~samples.anomalous), ("anomalous", samples.anomalous)):
        counts, _ = np.histogram(scores[in_class], edges)
        heights.append((100 * counts / max(1, in_class.sum())).tolist())
        bins = zip(counts, edges[:-1], edges[1:], strict=True)
        tips.append([f"{n} {name}, score {a:.3g} to {b:.3g}" for n, a, b in bins])
    normal, anomalous = int((~samples.anomalous).sum()), int(samples.anomalous.sum())
    alt = (
        f"Histogram of sample scores: {_spread(scores[~samples.anomalous], 'normal')}; "
        f"{_spread(scores[samples.anomalous], 'anomalous')}."
    )
    legend = [("normal", f"{normal} normal (up)"), ("anomalous", f"{anomalous} anomalous (down)")]
    if samples.threshold is not None:
        legend.append(("mark", f"{RULES.get(samples.rule, samples.rule)} {samples.threshold:.3g}"))
    svg = mirrored_bars(
        heights[0], heights[1], edges.tolist(), "sample score", alt, (tips[0], tips[1]), samples.threshold
    )
    return Figure("Sample scores", svg, legend=tuple(legend))


def roc(samples: ScoredSamples, area: float) -> Figure:
    """The ROC curve over samples; needs both classes."""
    order = np.argsort(-samples.scores, kind="stable")
    scores, labels = samples.scores[order], samples.anomalous[order]
    last = np.append(np.flatnonzero(np.diff(scores)), len(scores) - 1)  # one point per distinct score
    tpr = np.append(0, np.cumsum(labels)[last] / labels.sum())
    fpr = np.append(0, np.cumsum(~labels)[last] / (~labels).sum())
    # keep only the ends of straight segments
    dx, dy = np.diff(fpr), np.diff(tpr)
    corner = np.concatenate(([True], dx[:-1] * dy[1:] != dx[1:] * dy[:-1], [True]))
    points = list(zip(fpr[corner].tolist(), tpr[corner].tolist(), strict=True))
    x, y = percent_axis("false-positive rate, %", 0), percent_axis("true-positive rate, %", 0)
    alt = f"ROC curve over samples, area {percent(area)} %."
    line = Line("ROC", evenly_spaced(points, CURVE_POINTS), "c1")
    title = f"ROC curve: S-AUROC {percent(area)} %"
    return Figure(title, line_chart([line], x, y, alt, chance=True))


def pro(values: Json) -> Figure | None:
    """The per-region-overlap curve over pixels that evaluation recorded; None if it is undefined."""
    points = values.get("pro_curve")
    if not points or values.get("aupro") is None:
        return None
    rates = [rate for rate, _ in points]
    x = linear_axis("false-positive rate of pixels, %", 0, max(rates), ticks=4, text=_tick)
    y = percent_axis("per-region overlap, %", 0)
    alt = (
        f"Per-region overlap over the false-positive rate of pixels, up to {100 * max(rates):g} %; area "
        f"{percent(values['aupro'])} %."
    )
    shown = [(float(rate), float(overlap)) for rate, overlap in evenly_spaced(points, CURVE_POINTS)]
    line = Line("PRO", shown, "c1")
    title = f"PRO curve: AUPRO@0.3 {percent(values['aupro'])} %"
    return Figure(title, line_chart([line], x, y, alt))


def loss_curves(lines: Sequence[Json]) -> Figure | None:
    """The loss and its terms by step, averaged down to `CURVE_POINTS`; None if the log has no steps."""
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
    y = log_axis("loss (log scale)", min(values), max(values))
    drawn = [Line(name, curve, f"c{number}") for number, (name, curve) in enumerate(curves.items(), 1)]
    alt = f"Training loss over {steps[-1]['step']} steps. " + "; ".join(
        f"{name} from {curve[0][1]:.3g} to {curve[-1][1]:.3g}" for name, curve in curves.items() if curve
    )
    averaged = -(-len(steps) // CURVE_POINTS)
    caption = "" if averaged == 1 else f"Each point is the mean of {averaged} steps."
    legend = tuple((line.style, line.name) for line in drawn)
    return Figure("Training loss", line_chart(drawn, x, y, alt), caption, legend)


def eval_curve(lines: Sequence[Json]) -> Figure | None:
    """S-AUROC by epoch with the best epoch marked; None without any.

    On the split val, which chooses the epoch (`train.patience`), the best is the one reported; on the test
    split it is an oracle.
    """
    evaluated = [
        (line["epoch"], line["eval"]["s_auroc"])
        for line in lines
        if (line.get("eval") or {}).get("s_auroc") is not None
    ]
    if not evaluated:
        return None
    best = max(evaluated, key=lambda point: point[1])
    last = max(line["epoch"] for line in lines if "epoch" in line)
    x = linear_axis("epoch", 0, last, ticks=4)
    y = percent_axis("S-AUROC, %", min(0.5, np.floor(min(v for _, v in evaluated) * 10) / 10))
    texts = [f"epoch {epoch}: {percent(value)} %" for epoch, value in evaluated]
    chosen = any("best_epoch" in (line.get("eval") or {}) for line in lines)
    split, name = ("val", "chosen epoch") if chosen else ("test", "oracle")
    mark = Line(name, [best], "oracle", [f"{name}: {texts[evaluated.index(best)]}"])
    alt = f"S-AUROC on the {split} split by epoch, from {texts[0]} to {texts[-1]}; {mark.dots[0]}."
    drawn = [Line(f"{split} split", evaluated, "c1", texts)]
    trained = [
        (line["epoch"], line["eval"][TRAIN_S_AUROC])
        for line in lines
        if (line.get("eval") or {}).get(TRAIN_S_AUROC) is not None
    ]
    against = "same defects against training normals"
    if trained:
        dots = [f"{against}, epoch {epoch}: {percent(value)} %" for epoch, value in trained]
        drawn.append(Line(against, trained, "c2", dots))
    svg = line_chart([*drawn, mark], x, y, alt)
    caption = (
        f"The last epoch is reported. The oracle, {percent(best[1])} % at epoch {best[0]}, was selected on "
        "the test split and is not a result."
    )
    if chosen:
        caption = "The weights of the chosen epoch are evaluated. No test sample took part in the choice."
    legend = (*((line.style, line.name) for line in drawn), ("oracle", name))
    return Figure(f"S-AUROC on the {split} split by epoch", svg, caption, legend)


def painted_curve(lines: Sequence[Json]) -> Figure | None:
    """S-AUROC on painted defects by epoch; None without any."""
    seen = [
        (line["epoch"], line["eval"][PAINTED_S_AUROC])
        for line in lines
        if (line.get("eval") or {}).get(PAINTED_S_AUROC) is not None
    ]
    if not seen:
        return None
    x = linear_axis("epoch", 0, max(line["epoch"] for line in lines if "epoch" in line), ticks=4)
    y = percent_axis("S-AUROC, %", min(0.5, np.floor(min(v for _, v in seen) * 10) / 10))
    texts = [f"epoch {epoch}: {percent(value)} %" for epoch, value in seen]
    alt = f"S-AUROC on painted defects by epoch, from {texts[0]} to {texts[-1]}."
    caption = "Normal samples with painted defects against the same without; no test sample is used."
    svg = line_chart([Line("painted defects", seen, "c1", texts)], x, y, alt)
    return Figure("S-AUROC on painted defects by epoch", svg, caption)


def percent_axis(label: str, low: float) -> Axis:
    """An axis for fractions from ``low`` to 1, with ticks in percent."""
    return linear_axis(label, float(low), 1.0, ticks=5, text=_tick)


def _tick(value: float) -> str:
    return f"{100 * value:g}"


def _spread(scores: npt.NDArray[np.float64], name: str) -> str:
    if not scores.size:
        return f"no {name} samples"
    return f"{name} from {scores.min():.3g} to {scores.max():.3g}, median {np.median(scores):.3g}"


def _averaged(points: list[Any]) -> list[Point]:
    """Means of consecutive points, at most `CURVE_POINTS` of them."""
    size = -(-len(points) // CURVE_POINTS)
    blocks = (np.array(points[start : start + size], np.float64) for start in range(0, len(points), size))
    return [(float(block[:, 0].mean()), float(block[:, 1].mean())) for block in blocks]
