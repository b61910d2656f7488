"""The app: every command, and nothing else."""

from typing import Annotated

import typer

from cli import (
    app_cmd,
    cache_cmd,
    data_cmd,
    demo_cmd,
    doctor_cmd,
    eval_cmd,
    export_cmd,
    fuse_cmd,
    predict_cmd,
    report_cmd,
    sweep_cmd,
    train_cmd,
)
from cli.console import out
from idif import __version__

app = typer.Typer(
    name="idif",
    help="Multi-view anomaly detection: cache a frozen encoder once, train from the cache.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)
app.add_typer(data_cmd.app, name="data")
app.add_typer(cache_cmd.app, name="cache")
app.command("train")(train_cmd.train)
app.command("eval")(eval_cmd.evaluate)
app.command("fuse")(fuse_cmd.fuse_runs)
app.add_typer(sweep_cmd.app, name="sweep")
app.command("predict")(predict_cmd.predict_images)
app.command("export")(export_cmd.export_run)
app.command("report")(report_cmd.report)
app.command("app")(app_cmd.serve_page)
app.command("demo")(demo_cmd.demo)
app.command("doctor")(doctor_cmd.diagnose)


def _show_version(wanted: bool) -> None:
    if wanted:
        out.print(f"idif {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    pass
