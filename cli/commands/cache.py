"""`idif cache`: phase one, and what can be asked of a store."""

from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from rich.table import Table

from cache import FeatureStore
from cache.building.build import BuildReport, build_store
from cache.checking.verify import verify_store
from cache.cost_estimate import plan_store
from cache.format.object_store import store_path
from cache.hdf5 import export_store, import_store
from cache.reading.open_groups import list_groups, store_bytes
from cache.remote.upload import build_remote
from cli.terminal.cache_plan import plan_table, plan_words
from cli.terminal.console import JsonOption, note, out, print_result, progress_bar
from cli.workflow.device import evaluation_device, join_team, processes_here
from idif.data.decode import decode_threads
from idif.datasets.contamination import contamination
from idif.datasets.realiad.reader import read_realiad
from idif.encoders.frozen import load_encoder
from idif.errors import StoreError

app = typer.Typer(help="Build, verify and inspect feature stores.", no_args_is_help=True)
build_app = typer.Typer(
    help="Phase one: run the frozen encoder once over clean images.", no_args_is_help=True
)
app.add_typer(build_app, name="build")
plan_app = typer.Typer(help="What a store would cost here, and when it pays.", no_args_is_help=True)
app.add_typer(plan_app, name="plan")

StoreArgument = Annotated[str, typer.Argument(help="The store: a folder or s3://BUCKET/PREFIX.")]
CategoryOption = Annotated[list[str], typer.Option("--category", help="Only these; may be repeated.")]
ImagesOption = Annotated[str, typer.Option(help="Folder of the images below the root.")]
AnnotationsOption = Annotated[str, typer.Option(help="Folder of the annotations below the root.")]
DropOption = Annotated[bool, typer.Option("--drop-incomplete", help="Leave out samples that lack a view.")]


DtypeOption = Annotated[
    Literal["float16", "uint8"],
    typer.Option(help="Type the features are kept in; uint8 takes half the room."),
]
SizeOption = Annotated[int, typer.Option(help="Side of the square images, a multiple of 16.", min=32)]
WeightsOption = Annotated[str, typer.Option(help="imagenet, untrained, or a .safetensors or .pth file.")]


def _local(store: str, why: str) -> Path:
    place = store_path(store)
    if not isinstance(place, Path):
        raise StoreError(f"{place}: {why}; expected a folder")
    return place


@build_app.callback()
def _build() -> None:
    pass


@plan_app.callback()
def _plan() -> None:
    pass


@build_app.command("realiad")
def build_realiad(
    root: Annotated[Path, typer.Option(help="Dataset in the Real-IAD layout.")],
    store: Annotated[
        str, typer.Option(help="The store to make, continue or add to: a folder or s3://BUCKET/PREFIX.")
    ],
    category: CategoryOption = [],  # noqa: B006
    split: Annotated[Literal["train", "test", "all"], typer.Option(help="Which samples.")] = "all",
    dtype: DtypeOption = "float16",
    image_size: SizeOption = 256,
    teacher_weights: WeightsOption = "imagenet",
    images: ImagesOption = "realiad_256",
    annotations: AnnotationsOption = "realiad_jsons",
    drop_incomplete: DropOption = False,
    staging: Annotated[
        Path, typer.Option(help="Folder where a store for s3:// is built before it is published.")
    ] = Path("stores/staging"),
    as_json: JsonOption = False,
) -> None:
    """Run the frozen teacher over the clean images once. Continues where an earlier build stopped.

    Examples:

        idif cache build realiad --root data/Real-IAD --store stores/realiad.zarr

        idif cache build realiad --root data/mvtec3d --store stores/gland.zarr --category cable_gland

        idif cache build realiad --root data/Real-IAD --store s3://features/realiad.zarr

        torchrun --nproc-per-node 4 -m cli cache build realiad --root data/Real-IAD --store stores/all.zarr
    """
    place = store_path(store)
    index = read_realiad(
        root,
        images=images,
        annotations=annotations,
        categories=category,
        split=None if split == "all" else split,
        drop_incomplete=drop_incomplete,
    )
    encoder = load_encoder(teacher_weights)
    with join_team() as team:
        if encoder.weights == "untrained" and team.first:
            note("note: the teacher is an untrained, seeded random network, not ImageNet's")
        if (dirty := contamination(index.samples)) is not None and team.first:
            note(f"note: {dirty}; they are kept like the others")
        with progress_bar("building", "views", show=team.first) as listen:
            make: Callable[..., BuildReport] = (
                build_store if isinstance(place, Path) else partial(build_remote, staging=staging)
            )
            report = make(
                root,
                index,
                place,
                encoder,
                image_size=image_size,
                storage=dtype,
                workers=max(1, decode_threads() // processes_here()),
                device=evaluation_device(),
                team=team,
                progress=listen,
            )
    if not team.first:
        return
    if report.shards_encoded == 0:
        summary = f"{place}: complete already, nothing to do ({', '.join(report.groups)})"
    else:
        rate = report.views_encoded / max(report.seconds, 1e-9)
        summary = (
            f"{place}: {report.views_encoded:,} views encoded in {report.seconds:.1f} s "
            f"({rate:.1f} views/s), {report.bytes_written / 1e6:,.1f} MB; "
            f"{report.shards_kept} shards kept from before"
        )
    print_result({"store": str(place), **asdict(report)}, as_json=as_json, otherwise=summary)


@plan_app.command("realiad")
def plan_realiad(
    root: Annotated[Path, typer.Option(help="Dataset in the Real-IAD layout.")],
    store: Annotated[
        str, typer.Option(help="Where the store would lie; that disk is measured, nothing is left there.")
    ] = "stores/store.zarr",
    category: CategoryOption = [],  # noqa: B006
    dtype: DtypeOption = "float16",
    image_size: SizeOption = 256,
    teacher_weights: WeightsOption = "untrained",
    images: ImagesOption = "realiad_256",
    annotations: AnnotationsOption = "realiad_jsons",
    as_json: JsonOption = False,
) -> None:
    """Build and read a store of a few samples, and say what the whole would cost and when it pays.

    Weights do not change the speed, so any will do.

    Example:

        idif cache plan realiad --root data/Real-IAD --store stores/realiad.zarr
    """
    index = read_realiad(root, images=images, annotations=annotations, categories=category)
    encoder = load_encoder(teacher_weights)
    folder = _local(store, "a plan measures a disk of this machine").resolve().parent
    while not folder.is_dir():
        folder = folder.parent
    with progress_bar("measuring", "steps") as listen:
        plan = plan_store(
            root,
            index,
            folder,
            encoder,
            image_size=image_size,
            storage=dtype,
            device=evaluation_device(),
            progress=listen,
        )
    value = {"store": str(store), "storage": dtype, "image_size": image_size, "fits": plan.fits}
    print_result(value | asdict(plan), as_json=as_json, otherwise=plan_table(plan, str(store)))
    if not as_json:
        for line in plan_words(plan):
            out.print(line, soft_wrap=True)


@app.command()
def verify(
    store: StoreArgument,
    root: Annotated[
        Path | None, typer.Option(help="Dataset it was built from: also check that the data are the same.")
    ] = None,
    deep: Annotated[bool, typer.Option("--deep", help="Encode a sample of rows again and compare.")] = False,
    repair: Annotated[bool, typer.Option("--repair", help="Rebuild damaged shards (needs --root).")] = False,
    images: ImagesOption = "realiad_256",
    annotations: AnnotationsOption = "realiad_jsons",
    drop_incomplete: DropOption = False,
    as_json: JsonOption = False,
) -> None:
    """Read everything a store holds and compare it with what was written.

    Examples:

        idif cache verify stores/realiad.zarr

        idif cache verify stores/realiad.zarr --deep --root data/Real-IAD
    """
    if repair and root is None:
        raise typer.BadParameter("--repair reads images again: name the dataset with --root")
    index = None
    place = store_path(store)
    if not place.is_dir():
        raise StoreError(f"{place}: there is no store; expected one made by `idif cache build`")
    if root is not None:
        categories = sorted({group.category for group in list_groups(place)})
        index = read_realiad(
            root,
            images=images,
            annotations=annotations,
            categories=categories,
            drop_incomplete=drop_incomplete,
        )
    with progress_bar("verifying", "bytes") as listen:
        report = verify_store(place, root=root, index=index, deep=deep, repair=repair, progress=listen)
    for problem in report.problems:
        note(f"found: {problem}")
    verdict = "sound" if report.sound else f"{len(report.problems)} problems"
    value: dict[str, Any] = {"store": str(place), "sound": report.sound, **asdict(report)}
    print_result(
        value,
        as_json=as_json,
        otherwise=f"{place}: {verdict}; {report.files} files, {report.bytes / 1e6:,.1f} MB read",
    )
    if not report.sound:
        raise typer.Exit(1)


@app.command()
def export(
    store: StoreArgument,
    target: Annotated[Path, typer.Argument(metavar="OUT.h5", help="The file to make.")],
    as_json: JsonOption = False,
) -> None:
    """Write a store into one HDF5 file that plain h5py reads; every row is checked on the way.

    Example:

        idif cache export stores/realiad.zarr realiad.h5
    """
    place = store_path(store)
    with progress_bar("exporting", "samples") as listen:
        size = export_store(place, target, progress=listen)
    value = {"store": str(place), "file": str(target), "bytes": size}
    print_result(value, as_json=as_json, otherwise=f"{target}: {size / 1e6:,.1f} MB")


@app.command("import")
def import_(
    source: Annotated[Path, typer.Argument(metavar="IN.h5", help="A file that `cache export` wrote.")],
    store: Annotated[str, typer.Argument(help="The store to make, a folder.")],
    as_json: JsonOption = False,
) -> None:
    """Make a store again from an exported file: the same arrays, bytes and promises.

    Example:

        idif cache import realiad.h5 stores/realiad.zarr
    """
    folder = _local(store, "an import makes a store on this machine")
    with progress_bar("importing", "samples") as listen:
        samples = import_store(source, folder, progress=listen)
    value = {"store": str(store), "file": str(source), "samples": samples}
    print_result(value, as_json=as_json, otherwise=f"{store}: {samples} samples from {source}")


@app.command()
def info(
    store: StoreArgument,
    as_json: JsonOption = False,
) -> None:
    """What a store holds.

    Example:

        idif cache info stores/realiad.zarr
    """
    opened = FeatureStore.open(store)
    spec = opened.spec
    groups: list[dict[str, Any]] = []
    for category in opened.index.categories:
        for split in ("train", "test"):
            samples = [s for s in opened.index.samples if (s.category, s.split) == (category, split)]
            if samples:
                groups.append(
                    {
                        "category": category,
                        "split": split,
                        "samples": len(samples),
                        "views": sum(sum(s.present) for s in samples),
                        "anomalous": sum(s.label for s in samples),
                    }
                )
    size = store_bytes(opened.path)
    value = {
        "store": str(opened.path),
        "bytes": size,
        "fingerprint": opened.fingerprint,
        "view_numbers": list(opened.index.view_numbers),
        "spec": spec.to_json(),
        "groups": groups,
    }
    table = Table("category", "split", "samples", "views", "anomalous", title=str(opened.path))
    for group in groups:
        table.add_row(*(str(value) for value in group.values()))
    layers = ", ".join(layer.name for layer in spec.layers)
    table.caption = (
        f"{size / 1e6:,.1f} MB, {spec.encoder} ({spec.weights} weights {spec.weights_sha256[:12]}), "
        f"{layers} as {spec.storage}, {spec.image_size} px, cameras {list(opened.index.view_numbers)}"
    )
    print_result(value, as_json=as_json, otherwise=table)
    if not as_json:
        out.print(f"fingerprint {opened.fingerprint}")
