"""`idif export`: exports a trained run to files that do not require this project."""

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from cli.options import SetOption
from cli.terminal.console import JsonOption, note, print_result, progress_bar
from idif.errors import ConfigError
from idif.inference.export_file import SUFFIXES, Format, require_packages, write_deployment
from idif.runs.deployment import deployment_of
from idif.runs.run import open_run


def export_run(
    run: Annotated[Path, typer.Argument(help="A run's folder, or one category's folder inside it.")],
    kind: Annotated[Format, typer.Option("--format", help="File format.")] = "onnx",
    chosen: Annotated[
        list[str],
        typer.Option(
            "--category", metavar="C", help="Category to export, for runs with several; repeatable."
        ),
    ] = [],  # noqa: B006
    to: Annotated[Path | None, typer.Option("--out", help="Folder; the default is RUN/export.")] = None,
    overrides: SetOption = [],  # noqa: B006
    as_json: JsonOption = False,
) -> None:
    """Write one file for each category: preprocessing, teacher, student and scores in one graph.

    A file's inputs are images (uint8, [batch, views, 3, side, side], RGB, resized with Pillow's bilinear
    filter) and a view mask; its outputs are maps, view scores and sample scores. Its metadata contains views,
    size, thresholds and versions. Every file is checked against the run before it is published.

    Examples:

        idif export runs/realiad --category audiojack

        idif export runs/realiad --format torchscript --out graphs
    """
    require_packages(kind)
    opened = open_run(run, overrides)
    known = opened.known_categories()
    for category in chosen:
        if category not in known:
            raise ConfigError(f"--category {category}: the run has {', '.join(known)}")
    categories = [category for category in known if not chosen or category in chosen]
    folder = opened.results / "export" if to is None else to
    if folder.suffix in SUFFIXES.values():
        raise ConfigError(f"--out {folder}: expected a folder; it gets a file CATEGORY{folder.suffix}")
    table = Table("file", "category", "MB", "largest difference from the run")
    files: list[dict[str, Any]] = []
    with progress_bar("exporting", "files") as listen:
        for done, category in enumerate(categories):
            listen(done, len(categories), f"exporting {category}")
            path = folder / f"{category}{SUFFIXES[kind]}"
            difference = write_deployment(deployment_of(opened, category, note), path, kind)
            size = path.stat().st_size
            files.append({"path": str(path), "category": category, "bytes": size, "difference": difference})
            table.add_row(str(path), category, f"{size / 1e6:.1f}", f"{difference:.1e}")
    print_result({"format": kind, "files": files}, as_json=as_json, otherwise=table)
