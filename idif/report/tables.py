"""Tables of the report: texts, with a footnote where a value is missing or needs an explanation."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from idif.data.index import NORMAL_CLASS, camera_name
from idif.evaluation.paired import Comparison
from idif.metrics.mean import mean_defined
from idif.report.reference_results import ReferenceRow
from idif.report.run_data import Json, RunData
from idif.visualization.text import percent

DASH = "–"
NOT_COMPUTED = "not in metrics.json"
HEADLINE = ("s_auroc", "i_auroc", "p_auroc", "p_ap", "aupro")
INTERVAL = "s_auroc_ci"
PUBLISHED = "paper "
"""Prefix of the columns of published results."""
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
    INTERVAL: "95 % interval",
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
    """Whether the last row summarizes the others."""
    text: bool = False
    """Whether the cells hold text rather than numbers."""

    def note(self, text: str) -> int:
        """The number of the footnote with this text, added if it is new."""
        if text not in self.notes:
            self.notes.append(text)
        return self.notes.index(text) + 1

    def percent_cell(self, value: float | None, reason: str | None = None, subject: str = "") -> Cell:
        """A fraction in percent, or a dash with a footnote: ``subject`` and ``reason``."""
        if value is not None:
            return Cell(percent(value))
        return Cell(DASH, self.note(f"{subject}{reason or NOT_COMPUTED}"))


def label(metric: str) -> str:
    """The usual name of a metric, from its key in ``metrics.json``."""
    return LABELS.get(metric, metric.upper().replace("_", "-"))


def applicable(run: RunData, keys: Iterable[str]) -> list[str]:
    """The metrics that the run can have: without views or maps, those of samples (``s_...``) alone.

    With one camera, those of views (``i_...``) repeat those of samples and are left out.
    """
    if not run.has_views or not run.draws_maps:
        return [key for key in keys if key.startswith("s_")]
    return [key for key in keys if run.several_cameras or not key.startswith("i_")]


def category_table(run: RunData, references: dict[str, ReferenceRow]) -> Table:
    """The headline metrics of every category and their mean, with published results where there are any."""
    keys = ["s_auroc", INTERVAL]
    if any("s_auroc_raw" in values for values in run.categories.values()):
        keys.append("s_auroc_raw")
    if references:
        keys.append(f"{PUBLISHED}s_auroc")
    keys += ["i_auroc", "p_auroc"]
    if any(row.p_auroc is not None for row in references.values()):
        keys.append(f"{PUBLISHED}p_auroc")
    keys += ["p_ap", "aupro"]
    known = {key.removeprefix(PUBLISHED) for key in keys}
    keys = [key for key in keys if key.removeprefix(PUBLISHED) in applicable(run, known)]
    titles = [_title(key) for key in keys]
    table = Table("Metrics by category, in percent", [*titles, "normal samples", "anomalous samples"])
    totals = [0, 0]
    for name, values in run.categories.items():
        counts = values.get("counts", {})
        anomalous = counts.get("anomalous_samples", 0)
        numbers = (counts.get("samples", 0) - anomalous, anomalous)
        totals = [total + number for total, number in zip(totals, numbers, strict=True)]
        published = {} if name not in references else vars(references[name])
        cells = [_metric_cell(table, key, values, published, f"{name}: ") for key in keys]
        table.rows.append((name, [*cells, *(Cell(str(number)) for number in numbers)]))
    if len(run.categories) > 1:
        published = {
            key: mean_defined(getattr(row, key) for row in references.values())[0]
            for key in ("s_auroc", "p_auroc")
        }
        cells = [_metric_cell(table, key, run.metrics["mean"], published, "mean: ") for key in keys]
        table.rows.append(("mean", [*cells, *(Cell(str(total)) for total in totals)]))
        table.total = True
    return table


def _title(key: str) -> str:
    metric = key.removeprefix(PUBLISHED)
    return label(metric) if metric == key else PUBLISHED + label(metric)


def _metric_cell(table: Table, key: str, values: Json, published: Json, subject: str) -> Cell:
    """One value of a row of `category_table`.

    Args:
        table: takes the footnotes.
        key: of the column.
        values: the row's metrics.
        published: the row's published metrics.
        subject: beginning of a footnote.
    """
    if key.startswith(PUBLISHED):
        return Cell(percent(published.get(key.removeprefix(PUBLISHED)), DASH))
    reasons = values.get("reasons", {})
    categories = values.get("counts", {}).get("categories")
    if key == INTERVAL:
        ends = values.get(INTERVAL)
        if ends is not None:
            return Cell(f"{percent(ends[0])} to {percent(ends[1])}")
        if categories is not None:
            return Cell("")  # the mean has none: an interval of a mean is not the mean of the intervals
        return table.percent_cell(None, reasons.get(key), subject)
    undefined = values.get("nulls", {}).get(key, 0)
    if values.get(key) is not None and undefined:
        note = f"{subject}over {categories - undefined} of {categories} categories"
        return Cell(percent(values[key]), table.note(note))
    return table.percent_cell(values.get(key), reasons.get(key), subject)


def other_metrics(run: RunData) -> Table:
    """The metrics that `category_table` leaves out, by category, and their mean."""
    mean = run.metrics["mean"]
    elsewhere = (*HEADLINE, "s_auroc_raw", "p_error_bound")
    keys = applicable(
        run,
        (
            key
            for key, value in mean.items()
            if (value is None or isinstance(value, float)) and key not in elsewhere
        ),
    )
    table = Table("Further metrics by category, in percent", [label(key) for key in keys])
    rows = dict(run.categories)
    if len(rows) > 1:
        rows["mean"] = mean
        table.total = True
    for name, values in rows.items():
        reasons = values.get("reasons", {})
        cells = [table.percent_cell(values.get(key), reasons.get(key), f"{name}: ") for key in keys]
        table.rows.append((name, cells))
    return table


def per_view(values: Json, names: Mapping[str, str]) -> Table:
    """One category's image metrics by camera; ``names`` of cameras by their number."""
    keys = ("i_auroc", "i_ap", "i_f1_max")
    table = Table("By camera, in percent", [label(key) for key in keys])
    reasons = values.get("reasons", {})
    for camera, metrics in values.get("per_view", {}).items():
        cells = [
            table.percent_cell(metrics.get(key), reasons.get(f"per_view.{camera}.{key}")) for key in keys
        ]
        table.rows.append((camera_name(names, camera), cells))
    return table


def per_map(values: Json, region_map: str) -> Table:
    """One category's pixel metrics by map if there are several; ``region_map`` gave the headline AUPRO."""
    keys = ("p_auroc", "p_ap", "p_f1_max", "aupro")
    table = Table(
        f"By map, in percent; the headline AUPRO is that of the map {region_map}",
        [label(key) for key in keys],
    )
    for name, metrics in values.get("maps", {}).items():
        table.rows.append((name, [Cell(percent(metrics.get(key), DASH)) for key in keys]))
    return table


def per_defect(values: Json, *, has_views: bool) -> Table:
    """One category's metrics by defect, each defect against all normal samples and views."""
    keys = ("s_auroc", "i_auroc") if has_views else ("s_auroc",)
    counts = ("samples", "views") if has_views else ("samples",)
    table = Table(
        f"By defect, against all normal {' and '.join(counts)}; metrics in percent",
        [*(label(key) for key in keys), *counts],
    )
    reasons = values.get("reasons", {})
    for defect, metrics in values.get("per_defect", {}).items():
        cells = [
            table.percent_cell(metrics.get(key), reasons.get(f"per_defect.{defect}.{key}")) for key in keys
        ]
        table.rows.append((defect, [*cells, *(Cell(str(metrics[count])) for count in counts)]))
    return table


def class_scores(values: Json) -> Table:
    """Mean, spread and range of the sample scores of the normal samples and of each defect."""
    columns = ("samples", "mean", "std", "min", "max")
    table = Table("Sample scores by class", columns)
    for name, found in values.get("class_scores", {}).items():
        numbers = [Cell(f"{found[column]:.4g}") for column in columns[1:]]
        shown = "good" if name == NORMAL_CLASS else name
        table.rows.append((shown, [Cell(str(found["samples"])), *numbers]))
    return table


def paired(compared: Comparison) -> Table:
    """S-AUROC of a run beside that of its baseline."""
    columns = [compared.name, compared.baseline, "difference", "95 % interval"]
    table = Table("S-AUROC beside the baseline, in percent; samples are resampled jointly", columns)
    table.rows = [(name, [Cell(text) for text in cells]) for name, cells in compared.rows()]
    table.total = len(table.rows) > 1
    return table


def comparison(runs: Sequence[RunData]) -> Table:
    """The runs' means side by side."""
    several = any(run.several_cameras for run in runs)
    keys = [key for key in HEADLINE if several or not key.startswith("i_")]
    columns = [*(label(key) for key in keys), "categories", "epochs", "encoder weights"]
    table = Table("Comparison of the runs: means over their categories, in percent", columns)
    for run in runs:
        mean = run.metrics["mean"]
        reasons = mean.get("reasons", {})
        cells = [table.percent_cell(mean.get(key), reasons.get(key), f"{run.name}: ") for key in keys]
        weights = (run.environment or {}).get("features", {}).get("weights", DASH)
        trained = not run.fused and not run.config.method.fitted
        train = run.config.train
        asked = str(train.epochs) if train.steps is None else f"{train.steps:,} steps"
        epochs = asked if trained else DASH
        if (unfinished := run.unfinished_epoch) is not None:
            epochs = unfinished
        cells += [Cell(str(len(run.categories))), Cell(epochs), Cell(str(weights))]
        table.rows.append((run.name, cells))
    return table


def differences(runs: Sequence[RunData]) -> Table:
    """The config keys whose values differ between the runs."""
    configs = [dict(_flatten(run.config.model_dump(mode="json"))) for run in runs]
    table = Table("Settings in which the runs differ", [run.name for run in runs], text=True)
    for key in dict.fromkeys(key for config in configs for key in config):
        values = [_value_text(config.get(key)) for config in configs]
        if len(set(values)) > 1 and key not in ("run.name", "run.dir"):
            table.rows.append((key, [Cell(value) for value in values]))
    return table


def key_values(caption: str, values: Any) -> Table:
    """A nested object as rows of dotted key and value."""
    table = Table(caption, ["value"], text=True)
    table.rows = [(key, [Cell(_value_text(value))]) for key, value in _flatten(values)]
    return table


def _flatten(value: Any, prefix: str = "") -> Iterable[tuple[str, Any]]:
    if isinstance(value, dict) and value:
        for key, nested in value.items():
            yield from _flatten(nested, f"{prefix}.{key}" if prefix else str(key))
    else:
        yield prefix, value


def _value_text(value: Any) -> str:
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, (list, tuple)):
        return ", ".join(_value_text(item) for item in value) or "none"
    if isinstance(value, dict):
        return ", ".join(f"{key} {_value_text(item)}" for key, item in value.items()) or "none"
    return str(value)
