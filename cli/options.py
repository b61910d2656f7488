"""Options that several commands share."""

from typing import Annotated

import typer

SetOption = Annotated[
    list[str], typer.Option("--set", metavar="KEY=VALUE", help="Override a config key, e.g. train.epochs=10.")
]
