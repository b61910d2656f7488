"""The paper's numbers (IDIF, AAAI 2025: Tables 1 to 3, missing views), from ``paper.csv``."""

import csv
import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

MEAN = "Mean"
MISSING_VIEWS, ABLATION = "Real-IAD missing views", "Real-IAD ablation"
METHOD = "IDIF"


@dataclass(frozen=True)
class PaperRow:
    """One row of the paper's tables, as fractions in 0..1; None where the paper gives no figure."""

    dataset: str
    category: str
    s_auroc: float | None
    p_auroc: float | None
    method: str = METHOD


@cache
def _rows() -> tuple[PaperRow, ...]:
    text = (files("idif.report") / "paper.csv").read_text(encoding="utf-8")
    return tuple(
        PaperRow(
            row["dataset"],
            row["category"],
            _fraction(row["s_auroc"]),
            _fraction(row["p_auroc"]),
            row["method"],
        )
        for row in csv.DictReader(text.splitlines())
    )


def _fraction(text: str) -> float | None:
    return round(float(text) / 100, 4) if text else None


def _plain(name: str) -> str:
    """``SIM Card Set``, ``sim_card_set`` and ``SimCardSet`` are one name."""
    return re.sub(r"[^a-z0-9]", "", name.lower())


def paper_rows(categories: Iterable[str]) -> dict[str, PaperRow]:
    """The row of the paper's own method of each category, in the paper's order; see `paper_methods`."""
    return paper_methods(categories).get(METHOD, {})


def paper_methods(categories: Iterable[str]) -> dict[str, dict[str, PaperRow]]:
    """Method -> category -> its row, both in the order of the paper's table, the paper's own method last.

    Empty unless all categories belong, by name, to one of the paper's datasets: a single namesake among other
    data is a coincidence.
    """
    names = {_plain(name): name for name in categories}
    for dataset in dict.fromkeys(row.dataset for row in _rows()):
        if dataset in (MISSING_VIEWS, ABLATION):
            continue
        found: dict[str, dict[str, PaperRow]] = {}
        for row in _rows():
            if row.dataset == dataset and row.category != MEAN and _plain(row.category) in names:
                found.setdefault(row.method, {})[names[_plain(row.category)]] = row
        if names and len(found.get(METHOD, {})) == len(names):
            return found
    return {}


def paper_missing_views() -> list[float]:
    """The paper's S-AUROC on Real-IAD with 0, 1, ... views missing, trained with view-wise dropout."""
    found = sorted((int(r.category), r.s_auroc) for r in _rows() if r.dataset == MISSING_VIEWS)
    return [value for _, value in found if value is not None]


def paper_table_3() -> dict[str, float]:
    """The paper's S-AUROC on Real-IAD (Table 3), row -> a fraction in 0..1."""
    return {r.category: r.s_auroc for r in _rows() if r.dataset == ABLATION and r.s_auroc is not None}
