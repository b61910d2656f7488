"""`idif report`: write one self-contained HTML file about one or more runs."""

from pathlib import Path
from typing import Annotated

import typer

from cli.options import SetOption
from cli.terminal.console import JsonOption, print_result
from cli.workflow.report import _write
from idif.runs.files import read_config
from idif.runs.run import run_home


def report(
    runs: Annotated[
        list[Path],
        typer.Argument(metavar="RUN...", help="Evaluated runs; the report is written into the first."),
    ],
    overrides: SetOption = [],  # noqa: B006
    as_json: JsonOption = False,
) -> None:
    """Write report.html: metrics, charts, and anomaly maps of selected samples.

    Photographs are read from the run's store or dataset; without either, only the maps are shown.

    Examples:

        idif report runs/realiad

        idif report runs/realiad runs/realiad-missing-views --set cache.store=/mnt/stores/realiad.zarr
    """
    configs = {run: read_config(run_home(run), overrides) for run in runs}
    path = _write(configs)
    print_result({"report": str(path), "bytes": path.stat().st_size}, as_json=as_json, otherwise=str(path))
