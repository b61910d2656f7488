"""The paper's own numbers (IDIF, AAAI 2025: Tables 1 and 2, missing views), from ``paper.csv``."""

import csv
import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

MEAN = "Mean"
MISSING_VIEWS = "Real-IAD missing views"


@dataclass(frozen=True)
class PaperRow:
    """One row of the paper's tables, as fractions in 0..1; None where the paper gives no figure."""

    dataset: str
    category: str
    s_auroc: float | None
    p_auroc: float | None


@cache
def _rows() -> tuple[PaperRow, ...]:
    text = (files("idif.report") / "paper.csv").read_text(encoding="utf-8")
    return tuple(
        PaperRow(row["dataset"], row["category"], _fraction(row["s_auroc"]), _fraction(row["p_auroc"]))
        for row in csv.DictReader(text.splitlines())
    )


def _fraction(text: str) -> float | None:
    return round(float(text) / 100, 4) if text else None


def _plain(name: str) -> str:
    """``SIM Card Set``, ``sim_card_set`` and ``SimCardSet`` are one name."""
    return re.sub(r"[^a-z0-9]", "", name.lower())


def paper_rows(categories: Iterable[str]) -> dict[str, PaperRow]:
    """The paper's row of each category, by name. Empty unless all belong to one of the paper's datasets:
    a single namesake among other data is a coincidence.
    """
    names = list(categories)
    for dataset in dict.fromkeys(row.dataset for row in _rows()):
        known = {_plain(row.category): row for row in _rows() if row.dataset == dataset != MISSING_VIEWS}
        known.pop(_plain(MEAN), None)
        found = {name: known[_plain(name)] for name in names if _plain(name) in known}
        if names and len(found) == len(names):
            return found
    return {}


def paper_missing_views() -> list[float]:
    """The paper's S-AUROC on Real-IAD with 0, 1, ... views missing, trained with view-wise dropout."""
    found = sorted((int(r.category), r.s_auroc) for r in _rows() if r.dataset == MISSING_VIEWS)
    return [value for _, value in found if value is not None]
