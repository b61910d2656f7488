"""The report's part on decisions: what a threshold lets pass and rejects, and what others would."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from idif.data.spacing import evenly_spaced
from idif.evaluation.decision import Decisions, WrongSample
from idif.metrics.proportion import Proportion
from idif.report.charts import Line, line_chart, linear_axis
from idif.report.figures import Figure, ScoredSamples
from idif.report.tables import DASH, Cell, Table
from idif.visualization.text import as_sentence

LISTED = 40
"""Most wrong samples that a table lists; ``metrics.json`` has all."""
EXPLORED = 24
"""Most thresholds of the table of other thresholds."""
CURVE_POINTS = 120


@dataclass(frozen=True)
class Costs:
    """Costs of wrong decisions, in any unit."""

    miss: float
    false_alarm: float

    def of(self, misses: float, false_alarms: float) -> float:
        """Cost of some wrong decisions."""
        return self.miss * misses + self.false_alarm * false_alarms


@dataclass(frozen=True)
class DecisionPart:
    """The decisions of one category, ready for the page."""

    sentence: str
    tables: list[Table]
    wrong: list[Table]
    """Missed and falsely alarmed samples."""
    figure: Figure | None
    explorer: Table | None


def decision_part(decided: Decisions, samples: ScoredSamples, costs: Costs | None) -> DecisionPart:
    """Everything about a category's threshold.

    Args:
        decided: from ``metrics.json``.
        samples: of the category; the figure and other thresholds need both classes.
        costs: adds costs and the cheapest threshold.
    """
    wrong = [
        wrong_table(f"Missed: anomalous samples below the threshold, {len(decided.missed)}", decided.missed),
        wrong_table(
            f"False alarms: normal samples from the threshold on, {len(decided.falsely_alarmed)}",
            decided.falsely_alarmed,
        ),
    ]
    both = samples.both_classes
    return DecisionPart(
        sentence=as_sentence(decided.sentence()),
        tables=[by_class(decided), agreement(decided)],
        wrong=[table for table in wrong if table.rows],
        figure=threshold_figure(samples, decided, costs) if both else None,
        explorer=other_thresholds(samples, decided, costs) if both else None,
    )


def by_class(decided: Decisions) -> Table:
    """How many samples of each class pass and are rejected: the confusion table."""
    columns = ["pass", "rejected", "wrong, 95 %"]
    table = Table(f"Decisions by class, threshold {decided.threshold:.4g}", columns)
    alarms = decided.false_alarms
    table.rows.append(("good", _row(alarms.total - alarms.count, alarms.count, alarms)))
    for name, missed in decided.missed_by_class.items():
        table.rows.append((name, _row(missed.count, missed.total - missed.count, missed)))
    if len(decided.missed_by_class) > 1:
        missed = decided.misses
        table.rows.append(("all defects", _row(missed.count, missed.total - missed.count, missed)))
    return table


def agreement(decided: Decisions) -> Table:
    """Precision, recall, F1 and accuracy of the decisions, with anomalous as positive."""
    found = decided.agreement
    table = Table("Decisions and labels, anomalous is positive; in percent", [*map(str.capitalize, found)])
    cells = [table.percent_cell(value, "no sample is decided or labeled so") for value in found.values()]
    table.rows.append(("all samples", cells))
    return table


def _row(passing: int, rejected: int, wrong: Proportion) -> list[Cell]:
    return [Cell(text) for text in (str(passing), str(rejected), wrong.interval_text or DASH)]


def wrong_table(caption: str, samples: Sequence[WrongSample]) -> Table:
    """Samples that were decided wrongly, with their original file names."""
    one = all(len(sample.files) <= 1 for sample in samples)
    table = Table(caption, ["score", "class", *([] if one else ["photographs"])])
    for sample in samples[:LISTED]:
        first, *others = sample.files.values() or [sample.sample_id]
        files = f"{first} and {len(others)} more" if others else first
        cells = [Cell(f"{sample.score:.4g}"), Cell(sample.defect)]
        table.rows.append((sample.name(), cells) if one else (sample.sample_id, [*cells, Cell(files)]))
    if len(samples) > LISTED:
        table.note(f"{len(samples) - LISTED} more are listed in metrics.json.")
    return table


@dataclass(frozen=True)
class _Thresholds:
    """Every distinct outcome on the samples, by ascending threshold."""

    values: np.ndarray[tuple[int], np.dtype[np.float64]]
    misses: np.ndarray[tuple[int], np.dtype[np.int64]]
    false_alarms: np.ndarray[tuple[int], np.dtype[np.int64]]

    @classmethod
    def of(cls, samples: ScoredSamples) -> "_Thresholds":
        """Thresholds midway between neighboring scores, and one outside at each end."""
        scores = np.unique(samples.scores.astype(np.float64))
        margin = max((scores[-1] - scores[0]) * 0.01, 1e-6)
        values = np.concatenate([[scores[0]], (scores[:-1] + scores[1:]) / 2, [scores[-1] + margin]])
        bad = np.sort(samples.scores[samples.anomalous].astype(np.float64))
        good = np.sort(samples.scores[~samples.anomalous].astype(np.float64))
        return cls(
            values, np.searchsorted(bad, values, "left"), len(good) - np.searchsorted(good, values, "left")
        )


def threshold_figure(samples: ScoredSamples, decided: Decisions, costs: Costs | None) -> Figure:
    """Misses and false alarms, and the cost if there is one, by threshold."""
    found = _Thresholds.of(samples)
    defects, good = int(samples.anomalous.sum()), int((~samples.anomalous).sum())
    kept = evenly_spaced(range(len(found.values)), CURVE_POINTS)
    x = linear_axis("threshold", found.values[0], found.values[-1], ticks=4, text="{:.3g}".format)
    y = linear_axis("share of samples, %", 0.0, 100.0, ticks=5)
    values = found.values[kept].tolist()
    missed, alarms = 100 * found.misses[kept] / defects, 100 * found.false_alarms[kept] / good
    lines = [
        Line("missed", list(zip(values, missed.tolist(), strict=True)), "c2"),
        Line("false alarms", list(zip(values, alarms.tolist(), strict=True)), "c1"),
    ]
    caption = ""
    if costs is not None:
        each = costs.of(1, 0) * found.misses + costs.of(0, 1) * found.false_alarms
        greatest = float(each.max()) or 1.0
        points = zip(values, (100 * each[kept] / greatest).tolist(), strict=True)
        lines.append(Line("cost, of its maximum", list(points), "c3"))
        caption = f"A miss costs {costs.miss:g}, a false alarm {costs.false_alarm:g}."
    alt = (
        f"Misses and false alarms by threshold; at the run's, {decided.threshold:.3g}: misses "
        f"{decided.misses.count} of {decided.misses.total}, false alarms {decided.false_alarms.count} of "
        f"{decided.false_alarms.total}."
    )
    svg = line_chart(lines, x, y, alt, mark=decided.threshold)
    legend = [*((line.style, line.name) for line in lines), ("mark", f"threshold {decided.threshold:.3g}")]
    return Figure("Misses against false alarms", svg, caption, tuple(legend))


def other_thresholds(samples: ScoredSamples, decided: Decisions, costs: Costs | None) -> Table:
    """Misses and false alarms of the run's threshold, of notable others, and of some between."""
    found = _Thresholds.of(samples)
    bad, good = int(samples.anomalous.sum()), int((~samples.anomalous).sum())
    columns = ["misses", "misses, 95 %", "false alarms", "false alarms, 95 %"]
    table = Table(
        "Other thresholds on these samples; one that is picked here is picked with their labels",
        [*columns, *(["cost"] if costs else []), "remark"],
    )
    errors = found.misses + found.false_alarms
    notable = {
        int(np.flatnonzero(found.misses == 0)[-1]): "highest without a miss",
        int(np.flatnonzero(found.false_alarms == 0)[0]): "lowest without a false alarm",
        int(errors.argmin()): "fewest wrong decisions",
    }
    if costs is not None:
        each = costs.of(1, 0) * found.misses + costs.of(0, 1) * found.false_alarms
        notable[int(each.argmin())] = "lowest cost"
    places = evenly_spaced(range(len(found.values)), EXPLORED)
    rows = [
        (float(found.values[at]), int(found.misses[at]), int(found.false_alarms[at]), notable.get(at, ""))
        for at in sorted({*places, *notable})
    ]
    own = (decided.threshold, decided.misses.count, decided.false_alarms.count, "the run's threshold")
    for value, misses, alarms, remark in sorted([*rows, own], key=lambda row: row[0]):
        shares = Proportion(misses, bad), Proportion(alarms, good)
        cells = [text for share in shares for text in (str(share.count), share.interval_text)]
        cost = [f"{costs.of(misses, alarms):g}"] if costs is not None else []
        table.rows.append((f"{value:.4g}", [Cell(text) for text in (*cells, *cost, remark)]))
    return table
