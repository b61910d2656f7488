"""Results in the forms that others read: tables beside the paper's, and the pickle that ADEval reads."""

import csv
import io
import os
import pickle
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from idif.errors import CannotFinish, ConfigError, RunError
from idif.evaluation.predictions import Predictions
from idif.report.reference_results import paper_methods
from idif.report.tables import DASH, HEADLINE, label, percent

Json = dict[str, Any]


@dataclass(frozen=True)
class Comparison:
    """Ours by category, beside every method of the paper's table; all figures in 0..1."""

    columns: list[str]
    """Key of each column: a metric, or a method and a metric."""
    titles: list[str]
    rows: list[tuple[str, list[float | None]]]


def compare(metrics: Json) -> Comparison:
    """The categories in the order of the paper's table where they are all its own, else of ``metrics.json``.

    Args:
        metrics: the content of ``metrics.json``.
    """
    categories: dict[str, Json] = metrics["categories"]
    paper = paper_methods(categories)
    columns, titles = list(HEADLINE), [label(key) for key in HEADLINE]
    shown: list[tuple[str, str]] = []
    for method, rows in paper.items():
        for key in ("s_auroc", "p_auroc"):
            if any(getattr(row, key) is not None for row in rows.values()):
                shown.append((method, key))
                columns.append(f"{method} {key}")
                titles.append(f"{method} {label(key)}")
    order = list(next(iter(paper.values()))) if paper else list(categories)

    def row(name: str, ours: Json) -> tuple[str, list[float | None]]:
        theirs = [getattr(paper[method][name], key) for method, key in shown]
        return name, [*(ours.get(key) for key in HEADLINE), *theirs]

    found = [row(name, categories[name]) for name in order]
    if len(found) > 1:
        means = [_mean([values[at] for _, values in found]) for at in range(len(HEADLINE), len(columns))]
        found.append(("mean", [*(metrics["mean"].get(key) for key in HEADLINE), *means]))
    return Comparison(columns, titles, found)


def to_csv(metrics: Json) -> str:
    """One line a category, fractions in 0..1, empty where undefined."""
    table, text = compare(metrics), io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["category", *table.columns])
    writer.writerows([name, *("" if v is None else repr(v) for v in values)] for name, values in table.rows)
    return text.getvalue()


def to_markdown(metrics: Json) -> str:
    """A table in percent."""
    table = compare(metrics)
    lines = [["category", *table.titles], ["---", *("--:" for _ in table.titles)]]
    lines += [[name, *map(_percent, values)] for name, values in table.rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def to_latex(metrics: Json) -> str:
    """A tabular in percent; needs the package booktabs."""
    table = compare(metrics)
    lines = [[name, *map(_percent, values)] for name, values in table.rows]
    body = [" & ".join(cell.replace("_", r"\_") for cell in line) + r" \\" for line in lines]
    if len(lines) > 1:
        body.insert(-1, r"\midrule")
    head = " & ".join(["Category", *table.titles]) + r" \\"
    start = rf"\begin{{tabular}}{{l{'r' * len(table.titles)}}}"
    return "\n".join([start, r"\toprule", head, r"\midrule", *body, r"\bottomrule", r"\end{tabular}", ""])


TEXTS: dict[str, Callable[[Json], str]] = {".csv": to_csv, ".md": to_markdown, ".tex": to_latex}
ADEVAL = ".pkl"


def check_exports(paths: list[Path]) -> None:
    """Refuse what could not be written, before any work is done.

    Raises:
        ConfigError: a file's ending names no format.
        RunError: its folder does not exist.
    """
    for path in paths:
        if path.suffix not in (*TEXTS, ADEVAL):
            raise ConfigError(f"--export {path}: expected a file ending in {', '.join((*TEXTS, ADEVAL))}")
        if not path.parent.is_dir():
            raise RunError(f"--export {path}: expected an existing folder, found no {path.parent}")


def export(path: Path, metrics: Json, predictions: Predictions) -> None:
    """Write the format that the ending of ``path`` names (`check_exports`); whole or not at all.

    Raises:
        RunError: the pickle is asked for and the predictions file holds no maps.
        CannotFinish: the file cannot be written.
    """
    beside = path.with_name(path.name + ".part")
    try:
        if path.suffix == ADEVAL:
            _write_adeval(beside, predictions)
        else:
            beside.write_text(TEXTS[path.suffix](metrics), encoding="utf-8")
        os.replace(beside, path)
    except OSError as error:
        raise CannotFinish(f"{path}: cannot be written: {error}") from error
    finally:
        beside.unlink(missing_ok=True)


class _Items:
    """Pickled item by item, and so of any size, what is read as a plain dict."""

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
    return DASH if value is None else percent(value)


def _mean(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None
