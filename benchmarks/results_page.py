"""Writes `benchmarks/results/README.md` from the JSON files beside it.

python benchmarks/results_page.py
"""

import json
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"
ORDER = (
    "store",
    "metrics",
    "train_step",
    "precision",
    "sweep",
    "export",
    "holdout_defects",
    "memory_bank",
    "data_check",
    "render",
)
"""The files in the order of the page."""

NOTE = "<!-- Written by benchmarks/results_page.py (`make docs`); change the JSON files, not this file. -->\n"


def results_page() -> str:
    """Every recorded benchmark with its command, machine, conditions, tables and notes, as Markdown."""
    lines = [
        "# Benchmark results\n",
        NOTE,
        "Ratios and CPU time say more than seconds: the machine was shared with other work. How to repeat a",
        "measurement is in [the how-to](../README.md); conclusions, and what was tried and dropped, are in",
        "[the design notes](../../docs/design-notes/README.md).\n",
    ]
    for name in ORDER:
        lines += _section(json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8")))
    return "\n".join(lines)


def _section(result: dict[str, Any]) -> list[str]:
    lines = [
        f"## {result['title']}\n",
        f"- Command: `{result['command']}`",
        f"- Machine: {result['machine']}",
        f"- Conditions: {result['conditions']}",
        f"- Recorded in commit {', '.join(result['recorded_in'])}\n",
    ]
    for table in result["tables"]:
        lines += [f"**{table['title']}**\n", _row(table["columns"]), "|" + "---|" * len(table["columns"])]
        lines += [_row(row) for row in table["rows"]]
        lines.append("")
    lines += [f"- {note}" for note in result["notes"]]
    return [*lines, ""]


def _row(cells: list[str]) -> str:
    return "| " + " | ".join(cells) + " |"


if __name__ == "__main__":
    (RESULTS / "README.md").write_text(results_page(), encoding="utf-8", newline="\n")
