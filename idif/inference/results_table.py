"""Results of predicted parts in words, as table cells and as CSV, the highest scores first."""

import csv
import io
from collections.abc import Mapping, Sequence
from typing import Any

from idif.visualization.text import csv_text

DECISIONS = {True: "anomalous", False: "normal", None: "-"}
"""``anomalous`` of a result -> its word."""

Result = Mapping[str, Any]
"""Values of `idif.inference.predict.prediction_json`."""


def decided_at(result: Result, threshold: float | None, origin: str | None) -> Result:
    """A part's result with another threshold, and where that comes from; the views' decisions stay."""
    score = result["score"]
    anomalous = None if score is None or threshold is None else score >= threshold
    return {**result, "threshold": threshold, "threshold_origin": origin, "anomalous": anomalous}


def ranked(results: Sequence[Result]) -> list[Result]:
    """Results by category, the highest scores first and parts without a score last."""
    order = {name: place for place, name in enumerate(dict.fromkeys(r["category"] for r in results))}
    return sorted(
        results,
        key=lambda r: (order[r["category"]], r["score"] is None, -(r["score"] or 0.0), r["sample"]),
    )


def results_csv(results: Sequence[Result], names: Mapping[int, str]) -> str:
    """One line per part, `ranked`; with several cameras a column for each one's score, and the missing ones.

    Args:
        results: of any categories.
        names: camera number -> its name, of all cameras of the run.
    """
    several = len(names) > 1
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    cameras = [csv_text(f"score {name}") for name in names.values()] if several else []
    header = ["part", "category", "score", "threshold", "decision", *cameras, "photographs"]
    writer.writerow([*header, *(["missing"] if several else []), "problems"])
    for result in ranked(results):
        views = result["views"]
        scores = [views[str(n)]["score"] if str(n) in views else "" for n in names] if several else []
        numbers = ["" if result[key] is None else result[key] for key in ("score", "threshold")]
        start = [csv_text(result["sample"]), csv_text(result["category"]), *numbers]
        files = "; ".join(view["image"] for view in views.values())
        absent = [csv_text("; ".join(names[number] for number in result["missing"]))] if several else []
        problems = csv_text("; ".join(result["problems"]))
        writer.writerow([*start, DECISIONS[result["anomalous"]], *scores, csv_text(files), *absent, problems])
    return text.getvalue()


def counts(results: Sequence[Result]) -> str:
    """How many parts there are and, if that is decided, how many of them are anomalous."""
    scored = [result for result in results if result["score"] is not None]
    text = f"{len(scored)} of {len(results)} parts scored" if len(scored) < len(results) else ""
    text = text or (f"{len(results)} parts" if len(results) != 1 else "1 part")
    decided = [result for result in scored if result["anomalous"] is not None]
    if not decided:
        return text
    anomalous = sum(result["anomalous"] for result in decided)
    return f"{text}: {anomalous} anomalous, {len(decided) - anomalous} normal"


def summary(results: Sequence[Result]) -> str:
    """The `counts`, by which thresholds, and where those come from."""
    thresholds = {
        result["category"]: (result["threshold"], result["threshold_origin"])
        for result in results
        if result["anomalous"] is not None
    }
    if not thresholds:
        return f"{counts(results)}; no threshold, so no decision: evaluate the run with `idif eval`"
    chosen = "; ".join(
        (f"{category}: " if len(thresholds) > 1 else "") + f"threshold {value:.4g} ({origin})"
        for category, (value, origin) in thresholds.items()
    )
    return f"{counts(results)}; {chosen}"
