"""Many parts as a table: the rows of the page and of its CSV file."""

import csv
import io
from collections.abc import Mapping, Sequence
from typing import Any

_FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""What a spreadsheet takes for the beginning of a formula."""


def columns(view_numbers: Sequence[int]) -> list[str]:
    """The heads of `row`'s cells."""
    cameras = [f"C{number}" for number in view_numbers]
    return ["sample", "category", "score", "threshold", "anomalous", *cameras, "missing", "problems"]


def row(result: Mapping[str, Any], view_numbers: Sequence[int]) -> list[str]:
    """One part's cells, from what `idif.inference.predict.prediction_json` says; empty where nothing is known."""
    views = result["views"]
    scores = [views[str(n)]["score"] if str(n) in views else None for n in view_numbers]
    numbers = [result["score"], result["threshold"]]
    return [
        _plain(result["sample"]),
        _plain(result["category"]),
        *map(_number, numbers),
        {True: "yes", False: "no", None: ""}[result["anomalous"]],
        *map(_number, scores),
        " ".join(f"C{n}" for n in result["missing"]),
        _plain("; ".join(result["problems"])),
    ]


def to_csv(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """RFC 4180 text with a head line."""
    text = io.StringIO()
    csv.writer(text).writerows([head, *rows])
    return text.getvalue()


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.6g}"


def _plain(text: str) -> str:
    """Text that no spreadsheet takes for a formula: file names are a stranger's words."""
    return f"'{text}" if text.startswith(_FORMULA) else text
