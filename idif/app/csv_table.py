"""Results of many parts as a table, for the page and its CSV file."""

import csv
import io
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from idif.visualization.text import csv_text


def columns(view_numbers: Sequence[int]) -> list[str]:
    """Column names of the cells of `row`."""
    cameras = [f"C{number}" for number in view_numbers]
    return ["sample", "anomalous", "score", "threshold", "category", *cameras, "missing", "problems"]


def row(result: Mapping[str, Any], view_numbers: Sequence[int]) -> list[str]:
    """One part's cells from its `prediction_json`; empty where a value is unknown."""
    views = result["views"]
    scores = [views[str(n)]["score"] if str(n) in views else None for n in view_numbers]
    return [
        csv_text(result["sample"]),
        {True: "yes", False: "no", None: ""}[result["anomalous"]],
        *map(_number, (result["score"], result["threshold"])),
        csv_text(result["category"]),
        *map(_number, scores),
        " ".join(f"C{n}" for n in result["missing"]),
        csv_text("; ".join(result["problems"])),
    ]


def ranked(results: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Results with the highest scores first, and those without a score last."""
    return sorted(results, key=lambda result: _descending(result["score"]))


def _descending(score: float | None) -> float:
    return math.inf if score is None else -score


def to_csv(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """CSV text (RFC 4180) with a header line."""
    text = io.StringIO()
    csv.writer(text).writerows([header, *rows])
    return text.getvalue()


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"
