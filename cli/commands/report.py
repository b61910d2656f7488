"""`idif report`: write one self-contained HTML file about one or more runs."""

from pathlib import Path
from typing import Annotated

import typer

from cli.options import CheckpointOption, SetOption
from cli.terminal.console import JsonOption, print_result
from cli.workflow.report import evaluate_checkpoints, write
from idif.errors import ConfigError
from idif.report.decisions import Costs
from idif.runs.files import read_config
from idif.runs.run import run_home


def report(
    runs: Annotated[
        list[Path],
        typer.Argument(metavar="RUN...", help="Evaluated runs; the report is written into the first."),
    ],
    cost_miss: Annotated[
        float | None,
        typer.Option("--cost-miss", metavar="COST", help="Cost of a defective part that passes.", min=0),
    ] = None,
    cost_false_alarm: Annotated[
        float | None,
        typer.Option("--cost-false-alarm", metavar="COST", help="Cost of a good part rejected.", min=0),
    ] = None,
    checkpoint: CheckpointOption = "final",
    overrides: SetOption = [],  # noqa: B006
    as_json: JsonOption = False,
) -> None:
    """Write report.html: decisions, metrics, charts, and anomaly maps of selected samples.

    Several runs are compared by category, by paired differences and on the same samples. With costs of wrong
    decisions, the report also names the cheapest threshold. With --checkpoint last, a run that is stopped or
    still in training is evaluated first.

    Photographs are read from the run's store or dataset; without either, only the maps are shown.

    Examples:

        idif report runs/realiad --cost-miss 50 --cost-false-alarm 1

        idif report runs/realiad runs/realiad-missing-views --set cache.store=/mnt/stores/realiad.zarr
    """
    if (cost_miss is None) != (cost_false_alarm is None):
        raise ConfigError("--cost-miss, --cost-false-alarm: expected both or neither")
    costs = None
    if cost_miss is not None and cost_false_alarm is not None:
        costs = Costs(cost_miss, cost_false_alarm)
    if checkpoint == "last":
        evaluate_checkpoints(runs, overrides)
    configs = {run: read_config(run_home(run), overrides) for run in runs}
    path = write(configs, costs)
    print_result({"report": str(path), "bytes": path.stat().st_size}, as_json=as_json, otherwise=str(path))
