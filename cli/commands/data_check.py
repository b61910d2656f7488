"""`idif data check`: read a dataset once and report its faults."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from cli.terminal.console import JsonOption, note, out, print_result, progress_bar
from cli.terminal.help import CommandGroup
from idif.datasets.checks.findings import ERRORS, WARNINGS, CheckReport, Finding
from idif.datasets.realiad.statistics import Counts

app = CommandGroup(help="Read a dataset once and report its faults.", no_args_is_help=True)

_MAX_SHOWN = 5
"""Findings of one kind that are printed; JSON holds all."""


@app.callback()
def _check() -> None:
    pass


@app.command("realiad")
def check_realiad(
    root: Annotated[Path, typer.Option(help="Dataset in the Real-IAD layout.")],
    category: Annotated[
        list[str], typer.Option("--category", help="Category to check, all by default; may be repeated.")
    ] = [],  # noqa: B006
    images: Annotated[
        str | None,
        typer.Option(
            help="Folder of the images below the root; by default realiad_256, or else the only one."
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
    from idif.datasets.realiad.files import DEFAULT_IMAGES, RealIADLayout, find_images

    if images is None:
        images = find_images(root)
        if images != DEFAULT_IMAGES:
            note(f"note: there is no {DEFAULT_IMAGES}; the images checked are those of {images}")
    with progress_bar("reading", "files") as listen:
        report = check_dataset(
            RealIADLayout(root, images=images, annotations=annotations),
            categories=category,
            workers=decode_threads(),
            progress=listen,
        )
    print_result(asdict(report) | {"sound": report.sound}, as_json=as_json, otherwise=_table(report))
    if not as_json:
        _print_findings(report.errors, ERRORS, "error")
        _print_findings(report.warnings, WARNINGS, "warning")
        known = "; the published counts of Real-IAD were compared" if report.whole else ""
        verdict = "sound" if report.sound else f"{len(report.errors):,} errors"
        out.print(Text(f"{verdict}, {len(report.warnings):,} warnings in {report.files:,} files{known}"))
    if not report.sound:
        raise typer.Exit(1)


@app.command("weld")
def check_weld(
    root: Annotated[Path, typer.Option(help="Dataset of weld runs, with manifest.csv.")],
    as_json: JsonOption = False,
) -> None:
    """Open every file of every run once, and list errors (exit code 1) and warnings (exit code 0).

    Example:

        idif data check weld --root data/weld
    """
    from idif.data.decode import decode_threads
    from idif.datasets.weld import check

    with progress_bar("reading", "runs") as listen:
        report = check.check_weld(root, workers=decode_threads(), progress=listen)
    table = Table("split", "runs", "defective", title=Text(report.root))
    for split, runs in report.runs.items():
        table.add_row(split, f"{runs:,}", f"{report.anomalous[split]:,}")
    print_result(asdict(report) | {"sound": report.sound}, as_json=as_json, otherwise=table)
    if not as_json:
        for severity, findings in (("error", report.errors), ("warning", report.warnings)):
            if findings:
                out.print(Text(f"{severity}: {len(findings):,}", style="bold"))
            for finding in findings[:_MAX_SHOWN]:
                where = "" if finding.run in finding.message else f"{finding.run}: "
                out.print(Text(f"  {where}{finding.message}"), soft_wrap=True)
            if len(findings) > _MAX_SHOWN:
                out.print(Text(f"  and {len(findings) - _MAX_SHOWN:,} more; --json lists all"))
        verdict = "sound" if report.sound else f"{len(report.errors):,} errors"
        out.print(Text(f"{verdict}, {len(report.warnings):,} warnings in {report.files:,} files"))
    if not report.sound:
        raise typer.Exit(1)


def _table(report: CheckReport) -> Table:
    """Table with one row per category.

    Columns: samples of each split and how many of them are anomalous (NG), images, images under ``NG/`` that
    are labeled OK, masks, and samples that lack a view (gaps).
    """
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


def _print_findings(findings: Sequence[Finding], kinds: dict[str, str], severity: str) -> None:
    for kind, description in kinds.items():
        of_kind = [finding for finding in findings if finding.kind == kind]
        if of_kind:
            out.print(Text(f"{severity}: {len(of_kind):,} {description}", style="bold"))
        for finding in of_kind[:_MAX_SHOWN]:
            where = finding.file or finding.category
            message = (
                finding.message if where in finding.message or not where else f"{where}: {finding.message}"
            )
            origin = "" if finding.source is None else f" (imported from {finding.source})"
            out.print(Text(f"  {message}{origin}"), soft_wrap=True)
        if len(of_kind) > _MAX_SHOWN:
            out.print(Text(f"  and {len(of_kind) - _MAX_SHOWN:,} more; --json lists all"))
