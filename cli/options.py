"""Options that several commands share."""

from pathlib import Path
from typing import Annotated, Literal

import typer

CheckpointOption = Annotated[
    Literal["final", "last"],
    typer.Option(
        help="Weights: of the finished training, or the last checkpoint of a stopped or running one."
    ),
]
TablesOption = Annotated[
    list[Path],
    typer.Option("--export", metavar="FILE", help="Also write the table: .csv, .md or .tex; repeatable."),
]
SetOption = Annotated[
    list[str], typer.Option("--set", metavar="KEY=VALUE", help="Override a config key, e.g. train.epochs=10.")
]
DropOption = Annotated[bool, typer.Option("--drop-incomplete", help="Leave out samples that lack a view.")]
