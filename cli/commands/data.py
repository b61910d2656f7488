"""`idif data`: make, import and check datasets."""

import re
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from cli.commands import data_check
from cli.terminal.console import JsonOption, note, print_result, progress_bar
from cli.terminal.help import CommandGroup

if TYPE_CHECKING:
    from idif.datasets.folder.importer import FolderSummary
    from idif.datasets.realiad.writer import ImportRequest, ImportSummary

CategoryOption = Annotated[
    list[str], typer.Option("--category", help="Category to import, all by default; may be repeated.")
]
ImportSizeOption = Annotated[
    str,
    typer.Option(
        metavar="NUMBER|original",
        help="Image side in pixels, 32 to 4096; original: copy the files, so that a store resizes them.",
    ),
]
PreviewOption = Annotated[
    bool, typer.Option("--preview", help="Also write a contact sheet for each category to OUT/preview.")
]

app = CommandGroup(help="Make and import multi-view datasets in the Real-IAD layout.", no_args_is_help=True)
import_app = CommandGroup(help="Import other data into the Real-IAD layout.", no_args_is_help=True)
app.add_typer(import_app, name="import")
app.add_typer(data_check.app, name="check")


@app.command()
def synth(
    out: Annotated[Path, typer.Argument(help="Folder to write.")],
    categories: Annotated[int, typer.Option(help="Number of kinds of part.", min=1)] = 3,
    train: Annotated[int, typer.Option(help="Training samples per category.", min=1)] = 32,
    test: Annotated[int, typer.Option(help="Test samples per category.", min=2)] = 32,
    size: Annotated[int, typer.Option(help="Image side in pixels.", min=64)] = 256,
    seed: Annotated[int, typer.Option(help="Random seed; the same seed gives the same bytes.", min=0)] = 0,
    difficulty: Annotated[
        Literal["easy", "medium", "hard", "mixed"],
        typer.Option(help="How hard the defects are to see; mixed uses each level in turn."),
    ] = "mixed",
    workers: Annotated[
        int | None, typer.Option(help="Number of processes; by default one per core, at most 8.", min=1)
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Render a multi-view dataset of manufactured parts with defects. Needs the extra `synthetic`.

    Examples:

        idif data synth data/synth --categories 2 --train 24 --test 24 --size 128

        idif data synth data/hard --categories 12 --difficulty hard
    """
    from idif.datasets.synthetic import SynthRequest, synthesize

    with progress_bar("rendering", "samples") as listen:
        summary = synthesize(
            out,
            SynthRequest(
                categories=categories, train=train, test=test, size=size, seed=seed, difficulty=difficulty
            ),
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


@app.command("synth-weld")
def synth_weld(
    out: Annotated[Path, typer.Argument(help="Folder to write.")],
    runs: Annotated[int, typer.Option(help="Number of runs.", min=8)] = 200,
    seed: Annotated[int, typer.Option(help="Random seed; the same seed gives the same bytes.", min=0)] = 0,
    workers: Annotated[
        int | None, typer.Option(help="Number of threads; by default one per core, at most 8.", min=1)
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Simulate good and defective weld runs: video, sound, sensor values, stills. Needs the extra `weld`.

    Each defect shows in some inputs; in every other one the run equals a good run.

    Example:

        idif data synth-weld data/weld --runs 200
    """
    from idif.datasets.weld.synthetic.dataset import SynthWeldRequest, synthesize_weld

    with progress_bar("simulating", "runs") as listen:
        summary = synthesize_weld(
            out, SynthWeldRequest(runs=runs, seed=seed), workers=workers, progress=listen
        )
    splits = ", ".join(f"{count} in {split}" for split, count in summary.runs.items())
    defects = ", ".join(f"{name} {count}" for name, count in summary.defects.items())
    print_result(
        asdict(summary),
        as_json=as_json,
        otherwise=(
            f"{out}: {splits} ({defects})\n"
            f"next: idif cache build weld --root {out} --store STORE --encoder weld-small "
            "--teacher-weights untrained --no-store-images"
        ),
    )


def _import_size(text: str) -> int | None:
    """The size of an import; None: the photographs' own."""
    from idif.datasets.realiad.files import ORIGINAL

    if text == ORIGINAL:
        return None
    if not re.fullmatch("[0-9]{1,6}", text):
        raise typer.BadParameter(f"--size: expected a number of pixels or {ORIGINAL}, got {text!r}")
    return int(text)


def _write_previews(request: "ImportRequest", summary: "ImportSummary") -> None:
    """Write the contact sheets of the imported categories."""
    from idif.datasets.contact_sheet import write_previews

    for path in write_previews(request.target, summary.categories):
        note(f"preview: {path}")


def _report_scans(request: "ImportRequest", summary: "ImportSummary", preview: bool, as_json: bool) -> None:
    """Write the contact sheets where asked for, and print the summary of an import of scans."""
    if preview:
        _write_previews(request, summary)
    kept = f"; already there: {', '.join(summary.kept)}" if summary.kept else ""
    print_result(
        asdict(summary),
        as_json=as_json,
        otherwise=(
            f"{summary.out}: {', '.join(summary.categories)}; {summary.train_samples} training and "
            f"{summary.test_samples} test samples, {summary.images} images, {summary.masks} masks{kept}"
        ),
    )


def _report_photographs(
    request: "ImportRequest", summary: "FolderSummary", preview: bool, as_json: bool
) -> None:
    """Write the contact sheets where asked for, and print the summary of an import of photographs."""
    if preview:
        _write_previews(request, summary)
    if summary.taken_as_defects:
        note(f"note: folders taken as defects: {', '.join(summary.taken_as_defects)}")
    for sentence in (summary.left_out, summary.chosen_split):
        if sentence is not None:
            note(f"note: {sentence}")
    if summary.grey_masks:
        note(
            f"note: {summary.grey_masks} of {summary.masks} masks have grey values between black and white; "
            "from half of the brightest on they mark the defect (see docs/data.md)"
        )
    cameras = ", ".join(f"{number} = {name}" for number, name in summary.cameras.items())
    views = f"; views: {cameras}" if len(summary.cameras) > 1 else ""
    masks = f"{summary.masks} masks" if summary.masks else "no masks, so pixel metrics will be null"
    print_result(
        asdict(summary),
        as_json=as_json,
        otherwise=(
            f"{summary.out}: {', '.join(summary.categories)}; {summary.train_samples} training and "
            f"{summary.test_samples} test samples, {summary.images} images, {masks}{views}\n"
            f"next: idif data check realiad --root {summary.out} --images {request.target.images}"
        ),
    )


@import_app.command()
def mvtec3d(
    src: Annotated[Path, typer.Argument(help="Folder of MVTec 3D-AD, with one folder per category.")],
    out: Annotated[Path, typer.Argument(help="Folder to write.")],
    category: CategoryOption = [],  # noqa: B006
    size: Annotated[int, typer.Option(help="Image side in pixels.", min=64)] = 256,
    views: Annotated[int, typer.Option(help="Cameras: one above, the rest tilted around it.", min=1)] = 5,
    background: Annotated[
        Literal["remove", "keep"],
        typer.Option(help="Whether to remove the plane that the object lies on."),
    ] = "remove",
    align: Annotated[bool, typer.Option(help="Align all objects to one pose.")] = True,
    modality: Annotated[
        Literal["rgb", "depth", "both"],
        typer.Option(help="Kind of picture; both: depth as views after the RGB ones."),
    ] = "rgb",
    preview: PreviewOption = False,
    as_json: JsonOption = False,
) -> None:
    """Render views, with masks, of MVTec 3D-AD's organized point clouds.

    Examples:

        idif data import mvtec3d mvtec_3d_anomaly_detection data/mvtec3d --category cable_gland

        idif data import mvtec3d mvtec_3d_anomaly_detection data/mvtec3d-depth --modality depth
    """
    from idif.datasets.realiad.writer import ImportRequest
    from idif.datasets.scans.mvtec3d import import_mvtec3d

    request = ImportRequest(src, out, categories=category, size=size)
    with progress_bar("rendering", "scans") as listen:
        summary = import_mvtec3d(
            request,
            background=background,
            align=align,
            views=views,
            modality=modality,
            progress=listen,
        )
    _report_scans(request, summary, preview, as_json)


@import_app.command()
def eyecandies(
    src: Annotated[Path, typer.Argument(help="Folder of Eyecandies, with one folder per category.")],
    out: Annotated[Path, typer.Argument(help="Folder to write.")],
    category: CategoryOption = [],  # noqa: B006
    size: Annotated[int, typer.Option(help="Image side in pixels.", min=64)] = 256,
    views: Annotated[int, typer.Option(help="Cameras: one above, the rest tilted around it.", min=1)] = 5,
    align: Annotated[bool, typer.Option(help="Align all objects to one pose.")] = True,
    modality: Annotated[
        Literal["rgb", "normals", "both"],
        typer.Option(help="Kind of picture; both: surface normals as views after the RGB ones."),
    ] = "rgb",
    light: Annotated[
        int, typer.Option(help="Number of the light, 0 to 5: one of six pictures of each object.")
    ] = 0,
    preview: PreviewOption = False,
    as_json: JsonOption = False,
) -> None:
    """Render views, with masks, of Eyecandies' depth maps. Uses train and test_public.

    Example:

        idif data import eyecandies Eyecandies data/eyecandies --category Lollipop --modality both
    """
    from idif.datasets.realiad.writer import ImportRequest
    from idif.datasets.scans.eyecandies import import_eyecandies

    request = ImportRequest(src, out, categories=category, size=size)
    with progress_bar("rendering", "samples") as listen:
        summary = import_eyecandies(
            request,
            align=align,
            views=views,
            modality=modality,
            light=light,
            progress=listen,
        )
    _report_scans(request, summary, preview, as_json)


@import_app.command()
def folder(
    src: Annotated[
        Path,
        typer.Argument(
            help="Folder of one category, or of one folder each: with ok and ng, or train/good and test/..."
        ),
    ],
    out: Annotated[Path, typer.Argument(help="Folder to write.")],
    category: CategoryOption = [],  # noqa: B006
    pattern: Annotated[
        str | None, typer.Option(help="Position of sample and view in a file name, e.g. '{sample}_{view}'.")
    ] = None,
    views: Annotated[
        int | None, typer.Option(help="Number of views that must be found; any number by default.", min=1)
    ] = None,
    size: ImportSizeOption = "256",
    test_share: Annotated[
        float | None,
        typer.Option(
            help="Share of good parts for testing, where ok and ng are not split.",
            min=0,
            max=0.9,
            show_default="0.2",
        ),
    ] = None,
    seed: Annotated[
        int | None, typer.Option(help="Which good parts these are.", min=0, show_default="0")
    ] = None,
    preview: PreviewOption = False,
    as_json: JsonOption = False,
) -> None:
    """Import photographs sorted into good and bad, or split as in MVTec AD, with masks or without.

    A folder of good parts (ok, good, normal, ...) beside bad ones (ng, bad, or a folder for each defect) is
    split: bad parts are for testing, and a share of the good ones, chosen by a hash of their names.

    Examples:

        idif data import folder photographs data/mine

        idif data import folder line-7/sorted data/line7 --test-share 0.3

        idif data import folder mvtec_anomaly_detection data/mvtec --size original

        idif data import folder line-7 data/line7 --category housing --pattern '{sample}_{view}.png'
    """
    from idif.data.decode import decode_threads
    from idif.datasets.folder.importer import import_folder
    from idif.datasets.folder.sorted_layout import TestShare
    from idif.datasets.realiad.writer import ImportRequest

    request = ImportRequest(src, out, categories=category, size=_import_size(size))
    test = None
    if test_share is not None or seed is not None:
        test = TestShare(TestShare().share if test_share is None else test_share, seed or 0)
    with progress_bar("reading", "samples") as listen:
        summary = import_folder(
            request,
            pattern=pattern,
            views=views,
            test=test,
            workers=decode_threads(),
            progress=listen,
        )
    _report_photographs(request, summary, preview, as_json)


@import_app.command()
def visa(
    src: Annotated[Path, typer.Argument(help="Folder of VisA, with split_csv and one folder per category.")],
    out: Annotated[Path, typer.Argument(help="Folder to write.")],
    category: CategoryOption = [],  # noqa: B006
    split_file: Annotated[
        str, typer.Option("--split", help="Split to import, relative to SRC.")
    ] = "split_csv/1cls.csv",
    views: Annotated[
        int | None, typer.Option(help="Number of views that must be found; VisA has one.", min=1)
    ] = None,
    size: ImportSizeOption = "256",
    preview: PreviewOption = False,
    as_json: JsonOption = False,
) -> None:
    """Import VisA by its split file, with masks; the class of a defect comes from image_anno.csv.

    Examples:

        idif data import visa VisA_20220922 data/visa

        idif data import visa VisA_20220922 data/visa-224 --category candle --size 224
    """
    from idif.data.decode import decode_threads
    from idif.datasets.folder.visa import import_visa
    from idif.datasets.realiad.writer import ImportRequest

    request = ImportRequest(src, out, categories=category, size=_import_size(size))
    with progress_bar("reading", "samples") as listen:
        summary = import_visa(
            request, split_file=split_file, views=views, workers=decode_threads(), progress=listen
        )
    _report_photographs(request, summary, preview, as_json)
