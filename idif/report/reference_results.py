"""Published results by method and dataset, from ``reference_results.csv``, to show beside a run's."""

import csv
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Literal

MEAN = "Mean"
IMPORTED_FROM = {"MVTec 3D-AD": "mvtec3d", "Eyecandies": "eyecandies"}
"""Dataset -> the importer of its samples; others are read as published, and are not imported."""
Experiment = Literal["main", "missing views", "ablation"]


@dataclass(frozen=True)
class ReferenceRow:
    """One published result; the metrics are fractions in 0..1, None where none is published."""

    method: str
    dataset: str
    category: str
    """For ``missing views`` the number of missing views; for ``ablation`` the name of the variant."""
    s_auroc: float | None
    p_auroc: float | None
    source: str
    """The publication that reports the result."""
    protocol: str = ""
    """How the method was trained and scored, where that matters for a comparison."""


@cache
def _rows(experiment: Experiment) -> tuple[ReferenceRow, ...]:
    text = (files("idif.report") / "reference_results.csv").read_text(encoding="utf-8")
    return tuple(
        ReferenceRow(
            method=row["method"],
            dataset=row["dataset"],
            category=row["category"],
            s_auroc=_fraction(row["s_auroc"]),
            p_auroc=_fraction(row["p_auroc"]),
            source=row["source"],
            protocol=row["protocol"],
        )
        for row in csv.DictReader(text.splitlines())
        if row["experiment"] == experiment
    )


def _fraction(text: str) -> float | None:
    return round(float(text) / 100, 4) if text else None


def _normalized(name: str) -> str:
    """Lower-case letters and digits: ``SIM Card Set``, ``sim_card_set`` and ``SimCardSet`` are one name."""
    return re.sub(r"[^a-z0-9]", "", name.lower())


def published_results(
    categories: Iterable[str], imported_from: Sequence[str] = ()
) -> dict[str, dict[str, ReferenceRow]]:
    """Method -> category -> its row, both in the order of the file.

    Empty unless one dataset of the file has all these categories, by name: a single category of the same name
    in other data is a coincidence. Imported samples must be imported from that dataset.

    Args:
        categories: of one run.
        imported_from: ``imported_from`` of the run's protocol.
    """
    names = {_normalized(name): name for name in categories}
    for dataset in dict.fromkeys(row.dataset for row in _rows("main")):
        if imported_from and list(imported_from) != [IMPORTED_FROM.get(dataset)]:
            continue
        methods: dict[str, dict[str, ReferenceRow]] = {}
        for row in _rows("main"):
            if row.dataset == dataset and row.category != MEAN and _normalized(row.category) in names:
                methods.setdefault(row.method, {})[names[_normalized(row.category)]] = row
        if names and any(len(rows) == len(names) for rows in methods.values()):
            return methods
    return {}


def reference_rows(
    method: str, categories: Iterable[str], imported_from: Sequence[str] = ()
) -> dict[str, ReferenceRow]:
    """Category -> the published result of ``method``; empty unless it has one for each of ``categories``.

    Args:
        method: the name of a method, e.g. a config's ``method.name``.
        categories: of one run.
        imported_from: see `published_results`.
    """
    names = list(categories)
    for published, rows in published_results(names, imported_from).items():
        if _normalized(published) == _normalized(method) and len(rows) == len(names):
            return rows
    return {}


def covered_dataset(method: str, categories: Iterable[str], imported_from: Sequence[str] = ()) -> str | None:
    """The dataset whose published categories for ``method`` are exactly ``categories``; None without one.

    Published means are over all of a dataset's categories, so they are shown beside such runs alone.
    """
    rows = reference_rows(method, categories, imported_from)
    if not rows:
        return None
    dataset = next(iter(rows.values())).dataset
    all_rows = [
        row
        for row in _rows("main")
        if row.dataset == dataset and row.category != MEAN and _normalized(row.method) == _normalized(method)
    ]
    return dataset if len(all_rows) == len(rows) else None


def missing_view_reference(method: str, dataset: str) -> list[ReferenceRow]:
    """The published results of ``method`` on ``dataset`` with 0, 1, ... views missing, if there are any."""
    rows = [row for row in _rows("missing views") if row.dataset == dataset]
    of_method = [row for row in rows if _normalized(row.method) == _normalized(method)]
    return sorted(of_method, key=lambda row: int(row.category))


def ablation_reference(method: str) -> dict[str, float]:
    """Variant of ``method`` -> its published S-AUROC in 0..1, in the order of the file."""
    return {
        row.category: row.s_auroc
        for row in _rows("ablation")
        if _normalized(row.method) == _normalized(method) and row.s_auroc is not None
    }
