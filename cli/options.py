"""Options that several commands share."""

from typing import Annotated, Literal

import typer

CheckpointOption = Annotated[
    Literal["final", "last"],
    typer.Option(help="Weights: of the finished training, or the last checkpoint of a stopped or running one."),
]
SetOption = Annotated[
    list[str], typer.Option("--set", metavar="KEY=VALUE", help="Override a config key, e.g. train.epochs=10.")
]
