"""`idif data`: make, import and check multi-view datasets."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from cli.commands import data_check
from cli.terminal.console import JsonOption, note, print_result, progress_bar

if TYPE_CHECKING:
    from idif.datasets.realiad.writer import ImportSummary

CategoryOption = Annotated[list[str], typer.Option("--category", help="Only these; may be repeated.")]
PreviewOption = Annotated[
    bool, typer.Option("--preview", help="Also write a contact sheet for each category to OUT/preview.")
]

app = typer.Typer(help="Make and import multi-view datasets in the Real-IAD layout.", no_args_is_help=True)
import_app = typer.Typer(help="Bring other data into the Real-IAD layout.", no_args_is_help=True)
app.add_typer(import_app, name="import")
app.add_typer(data_check.app, name="check")


@app.command()
def synth(
    out: Annotated[Path, typer.Argument(help="Folder to make.")],
    categories: Annotated[int, typer.Option(help="Kinds of part.", min=1)] = 3,
    train: Annotated[int, typer.Option(help="Training samples per category.", min=1)] = 32,
    test: Annotated[int, typer.Option(help="Test samples per category.", min=2)] = 32,
    size: Annotated[int, typer.Option(help="Image side in pixels.", min=64)] = 256,
    seed: Annotated[int, typer.Option(help="Same seed, same bytes.", min=0)] = 0,
    difficulty: Annotated[
        Literal["easy", "medium", "hard", "mixed"],
        typer.Option(help="How hard the defects are to see; mixed: each level in turn."),
    ] = "mixed",
    workers: Annotated[
        int | None, typer.Option(help="Processes; one per core, at most 8, by default.", min=1)
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Render a multi-view dataset of manufactured parts with defects.

    Examples:

        idif data synth data/synth --categories 2 --train 24 --test 24 --size 128

        idif data synth data/hard --categories 12 --difficulty hard
    """
    from idif.datasets.synthetic import synthesise

    with progress_bar("rendering", "samples") as listen:
        summary = synthesise(
            out,
            categories=categories,
            train=train,
            test=test,
            size=size,
            seed=seed,
            difficulty=difficulty,
            workers=workers,
            progress=listen,
        )
    levels = ", ".join(f"{count} {level}" for level, count in summary.levels.items() if count)
    defects = ", ".join(f"{kind} {count}" for kind, count in sorted(summary.defects.items()))
    print_result(
        asdict(summary) | {"root": str(summary.root)},
        as_json=as_json,
        otherwise=(
            f"{out}: {', '.join(summary.categories)}, each with {summary.train} training and "
            f"{summary.test} test samples; {summary.anomalous} are anomalous ({levels}), seen in "
            f"{summary.anomalous_views} of {summary.views} views ({defects})\n"
            f"next: idif cache build realiad --root {out} --images {summary.images} --store STORE"
        ),
    )


def _preview(summary: "ImportSummary", size: int) -> None:
    from idif.datasets.contact_sheet import write_previews

    for path in write_previews(Path(summary.out), images=f"realiad_{size}", categories=summary.categories):
        note(f"preview: {path}")


def _finish(summary: "ImportSummary", size: int, preview: bool, as_json: bool) -> None:
    """The end of an import of scans: contact sheets where asked for, and what there is now."""
    if preview:
        _preview(summary, size)
    kept = f"; already there: {', '.join(summary.kept)}" if summary.kept else ""
    print_result(
        asdict(summary),
        as_json=as_json,
        otherwise=(
            f"{summary.out}: {', '.join(summary.categories)}; {summary.train_samples} training and "
            f"{summary.test_samples} test samples, {summary.images} images, {summary.masks} masks{kept}"
        ),
    )


@import_app.command()
def mvtec3d(
    src: Annotated[Path, typer.Argument(help="MVTec 3D-AD: a folder per category.")],
    out: Annotated[Path, typer.Argument(help="Folder to make.")],
    category: CategoryOption = [],  # noqa: B006
    size: Annotated[int, typer.Option(help="Image side in pixels.", min=64)] = 256,
    views: Annotated[int, typer.Option(help="Cameras: one above, the rest tilted around it.", min=1)] = 5,
    background: Annotated[
        Literal["remove", "keep"], typer.Option(help="The plane the object lies on.")
    ] = "remove",
    align: Annotated[bool, typer.Option(help="Turn every object the same way.")] = True,
    modality: Annotated[
        Literal["rgb", "depth", "both"],
        typer.Option(help="What the cameras take; both: depth as views after the RGB ones."),
    ] = "rgb",
    preview: PreviewOption = False,
    as_json: JsonOption = False,
) -> None:
    """Render views of MVTec 3D-AD's organised point clouds, masks along with them.

    Example:

        idif data import mvtec3d mvtec_3d_anomaly_detection data/mvtec3d --category cable_gland

        idif data import mvtec3d mvtec_3d_anomaly_detection data/mvtec3d-depth --modality depth
    """
    from idif.datasets.scans.mvtec3d import import_mvtec3d

    with progress_bar("rendering", "scans") as listen:
        summary = import_mvtec3d(
            src,
            out,
            categories=category,
            size=size,
            background=background,
            align=align,
            views=views,
            modality=modality,
            progress=listen,
        )
    _finish(summary, size, preview, as_json)


@import_app.command()
def eyecandies(
    src: Annotated[Path, typer.Argument(help="Eyecandies: a folder per category.")],
    out: Annotated[Path, typer.Argument(help="Folder to make.")],
    category: CategoryOption = [],  # noqa: B006
    size: Annotated[int, typer.Option(help="Image side in pixels.", min=64)] = 256,
    views: Annotated[int, typer.Option(help="Cameras: one above, the rest tilted around it.", min=1)] = 5,
    align: Annotated[bool, typer.Option(help="Turn every object the same way.")] = True,
    modality: Annotated[
        Literal["rgb", "normals", "both"],
        typer.Option(help="What the cameras take; both: normals as views after the RGB ones."),
    ] = "rgb",
    light: Annotated[int, typer.Option(help="Which of the six pictures under different lights.")] = 0,
    preview: PreviewOption = False,
    as_json: JsonOption = False,
) -> None:
    """Render views of Eyecandies' depth maps, masks along with them. Uses train and test_public.

    Example:

        idif data import eyecandies Eyecandies data/eyecandies --category Lollipop --modality both
    """
    from idif.datasets.scans.eyecandies import import_eyecandies

    with progress_bar("rendering", "samples") as listen:
        summary = import_eyecandies(
            src,
            out,
            categories=category,
            size=size,
            align=align,
            views=views,
            modality=modality,
            light=light,
            progress=listen,
        )
    _finish(summary, size, preview, as_json)


@import_app.command()
def folder(
    src: Annotated[Path, typer.Argument(help="A folder per category, each with train/good and test/...")],
    out: Annotated[Path, typer.Argument(help="Folder to make.")],
    category: CategoryOption = [],  # noqa: B006
    pattern: Annotated[
        str | None, typer.Option(help="How a file name tells sample and view, e.g. '{sample}_{view}'.")
    ] = None,
    views: Annotated[
        int | None, typer.Option(help="How many views there must be; any number by default.", min=1)
    ] = None,
    size: Annotated[int, typer.Option(help="Image side in pixels.", min=32)] = 256,
    preview: PreviewOption = False,
    as_json: JsonOption = False,
) -> None:
    """Bring photographs in the layout of MVTec AD or VisA's one-class split, with masks or without.

    Examples:

        idif data import folder photographs data/mine

        idif data import folder line-7 data/line7 --category housing --pattern '{sample}_{view}.png'
    """
    from idif.data.decode import decode_threads
    from idif.datasets.folder.importer import import_folder

    with progress_bar("reading", "samples") as listen:
        summary = import_folder(
            src,
            out,
            categories=category,
            pattern=pattern,
            views=views,
            size=size,
            workers=decode_threads(),
            progress=listen,
        )
    if preview:
        _preview(summary, size)
    cameras = ", ".join(f"{number} = {name}" for number, name in summary.cameras.items())
    masks = f"{summary.masks} masks" if summary.masks else "no masks, so pixel metrics will be null"
    print_result(
        asdict(summary),
        as_json=as_json,
        otherwise=(
            f"{out}: {', '.join(summary.categories)}; {summary.train_samples} training and "
            f"{summary.test_samples} test samples, {summary.images} images, {masks}; views: {cameras}\n"
            f"next: idif data check realiad --root {out} --images realiad_{size}"
        ),
    )
