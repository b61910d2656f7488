"""The app: every command by name; a command's module is imported when that command is invoked."""

from dataclasses import dataclass
from importlib import import_module
from typing import Annotated, Any, TypeAlias

import typer
from typer.core import TyperGroup

from cli.terminal import signals
from cli.terminal.console import out
from cli.terminal.help import CommandGroup, HelpGroup
from idif.version import __version__

Command: TypeAlias = Any
"""A parsed command or group; its class is typer's own and differs between typer's versions."""


@dataclass(frozen=True)
class LazyCommand:
    """Location of a command, and its line in the list of commands."""

    module: str
    attribute: str
    """Name of a function, or of a `typer.Typer` with subcommands."""
    summary: str
    """The first paragraph of the command's help, shown without importing the command."""


COMMANDS: dict[str, LazyCommand] = {
    "data": LazyCommand(
        "cli.commands.data", "app", "Make and import multi-view datasets in the Real-IAD layout."
    ),
    "cache": LazyCommand("cli.commands.cache", "app", "Build, verify and inspect feature stores."),
    "train": LazyCommand(
        "cli.commands.train", "train", "Train from a feature store (or with the live encoder)."
    ),
    "import-weights": LazyCommand(
        "cli.commands.import_weights",
        "import_weights",
        "Make a finished run of a checkpoint that the method's authors published or that their code wrote.",
    ),
    "eval": LazyCommand(
        "cli.commands.eval",
        "evaluate",
        "Write predictions.h5 and metrics.json for all the run's categories; the last epoch's weights are "
        "used.",
    ),
    "baseline": LazyCommand(
        "cli.commands.baseline",
        "baseline",
        "Fit a memory to the run's store and training samples, evaluate it, and compare the run with it.",
    ),
    "fuse": LazyCommand(
        "cli.commands.fuse",
        "fuse_runs",
        "Fuse the scores and maps of runs, e.g. of color and of depth, by their weighted mean on one scale.",
    ),
    "sweep": LazyCommand("cli.commands.sweep", "app", "Evaluate a trained run with views missing."),
    "runs": LazyCommand("cli.commands.runs", "runs", "List runs with their state and mean metrics."),
    "predict": LazyCommand(
        "cli.commands.predict",
        "predict_images",
        "Score photographs of parts and mark where they are anomalous.",
    ),
    "export": LazyCommand(
        "cli.commands.export",
        "export_run",
        "Write one file for each category: preprocessing, teacher, student and scores in one graph.",
    ),
    "report": LazyCommand(
        "cli.commands.report",
        "report",
        "Write report.html: decisions, metrics, charts, and anomaly maps of selected samples.",
    ),
    "app": LazyCommand(
        "cli.commands.app",
        "serve_page",
        "Serve a page that scores photographs: switch cameras off, move the threshold, view anomaly maps.",
    ),
    "demo": LazyCommand(
        "cli.commands.demo",
        "demo",
        "Render parts, cache the teacher, fit a memory, train IDIF, compare both, and write a report.",
    ),
    "doctor": LazyCommand(
        "cli.commands.doctor",
        "diagnose",
        "Check that this machine has what a run needs; exit code 1 if a run would fail.",
    ),
}
"""Name -> command, in the order of a typical workflow."""


class LazyGroup(HelpGroup):
    """A group whose commands are placeholders until one is invoked, asked for its help or completed."""

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[str | None, Command, list[str]]:
        """Import the command that ``args`` begin with; returns it with its remaining arguments."""
        name, placeholder, rest = super().resolve_command(ctx, args)
        command = placeholder if name is None else load_command(name)
        signals.begin()
        return name, command, rest


def load_command(name: str) -> Command:
    """Import a command or group of commands."""
    parent = _new_app()
    _add(parent, name)
    return typer.main.get_group(parent).commands[name]


def complete_app() -> typer.Typer:
    """The app with every command imported, for code that needs all options, e.g. the reference pages."""
    everything = _new_app()
    for name in COMMANDS:
        _add(everything, name)
    return everything


def _new_app(cls: type[TyperGroup] = HelpGroup, *, completion: bool = False) -> typer.Typer:
    return CommandGroup(
        name="idif",
        cls=cls,
        help="Multi-view anomaly detection: cache a frozen encoder once, train from the cache.",
        no_args_is_help=True,
        add_completion=completion,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )


def _add(parent: typer.Typer, name: str) -> None:
    command = COMMANDS[name]
    loaded = getattr(import_module(command.module), command.attribute)
    if isinstance(loaded, typer.Typer):
        parent.add_typer(loaded, name=name)
    else:
        parent.command(name)(loaded)


def _placeholder() -> None:
    """Placeholder for a command in the list of commands; never called."""


def _show_version(wanted: bool) -> None:
    if wanted:
        out.print(f"idif {__version__}")
        raise typer.Exit


app = _new_app(LazyGroup, completion=True)
for _name, _command in COMMANDS.items():
    app.command(_name, help=_command.summary)(_placeholder)


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    pass
