"""`idif data check`: read a dataset once and say what is wrong with it."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from cli.terminal.console import JsonOption, note, out, print_result, progress_bar
from idif.datasets.checks.findings import ERRORS, WARNINGS, CheckReport, Finding
from idif.datasets.realiad.statistics import Counts

app = typer.Typer(help="Read everything once and say what is wrong.", no_args_is_help=True)

_SHOWN = 5
"""Findings of a kind that are written out for people; JSON holds all."""


@app.callback()
def _check() -> None:
    pass


@app.command("realiad")
def check_realiad(
    root: Annotated[Path, typer.Option(help="Dataset in the Real-IAD layout.")],
    category: Annotated[list[str], typer.Option("--category", help="Only these; may be repeated.")] = [],  # noqa: B006
    images: Annotated[
        str | None,
        typer.Option(
            help="Folder of the images below the root; realiad_256 if not given, or the only one there is."
        ),
    ] = None,
    annotations: Annotated[
        str, typer.Option(help="Folder of the annotations below the root.")
    ] = "realiad_jsons",
    as_json: JsonOption = False,
) -> None:
    """Open every image and mask once, and list errors (exit code 1) and warnings (exit code 0).

    Examples:

        idif data check realiad --root data/Real-IAD

        idif data check realiad --root data/Real-IAD --annotations realiad_jsons_sv --category pcb --json
    """
    from idif.data.decode import decode_threads
    from idif.datasets.checks.dataset import check_dataset
    from idif.datasets.realiad.files import DEFAULT_IMAGES, find_images

    if images is None:
        images = find_images(root)
        if images != DEFAULT_IMAGES:
            note(f"note: there is no {DEFAULT_IMAGES}; the images checked are those of {images}")
    with progress_bar("reading", "files") as listen:
        report = check_dataset(
            root,
            images=images,
            annotations=annotations,
            categories=category,
            workers=decode_threads(),
            progress=listen,
        )
    print_result(asdict(report) | {"sound": report.sound}, as_json=as_json, otherwise=_table(report))
    if not as_json:
        _list(report.errors, ERRORS, "error")
        _list(report.warnings, WARNINGS, "warning")
        known = "; the published counts of Real-IAD were compared" if report.whole else ""
        verdict = "sound" if report.sound else f"{len(report.errors):,} errors"
        out.print(Text(f"{verdict}, {len(report.warnings):,} warnings in {report.files:,} files{known}"))
    if not report.sound:
        raise typer.Exit(1)


def _table(report: CheckReport) -> Table:
    """Samples of each split, how many are anomalous; images, those labelled OK under ``NG/``; masks; samples
    with a gap, that is without one of the views."""
    table = Table(title=Text(f"{report.root}: {report.images}, {report.annotations}"))
    table.add_column("category", no_wrap=True)
    for name in ("train", "NG", "test", "NG", "images", "OK in NG", "masks", "gaps"):
        table.add_column(name, justify="right")
    rows = dict(report.counts)
    if len(rows) > 1:
        rows["all"] = sum(report.counts.values(), Counts())
    for category, counts in rows.items():
        cells = (
            counts.train_samples,
            counts.train_anomalous,
            counts.test_samples,
            counts.test_anomalous,
            counts.train_images + counts.test_images,
            counts.hidden,
            counts.masks,
            counts.incomplete,
        )
        table.add_row(Text(category), *(f"{cell:,}" for cell in cells))
    return table


def _list(findings: Sequence[Finding], kinds: dict[str, str], what: str) -> None:
    for kind, words in kinds.items():
        of_kind = [finding for finding in findings if finding.kind == kind]
        if of_kind:
            out.print(Text(f"{what}: {len(of_kind):,} {words}", style="bold"))
        for finding in of_kind[:_SHOWN]:
            where = finding.file or finding.category
            message = (
                finding.message if where in finding.message or not where else f"{where}: {finding.message}"
            )
            out.print(Text(f"  {message}"), soft_wrap=True)
        if len(of_kind) > _SHOWN:
            out.print(Text(f"  and {len(of_kind) - _SHOWN:,} more; --json lists all"))
