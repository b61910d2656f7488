"""Compares the runs of one config file with each other and with published figures of the same variants."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.table import Table

from cli.workflow.evaluate import evaluate_run
from idif.config.sections import Config
from idif.methods.catalog import METHODS
from idif.report.reference_results import ablation_reference, covered_dataset
from idif.runs.files import EVALUATE_AGAIN
from idif.runs.outdated import outdated_models
from idif.runs.run import open_run
from idif.sealed_json import read_sealed
from idif.visualization.text import percent

METRICS = ("s_auroc", "i_auroc", "p_auroc")


def comparison(configs: Sequence[Config], trained: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Evaluate the runs that were just trained or have no metrics yet; returns their means as JSON values.

    Args:
        trained: result of `cli.workflow.train.train_run` for each config.
    """
    rows = []
    for config, result in zip(configs, trained, strict=True):
        known = config.folder / "metrics.json"
        old = all(model["state"] == "finished before" for model in result["models"])
        metrics = _measured(known) if old and known.is_file() else None
        if metrics is None:
            metrics = evaluate_run(open_run(config.folder))
        variant = METHODS[config.method.name].label(config.method)
        imported = metrics["protocol"].get("imported_from", ())
        covered = covered_dataset(config.method.name, metrics["categories"], imported)
        published = {} if variant is None or covered is None else ablation_reference(config.method.name)
        rows.append(
            {
                "run": str(config.folder),
                "variant": variant,
                "method": config.method.name,
                "head": metrics["protocol"].get("head"),
                "categories": len(metrics["categories"]),
                **{key: metrics["mean"].get(key) for key in METRICS},
                "published_s_auroc": published.get(variant or ""),
            }
        )
    return rows


def _measured(path: Path) -> dict[str, Any] | None:
    """The content of ``metrics.json``; None if it is of an earlier checkpoint."""
    metrics = read_sealed(path, EVALUATE_AGAIN, ("mean", "categories", "protocol"))
    return None if outdated_models(metrics["protocol"], path.parent) else metrics


def comparison_table(rows: Sequence[dict[str, Any]]) -> Table:
    """One row per run, in percent; published figures only beside all categories of their dataset."""
    names = [key.replace("_", "-").upper() for key in METRICS]
    published = any(row["published_s_auroc"] is not None for row in rows)
    columns = [*METRICS, *(["published_s_auroc"] if published else [])]
    table = Table("run", "variant", "head", "categories", *names, *(["paper S-AUROC"] if published else []))
    for row in rows:
        figures = [percent(row[key]) for key in columns]
        table.add_row(row["run"], row["variant"] or "", row["head"] or "", str(row["categories"]), *figures)
    return table
