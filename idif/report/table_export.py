"""Export of results: tables beside published results, and the pickle that ADEval reads."""

import csv
import io
import pickle
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from idif.errors import CannotFinish, ConfigError, RunError
from idif.evaluation.predictions import Predictions
from idif.files import replace_file, replacing
from idif.metrics.mean import mean_defined
from idif.report.reference_results import published_results
from idif.report.run_data import Json
from idif.report.tables import DASH, HEADLINE, label
from idif.visualization.text import csv_text, latex_text, markdown_text, percent


@dataclass(frozen=True)
class Comparison:
    """A run's metrics by category, beside every method published on the dataset; fractions in 0..1."""

    columns: list[str]
    """Key of each column: a metric, or a method and a metric."""
    titles: list[str]
    """Heading of each column."""
    rows: list[tuple[str, list[float | None]]]
    """(category or ``mean``, values)."""


def compare(metrics: Json) -> Comparison:
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
    table: list[tuple[str, list[float | None]]] = []
    for name in order:
        others = [getattr(published[method].get(name), key, None) for method, key in shown]
        table.append((name, [*(categories[name].get(key) for key in HEADLINE), *others]))
    if len(table) > 1:
        others = [
            mean_defined(values[at] for _, values in table)[0] for at in range(len(HEADLINE), len(columns))
        ]
        table.append(("mean", [*(metrics["mean"].get(key) for key in HEADLINE), *others]))
    return Comparison(columns, titles, table)


def to_csv(metrics: Json) -> str:
    """One line per category: fractions in 0..1, empty where undefined."""
    table, text = compare(metrics), io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["category", *map(csv_text, table.columns)])
    writer.writerows(
        [csv_text(name), *("" if v is None else repr(v) for v in values)] for name, values in table.rows
    )
    return text.getvalue()


def to_markdown(metrics: Json) -> str:
    """A table in percent."""
    table = compare(metrics)
    lines = [["category", *map(markdown_text, table.titles)], ["---", *("--:" for _ in table.titles)]]
    lines += [[markdown_text(name), *map(_percent, values)] for name, values in table.rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def to_latex(metrics: Json) -> str:
    """A tabular in percent; needs the package booktabs."""
    table = compare(metrics)
    lines = [[latex_text(name), *map(_percent, values)] for name, values in table.rows]
    body = [" & ".join(line) + r" \\" for line in lines]
    if len(lines) > 1:
        body.insert(-1, r"\midrule")
    head = " & ".join(["Category", *map(latex_text, table.titles)]) + r" \\"
    start = rf"\begin{{tabular}}{{l{'r' * len(table.titles)}}}"
    return "\n".join([start, r"\toprule", head, r"\midrule", *body, r"\bottomrule", r"\end{tabular}", ""])


TEXTS: dict[str, Callable[[Json], str]] = {".csv": to_csv, ".md": to_markdown, ".tex": to_latex}
ADEVAL = ".pkl"


def check_exports(paths: list[Path]) -> None:
    """Check that the exports can be written, before any work is done.

    Raises:
        ConfigError: a file's ending is not that of a format.
        RunError: a file's folder does not exist.
    """
    for path in paths:
        if path.suffix not in (*TEXTS, ADEVAL):
            raise ConfigError(f"--export {path}: expected a file ending in {', '.join((*TEXTS, ADEVAL))}")
        if not path.parent.is_dir():
            raise RunError(f"--export {path}: expected an existing folder, found no {path.parent}")


def export(path: Path, metrics: Json, predictions: Predictions) -> None:
    """Write the format of the ending of ``path`` (`check_exports`); the file is complete or absent.

    Raises:
        RunError: the format needs maps and the predictions file has none.
        CannotFinish: the file cannot be written.
    """
    try:
        if path.suffix == ADEVAL:
            with replacing(path) as partial:
                _write_adeval(partial, predictions)
        else:
            replace_file(path, TEXTS[path.suffix](metrics))
    except OSError as error:
        raise CannotFinish(f"{path}: cannot be written: {error}") from error


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
