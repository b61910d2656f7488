"""The table of predicted parts: order, words, and a CSV file that spreadsheets open without danger."""

import csv
import io
from typing import Any

import pytest

from idif.inference.results_table import ranked, results_csv, summary


def result(name: str, score: float | None = 0.5, **more: Any) -> dict[str, Any]:
    values: dict[str, Any] = {"sample": name, "category": "cup", "score": score, "threshold": 0.4}
    values |= {"threshold_origin": "fixed", "anomalous": None if score is None else score >= 0.4}
    return values | {"views": {}, "missing": [], "problems": []} | more


def lines(results: list[dict[str, Any]], cameras: dict[int, str]) -> list[list[str]]:
    return list(csv.reader(io.StringIO(results_csv(results, cameras))))


def test_formulas_are_escaped() -> None:
    view = {"2": {"score": 1e-7, "image": "@x.png"}}
    evil = result("=HYPERLINK(1)", -0.5, threshold=None, anomalous=None, views=view)
    evil |= {"missing": [1, 3], "problems": ["+a", "b"]}
    header, cells = lines([evil], {1: "=Top", 2: "C2", 3: "C3"})
    assert header == [
        *["part", "category", "score", "threshold", "decision"],
        *["score =Top", "score C2", "score C3", "photographs", "missing", "problems"],
    ]
    shown = ["'=HYPERLINK(1)", "cup", "-0.5", "", "-", "", "1e-07", "", "'@x.png", "'=Top; C3", "'+a; b"]
    assert cells == shown


def test_one_camera_has_no_columns_of_cameras() -> None:
    header, cells = lines([result("a", views={"1": {"score": 0.5, "image": "a.png"}})], {1: "C1"})
    assert header == ["part", "category", "score", "threshold", "decision", "photographs", "problems"]
    assert cells == ["a", "cup", "0.5", "0.4", "anomalous", "a.png", ""]


def test_the_highest_scores_of_each_category_come_first() -> None:
    parts = [result("a", None), result("b", 0.1), result("c", 0.2), result("d", 0.9, category="bolt")]
    assert [each["sample"] for each in ranked(parts)] == ["c", "b", "a", "d"]


@pytest.mark.parametrize(
    ("results", "text"),
    [
        ([result("a"), result("b", 0.1)], "2 parts: 1 anomalous, 1 normal; threshold 0.4 (fixed)"),
        ([result("a")], "1 part: 1 anomalous, 0 normal; threshold 0.4 (fixed)"),
        (
            [result("a"), result("b", None)],
            "1 of 2 parts scored: 1 anomalous, 0 normal; threshold 0.4 (fixed)",
        ),
        (
            [result("a"), result("b", category="bolt", threshold=0.2, threshold_origin="chosen")],
            "2 parts: 2 anomalous, 0 normal; cup: threshold 0.4 (fixed); bolt: threshold 0.2 (chosen)",
        ),
        (
            [result("a", anomalous=None)],
            "1 part; no threshold, so no decision: evaluate the run with `idif eval`",
        ),
    ],
)
def test_summary(results: list[dict[str, Any]], text: str) -> None:
    assert summary(results) == text
