"""Export of results: tables beside published results, and the pickle that ADEval reads."""

import csv
import io
import pickle
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from idif.errors import ConfigError, RunError
from idif.evaluation.predictions import Predictions
from idif.files import replace_file, replacing, require_writable
from idif.metrics.mean import mean_defined
from idif.report.reference_results import published_results
from idif.report.run_data import Json, missing_counts
from idif.report.tables import DASH, HEADLINE, label
from idif.visualization.text import csv_text, latex_text, markdown_text, percent


@dataclass(frozen=True)
class ExportTable:
    """A table to export; numbers are fractions in 0..1."""

    columns: list[str]
    """Key of each column, for CSV."""
    titles: list[str]
    """Heading of each column."""
    rows: list[tuple[str, list[float | str | None]]]
    """(row header, values)."""
    first: str = "category"
    """Heading of the row headers."""
    total: bool = False
    """Whether the last row summarizes the others."""


def compare(metrics: Json) -> ExportTable:
    """A run's metrics beside published ones; the categories are in the order of the published table, if any.

    Args:
        metrics: the content of ``metrics.json``.
    """
    categories: dict[str, Json] = metrics["categories"]
    published = published_results(categories, metrics.get("protocol", {}).get("imported_from", ()))
    columns, titles = list(HEADLINE), [label(key) for key in HEADLINE]
    shown: list[tuple[str, str]] = []
    for method, rows in published.items():
        for key in ("s_auroc", "p_auroc"):
            if any(getattr(row, key) is not None for row in rows.values()):
                shown.append((method, key))
                columns.append(f"{method} {key}")
                titles.append(f"{method} {label(key)}")
    order = max(map(list, published.values()), key=len) if published else list(categories)
    table: list[tuple[str, list[float | str | None]]] = []
    for name in order:
        others = [getattr(published[method].get(name), key, None) for method, key in shown]
        table.append((name, [*(categories[name].get(key) for key in HEADLINE), *others]))
    total = len(table) > 1
    if total:
        others = [
            mean_defined(getattr(published[method].get(name), key, None) for name in order)[0]
            for method, key in shown
        ]
        table.append(("mean", [*(metrics["mean"].get(key) for key in HEADLINE), *others]))
    epoch = metrics.get("protocol", {}).get("epoch", "last")
    first = "category" if epoch == "last" else f"category, epoch {epoch}"
    return ExportTable(columns, titles, table, first, total)


RUN_COLUMNS = ("variant", "method", "head", "categories")


def runs_table(rows: Sequence[Json], metrics: Sequence[str]) -> ExportTable:
    """The comparison of the runs of one config file: JSON rows with `RUN_COLUMNS` and metrics."""
    columns = [*RUN_COLUMNS, *metrics, "published_s_auroc"]
    titles = [*RUN_COLUMNS, *map(label, metrics), "published S-AUROC"]
    texts = [
        [*("" if row[key] is None else str(row[key]) for key in RUN_COLUMNS), *map(row.get, columns[4:])]
        for row in rows
    ]
    table = [(str(row["run"]), values) for row, values in zip(rows, texts, strict=True)]
    return ExportTable(columns, titles, table, "run")


def sweep_export(sweep: Json) -> ExportTable:
    """Metrics by number of missing views: the means, then S-AUROC of every category."""
    keys = {"s_auroc": "S-AUROC", "s_auroc_visible": "S-AUROC, visible defects", "p_auroc": "P-AUROC"}
    categories: dict[str, Json] = sweep["categories"]
    named = [f"{name} s_auroc" for name in categories], [f"{name} S-AUROC" for name in categories]
    rows: list[tuple[str, list[float | str | None]]] = [
        (
            missing,
            [
                *(values[key] for key in keys),
                *(of["by_missing"][missing]["s_auroc"] for of in categories.values()),
            ],
        )
        for missing, values in sweep["by_missing"].items()
    ]
    return ExportTable([*keys, *named[0]], [*keys.values(), *named[1]], rows, "missing views")


def input_sweep_export(sweep: Json) -> ExportTable:
    """S-AUROC and the numbers of samples by subset of the inputs, of the mean and of every category, and the
    S-AUROC of every defect; then each input's Shapley value and what is lost without it."""
    categories: dict[str, Json] = sweep["categories"]
    defects = {name: sorted(of["subsets"][0].get("per_defect", {})) for name, of in categories.items()}
    columns, titles = ["s_auroc", "samples", "unscorable"], ["S-AUROC", "samples", "without a score"]
    for name in categories:
        columns += [f"{name} s_auroc", *(f"{name} {defect} s_auroc" for defect in defects[name])]
        titles += [f"{name} S-AUROC", *(f"{name}: {defect}" for defect in defects[name])]
    columns += ["shapley_value", "leave_one_out"]
    titles += ["Shapley value", "lost without it"]
    rows: list[tuple[str, list[float | str | None]]] = []
    for place, found in enumerate(sweep["subsets"]):
        cells: list[float | str | None] = [found["s_auroc"], str(found["samples"]), str(found["unscorable"])]
        for name, of in categories.items():
            own = of["subsets"][place]
            cells += [own["s_auroc"], *(own.get("per_defect", {}).get(defect) for defect in defects[name])]
        alone = found["inputs"][0] if len(found["inputs"]) == 1 else None
        values = (sweep["value"] or {}, sweep["leave_one_out"])
        cells += [None if alone is None else value.get(alone) for value in values]
        rows.append((", ".join(found["inputs"]), cells))
    return ExportTable(columns, titles, rows, "inputs")


def strategies_export(found: Json) -> ExportTable:
    """S-AUROC by run, strategy and number of missing views; None beyond the cameras of a run."""
    numbers = missing_counts(found)
    rows: list[tuple[str, list[float | str | None]]] = [
        (
            f"{curve['run']}: {curve['strategy']}",
            [
                str(curve["view_dropout"]),
                *(curve["by_missing"].get(number, {}).get("s_auroc") for number in numbers),
            ],
        )
        for curve in found["curves"]
    ]
    columns = ["view_dropout", *(f"s_auroc missing {number}" for number in numbers)]
    titles = ["view dropout", *(f"{number} missing" for number in numbers)]
    return ExportTable(columns, titles, rows, "strategy")


def to_csv(table: ExportTable) -> str:
    """One line per row: fractions in 0..1, empty where undefined."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([csv_text(table.first), *map(csv_text, table.columns)])
    for name, values in table.rows:
        cells = ("" if v is None else csv_text(v) if isinstance(v, str) else repr(v) for v in values)
        writer.writerow([csv_text(name), *cells])
    return text.getvalue()


def to_markdown(table: ExportTable) -> str:
    """A table in percent."""
    lines = [
        [markdown_text(table.first), *map(markdown_text, table.titles)],
        ["---", *("--:" for _ in table.titles)],
    ]
    lines += [
        [markdown_text(name), *(markdown_text(v) if isinstance(v, str) else _percent(v) for v in values)]
        for name, values in table.rows
    ]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def to_latex(table: ExportTable) -> str:
    """A tabular in percent; needs the package booktabs."""
    lines = [
        [latex_text(name), *(latex_text(v) if isinstance(v, str) else _percent(v) for v in values)]
        for name, values in table.rows
    ]
    body = [" & ".join(line) + r" \\" for line in lines]
    if table.total:
        body.insert(-1, r"\midrule")
    first = latex_text(table.first[:1].upper() + table.first[1:])
    head = " & ".join([first, *map(latex_text, table.titles)]) + r" \\"
    start = rf"\begin{{tabular}}{{l{'r' * len(table.titles)}}}"
    return "\n".join([start, r"\toprule", head, r"\midrule", *body, r"\bottomrule", r"\end{tabular}", ""])


TEXTS: dict[str, Callable[[ExportTable], str]] = {".csv": to_csv, ".md": to_markdown, ".tex": to_latex}
ADEVAL = ".pkl"


def check_exports(paths: Sequence[Path], *, tables_only: bool = False) -> None:
    """Check that the exports can be written, before any work is done.

    Args:
        tables_only: whether there are no predictions to export.

    Raises:
        ConfigError: a file's ending is not that of a format.
        RunError: a file's folder does not exist.
        PathError, CannotFinish: no file can be created in it.
    """
    formats = (*TEXTS,) if tables_only else (*TEXTS, ADEVAL)
    for path in paths:
        if path.suffix not in formats:
            raise ConfigError(f"--export {path}: expected a file ending in {', '.join(formats)}")
        if not path.parent.is_dir():
            raise RunError(f"--export {path}: expected an existing folder, found no {path.parent}")
        if path.is_dir():
            raise RunError(f"--export {path}: expected the name of a file, found a folder")
        require_writable(path.parent)


def export_table(path: Path, table: ExportTable) -> str:
    """Write a table in the format of the ending of ``path``; returns what was written, for display.

    Raises:
        PathError, CannotFinish: the file cannot be written.
    """
    replace_file(path, TEXTS[path.suffix](table))
    rows = "1 row" if len(table.rows) == 1 else f"{len(table.rows)} rows"
    size = f"{rows}, {len(table.columns) + 1} columns"
    unit = "fractions in 0..1" if path.suffix == ".csv" else "percent"
    return f"{path}: table by {table.first} ({size}, {unit})"


def export(path: Path, metrics: Json, predictions: Predictions) -> str:
    """Write the format of the ending of ``path`` (`check_exports`); the file is complete or absent.

    Returns:
        What was written, for display.

    Raises:
        RunError: the format needs maps and the predictions file has none.
        PathError, CannotFinish: the file cannot be written.
    """
    if path.suffix != ADEVAL:
        return export_table(path, compare(metrics))
    with replacing(path) as partial:
        _write_adeval(partial, predictions)
    return f"{path}: maps and scores of {int(predictions.present.sum())} views, for ADEval"


class _Items:
    """A dict pickled item by item, so that it never is in memory as a whole; it unpickles as a dict."""

    def __init__(self, items: Iterator[tuple[str, Any]]) -> None:
        self._items = items

    def __reduce__(self) -> tuple[Any, ...]:
        return dict, (), None, None, self._items


def _write_adeval(path: Path, predictions: Predictions) -> None:
    """{image path: (map float16 [H,W], view score, mask path or None)} of the present views.

    Paths are relative to the dataset's root: ADEval's ``--add_prefix`` takes the root. It opens masks and
    images of the size of the maps, or resizes them to ``--evaluate_size``.
    """
    p = predictions

    def items() -> Iterator[tuple[str, Any]]:
        for rows, maps, _ in p.iter_maps(np.arange(len(p))):
            for row, of_sample in zip(rows, maps, strict=True):
                for view in np.flatnonzero(p.present[row]):
                    score, mask = float(p.view_scores[row, view]), p.mask_path[row][view] or None
                    yield p.image_path[row][view], (of_sample[view].copy(), score, mask)

    if not p.has_maps:
        raise RunError(f"{p.path}: expected anomaly maps to export; the file was written with --no-maps")
    with path.open("wb") as file:
        pickler = pickle.Pickler(file, protocol=4)
        # Without the memo, which would keep every map in memory. No object occurs twice here.
        pickler.fast = True
        pickler.dump(_Items(items()))


def _percent(value: float | None) -> str:
    return percent(value, DASH)
