"""Tables as the page shows them: texts, with a footnote where a figure is missing or needs a word."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from idif.report.reference_results import PaperRow
from idif.report.run_data import Json, RunData

DASH = "–"
NOT_COMPUTED = "not in metrics.json"
HEADLINE = ("s_auroc", "i_auroc", "p_auroc", "p_ap", "aupro")
LABELS = {
    "s_auroc": "S-AUROC",
    "i_auroc": "I-AUROC",
    "p_auroc": "P-AUROC",
    "p_ap": "P-AP",
    "aupro": "AUPRO@0.3",
    "s_ap": "S-AP",
    "i_ap": "I-AP",
    "s_f1_max": "S-F1max",
    "i_f1_max": "I-F1max",
    "p_f1_max": "P-F1max",
    "s_auroc_raw": "S-AUROC, uncalibrated",
}


class Cell(NamedTuple):
    """A text and the number of its footnote, 0 for none."""

    text: str
    note: int = 0


@dataclass
class Table:
    """A table; the first column holds the row headers."""

    caption: str
    columns: Sequence[str]
    rows: list[tuple[str, list[Cell]]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    total: bool = False
    """Whether the last row sums up the others."""
    text: bool = False
    """Whether the cells hold words rather than figures."""

    def note(self, text: str) -> int:
        """The number of a footnote; the same text is noted once."""
        if text not in self.notes:
            self.notes.append(text)
        return self.notes.index(text) + 1

    def figure(self, value: float | None, reason: str | None = None, about: str = "") -> Cell:
        """A share in percent, or a dash whose footnote tells why."""
        if value is not None:
            return Cell(percent(value))
        return Cell(DASH, self.note(f"{about}{reason or NOT_COMPUTED}"))


def percent(value: float) -> str:
    """0.9713 -> 97.1."""
    return f"{100 * value:.1f}"


def label(metric: str) -> str:
    """The field's name of a key of ``metrics.json``."""
    return LABELS.get(metric, metric.upper().replace("_", "-"))


def category_table(run: RunData, paper: dict[str, PaperRow]) -> Table:
    """The headline metrics of every category and their mean, beside the paper's."""
    columns = ["S-AUROC", "95 % interval"]
    raw = any("s_auroc_raw" in values for values in run.categories.values())
    if raw:
        columns.append("S-AUROC, uncalibrated")
    if paper:
        columns.append("paper S-AUROC")
    columns += ["I-AUROC", "P-AUROC"]
    pixels = any(row.p_auroc is not None for row in paper.values())
    if pixels:
        columns.append("paper P-AUROC")
    columns += ["P-AP", "AUPRO@0.3", "normal", "anomalous"]
    table = Table("Metrics by category, in percent; the last two columns count test samples", columns)
    for name, values in run.categories.items():
        row = paper.get(name)
        counts = values.get("counts", {})
        anomalous = counts.get("anomalous_samples", 0)
        cells = _cells(table, values, row, (raw, bool(paper), pixels), f"{name}: ")
        cells += [Cell(str(counts.get("samples", 0) - anomalous)), Cell(str(anomalous))]
        table.rows.append((name, cells))
    if len(run.categories) > 1:
        both = [_mean(r.s_auroc for r in paper.values()), _mean(r.p_auroc for r in paper.values())]
        mean_row = PaperRow("", "", both[0], both[1]) if paper else None
        cells = _cells(table, run.metrics["mean"], mean_row, (raw, bool(paper), pixels), "mean: ")
        counts = [[int(row[1][-2 + column].text) for row in table.rows] for column in (0, 1)]
        table.rows.append(("mean", [*cells, *(Cell(str(sum(count))) for count in counts)]))
        table.total = True
    return table


def _cells(
    table: Table, values: Json, paper: PaperRow | None, shown: tuple[bool, bool, bool], about: str
) -> list[Cell]:
    raw, with_paper, pixels = shown
    reasons, nulls = values.get("reasons", {}), values.get("nulls", {})

    def metric(key: str) -> Cell:
        cell = table.figure(values.get(key), reasons.get(key), about)
        if cell.note or key not in nulls:
            return cell
        count = values["counts"]["categories"]
        return Cell(cell.text, table.note(f"{about}over {count - nulls[key]} of {count} categories"))

    interval = values.get("s_auroc_ci")
    if interval is not None:
        ends = Cell(f"{percent(interval[0])} to {percent(interval[1])}")
    elif "categories" in values.get("counts", {}):
        ends = Cell("")  # an interval of a mean is not the mean of the intervals
    else:
        ends = table.figure(None, reasons.get("s_auroc_ci"), about)
    cells = [metric("s_auroc"), ends]
    if raw:
        cells.append(metric("s_auroc_raw"))
    if with_paper:
        cells.append(_paper_cell(None if paper is None else paper.s_auroc))
    cells += [metric("i_auroc"), metric("p_auroc")]
    if pixels:
        cells.append(_paper_cell(None if paper is None else paper.p_auroc))
    return [*cells, metric("p_ap"), metric("aupro")]


def _paper_cell(value: float | None) -> Cell:
    return Cell(DASH if value is None else percent(value))


def other_metrics(run: RunData) -> Table:
    """Every metric the headline table leaves out, by category, with the mean."""
    mean = run.metrics["mean"]
    elsewhere = (*HEADLINE, "s_auroc_raw", "p_error_bound")
    keys = [
        key
        for key, value in mean.items()
        if (value is None or isinstance(value, float)) and key not in elsewhere
    ]
    table = Table("Further metrics by category, in percent", [label(key) for key in keys])
    sources = dict(run.categories)
    if len(sources) > 1:
        sources["mean"] = mean
        table.total = True
    for name, values in sources.items():
        reasons = values.get("reasons", {})
        cells = [table.figure(values.get(key), reasons.get(key), f"{name}: ") for key in keys]
        table.rows.append((name, cells))
    return table


def per_view(values: Json) -> Table:
    """One category's image metrics by camera."""
    keys = ("i_auroc", "i_ap", "i_f1_max")
    table = Table("By camera, in percent", [label(key) for key in keys])
    for camera, found in values.get("per_view", {}).items():
        reasons = values.get("reasons", {})
        cells = [table.figure(found.get(key), reasons.get(f"per_view.{camera}.{key}")) for key in keys]
        table.rows.append((f"C{camera}", cells))
    return table


def per_defect(values: Json) -> Table:
    """One category's metrics by defect, each defect against all that is normal."""
    table = Table(
        "By defect, against all normal ones, in percent", ["S-AUROC", "I-AUROC", "samples", "views"]
    )
    for defect, found in values.get("per_defect", {}).items():
        reasons = values.get("reasons", {})
        cells = [
            table.figure(found.get(key), reasons.get(f"per_defect.{defect}.{key}"))
            for key in ("s_auroc", "i_auroc")
        ]
        table.rows.append((defect, [*cells, Cell(str(found["samples"])), Cell(str(found["views"]))]))
    return table


def comparison(runs: Sequence[RunData]) -> Table:
    """The runs' means side by side."""
    columns = [*(label(key) for key in HEADLINE), "categories", "epochs", "teacher"]
    table = Table("The runs, means over their categories in percent", columns)
    for run in runs:
        mean = run.metrics["mean"]
        cells = [
            table.figure(mean.get(key), mean.get("reasons", {}).get(key), f"{run.name}: ") for key in HEADLINE
        ]
        teacher = (run.environment or {}).get("features", {}).get("weights", DASH)
        epochs = DASH if run.fused else str(run.config.train.epochs)
        cells += [Cell(str(len(run.categories))), Cell(epochs), Cell(str(teacher))]
        table.rows.append((run.name, cells))
    return table


def differences(runs: Sequence[RunData]) -> Table:
    """The config keys in which the runs differ."""
    flat = [dict(_flatten(run.config.model_dump(mode="json"))) for run in runs]
    table = Table("Settings in which the runs differ", [run.name for run in runs], text=True)
    for key in dict.fromkeys(key for one in flat for key in one):
        values = [_shown(one.get(key)) for one in flat]
        if len(set(values)) > 1 and key not in ("run.name", "run.dir"):
            table.rows.append((key, [Cell(value) for value in values]))
    return table


def key_values(caption: str, values: Any) -> Table:
    """A nested object as rows of dotted key and value."""
    table = Table(caption, ["value"], text=True)
    table.rows = [(key, [Cell(_shown(value))]) for key, value in _flatten(values)]
    return table


def _flatten(value: Any, above: str = "") -> Iterable[tuple[str, Any]]:
    if isinstance(value, dict) and value:
        for key, below in value.items():
            yield from _flatten(below, f"{above}.{key}" if above else str(key))
    else:
        yield above, value


def _shown(value: Any) -> str:
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, (list, tuple)):
        return ", ".join(_shown(item) for item in value) or "none"
    if isinstance(value, dict):
        return ", ".join(f"{key} {_shown(item)}" for key, item in value.items()) or "none"
    return str(value)


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None
