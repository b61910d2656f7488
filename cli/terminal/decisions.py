"""The decisions of a run's thresholds for the terminal: misses, false alarms, and the samples concerned."""

from typing import Any

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from idif.evaluation.decision import Decisions, WrongSample
from idif.metrics.proportion import Proportion
from idif.visualization.text import with_percent_sign

NAMED = 10
"""Most samples of a kind that are named; all are in metrics.json."""


def decisions_text(metrics: dict[str, Any]) -> RenderableType:
    """Decisions of a run's thresholds: sentences for one category, a table for several."""
    found = {
        name: Decisions.from_json(values["decision"])
        for name, values in metrics["categories"].items()
        if values.get("decision") is not None
    }
    without = [name for name in metrics["categories"] if name not in found]
    lines: list[RenderableType] = []
    if len(found) == 1:
        (decided,) = found.values()
        lines += [Text(decided.sentence()), Text(_agreement(decided))]
        lines += [_named("missed", decided.missed), _named("false alarm", decided.falsely_alarmed)]
    elif found:
        lines.append(_table(found))
    if without:
        lines.append(
            Text(f"no threshold, so no decision: {', '.join(without)} (see reasons in metrics.json)")
        )
    return Group(*lines)


def _agreement(decided: Decisions) -> str:
    """E.g. ``precision 93.3 %, recall 70.0 %, f1 80.0 %, accuracy 78.1 %``."""
    return ", ".join(f"{name} {with_percent_sign(value)}" for name, value in decided.agreement.items())


def _named(kind: str, samples: tuple[WrongSample, ...]) -> RenderableType:
    """A line for each of the first samples: original file, score, class."""
    lines = Text("\n").join(
        Text(f"{kind}: {sample.name()}  score {sample.score:.4g}  {sample.defect}")
        for sample in samples[:NAMED]
    )
    if len(samples) > NAMED:
        lines.append(f"\n{kind}: {len(samples) - NAMED} more in metrics.json")
    return Padding(lines, (0, 0, 0, 2)) if samples else Group()


def _table(found: dict[str, Decisions]) -> Table:
    table = Table("category", "threshold", "misses, 95 %", "false alarms, 95 %")
    for name, decided in found.items():
        table.add_row(name, f"{decided.threshold:.4g}", str(decided.misses), str(decided.false_alarms))
    kinds = ("misses", "false_alarms")
    shares = [[getattr(decided, kind) for decided in found.values()] for kind in kinds]
    totals = [Proportion(sum(s.count for s in each), sum(s.total for s in each)) for each in shares]
    table.add_section()
    table.add_row("all", "", *map(str, totals))
    origins = list(dict.fromkeys(decided.origin for decided in found.values()))
    more = f" and {len(origins) - 1} more origins" if len(origins) > 1 else ""
    table.caption = f"Thresholds: {origins[0]}{more}."
    return table
