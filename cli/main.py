"""The app: every command, and nothing else."""

from typing import Annotated

import typer

from cli.commands import cache, data, demo, doctor, eval, export, fuse, predict, report, sweep, train
from cli.commands.app import serve_page
from cli.terminal.console import out
from idif import __version__

app = typer.Typer(
    name="idif",
    help="Multi-view anomaly detection: cache a frozen encoder once, train from the cache.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)
app.add_typer(data.app, name="data")
app.add_typer(cache.app, name="cache")
app.command("train")(train.train)
app.command("eval")(eval.evaluate)
app.command("fuse")(fuse.fuse_runs)
app.add_typer(sweep.app, name="sweep")
app.command("predict")(predict.predict_images)
app.command("export")(export.export_run)
app.command("report")(report.report)
app.command("app")(serve_page)
app.command("demo")(demo.demo)
app.command("doctor")(doctor.diagnose)


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
