"""`idif fuse`: fuses the scores of several runs on the same samples into a new result folder."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Group

from cli.options import SetOption
from cli.terminal.console import JsonOption, note, print_result, progress_bar
from cli.terminal.decisions import decisions_text
from cli.terminal.metrics_table import metrics_table
from idif.errors import ConfigError
from idif.runs.fusion import write_fusion


def fuse_runs(
    runs: Annotated[
        list[Path],
        typer.Argument(metavar="RUN...", help="Two or more evaluated runs about the same samples."),
    ],
    out: Annotated[Path, typer.Option(help="Folder of the fused predictions and metrics.")],
    weights: Annotated[
        str,
        typer.Option(metavar="W,W,...", help="Weight of each run, in their order; equal if not given."),
    ] = "",
    overrides: SetOption = [],  # noqa: B006
    as_json: JsonOption = False,
) -> None:
    """Fuse the scores and maps of runs, e.g. of color and of depth, by their weighted mean on one scale.

    The scale of each run is the mean and spread of its scores of training normals, which `idif eval` records
    with `eval.record_normal_scores`. Metrics are measured as the first run's. `idif report OUT RUN...`
    compares the fusion with the runs.

    Examples:

        idif eval runs/rgb --set eval.record_normal_scores=true

        idif eval runs/depth --set eval.record_normal_scores=true

        idif fuse runs/rgb runs/depth --out runs/rgb-depth --weights 2,1
    """
    metrics = write_fusion(runs, out, _weights(weights), overrides, bar=progress_bar, notify=note)
    print_result(metrics, as_json=as_json, otherwise=Group(metrics_table(metrics), decisions_text(metrics)))
    note(f"next: idif report {out} {' '.join(map(str, runs))}")


def _weights(text: str) -> list[float]:
    try:
        return [float(part) for part in text.split(",")] if text else []
    except ValueError:
        raise ConfigError(f"--weights {text}: expected numbers with commas between them, e.g. 2,1") from None
