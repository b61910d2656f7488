"""`idif train`: phase two, one model for each category or one for all."""

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Group
from rich.table import Table

from cli.options import SetOption, TablesOption
from cli.processes import first_process
from cli.terminal.console import JsonOption, note, print_result
from cli.terminal.train_table import LiveTable
from cli.workflow.comparison import METRICS, comparison, comparison_table
from cli.workflow.train import train_run
from idif.config.loader import load_configs
from idif.errors import ConfigError
from idif.report.table_export import check_exports, export_table, runs_table


def train(
    config: Annotated[Path, typer.Option("--config", help="YAML file; see configs/.")],
    overrides: SetOption = [],  # noqa: B006
    resume: Annotated[bool, typer.Option("--resume", help="Continue from the last checkpoint.")] = False,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Check config, data and textures, time two steps, write no run."),
    ] = False,
    exports: TablesOption = [],  # noqa: B006
    as_json: JsonOption = False,
) -> None:
    """Train from a feature store (or with the live encoder).

    Examples:

        idif train --config configs/realiad.yaml --set cache.store=stores/realiad.zarr

        idif train --config configs/laptop-8gb.yaml --set train.epochs=10 --resume

        idif train --config configs/ablations/table3.yaml

    A file with a `matrix` defines several runs, which are also evaluated and compared. Ctrl-C stops after the
    last finished epoch, and --resume continues from there, also with more train.epochs.
    """
    configs = load_configs(config, overrides)
    check_exports(exports, tables_only=True)
    if exports and (len(configs) == 1 or dry_run):
        raise ConfigError("--export: only the comparison of a file with a `matrix` can be exported here")
    table = None if dry_run or not first_process() else LiveTable(as_json=as_json)
    results = [train_run(c, resume=resume, dry_run=dry_run, table=table) for c in configs]
    if not first_process():
        return
    if len(configs) > 1 and not dry_run:
        compared = comparison(configs, results)
        for path in exports:
            note(f"wrote {export_table(path, runs_table(compared, METRICS))}")
        print_result(
            {"runs": results, "compared": compared}, as_json=as_json, otherwise=comparison_table(compared)
        )
        return
    print_result({"runs": results}, as_json=as_json, otherwise=_estimates(results) if dry_run else None)
    if dry_run and not as_json:
        for line in _summaries(results):
            note(line)
    if not dry_run:
        for result in results:
            note(f"next: idif eval {result['run']}")


def _summaries(results: list[dict[str, Any]]) -> list[str]:
    """One line for each model: its parameters, and the trainable ones of its parts."""
    return [
        f"{model['name']}: {found['parameters']:,} trainable of "
        f"{found['parameters'] + found['fixed_parameters']:,} parameters: "
        + ", ".join(f"{name} {size:,}" for name, size in found["parts"].items())
        for result in results
        for model in result["models"]
        if (found := model.get("estimate")) and found["parts"]
    ]


def _estimates(results: list[dict[str, Any]]) -> Group:
    """A table for each run of a dry run; memory without that of the features and of torch itself."""
    return Group(*map(_estimate_table, results))


def _estimate_table(result: dict[str, Any]) -> Table:
    table = Table(
        title=result["run"], title_justify="left", box=SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0)
    )
    table.add_column("model", overflow="fold")
    for heading in ("parameters", "weights, MB", "activations, MB", "steps", "s/step", "min/epoch"):
        # a heading may have two lines, but none of its words is cut in a narrow terminal
        table.add_column(heading, justify="right", min_width=max(map(len, heading.split())))
    for model in result["models"]:
        if found := model.get("estimate"):
            table.add_row(
                model["name"],
                f"{found['parameters'] / 1e6:.1f} M",
                f"{found['state_bytes'] / 1e6:,.0f}",
                f"{found['activation_bytes'] / 1e6:,.0f}",
                f"{found['steps']:,}",
                f"{found['seconds_per_step']:.2f}",
                f"{found['seconds_per_epoch'] / 60:.1f}",
            )
    return table
