"""Tables of metrics for the terminal."""

from typing import Any

from rich.table import Table

from idif.evaluation.paired import Comparison
from idif.metrics.pixel import metric_name
from idif.visualization.text import percent

SHOWN = ("s_auroc", "i_auroc", "p_auroc", "p_ap", "aupro")


def metrics_table(metrics: dict[str, Any]) -> Table:
    """One row per category and one for the mean, in percent; a dash for an undefined metric."""
    names = [metric_name(0.3) if name == "aupro" else name for name in SHOWN]
    rows = dict(metrics["categories"])
    if {len(values.get("per_view", {})) for values in rows.values()} == {1}:
        names.remove("i_auroc")  # with one camera that of samples
    table = Table("category", *(name.replace("_", "-").upper() for name in names))
    if (epoch := metrics.get("protocol", {}).get("epoch", "last")) != "last":
        table.caption = f"Weights of epoch {epoch}."
    if len(rows) > 1:
        rows["mean"] = metrics["mean"]
    for name, values in rows.items():
        table.add_row(name, *(percent(values.get(key)) for key in names))
    return table


def paired_table(compared: Comparison) -> Table:
    """S-AUROC of a run beside its baseline: one row per category and one for the mean, in percent."""
    table = Table("S-AUROC", compared.name, compared.baseline, "difference", "95 % interval")
    for name, cells in compared.rows():
        table.add_row(name, *cells)
    return table
