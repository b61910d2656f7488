"""`idif cache`: phase one, and what can be asked of a store."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from rich.table import Table

from cache import FeatureStore
from cache.build import build_store
from cache.opening import list_groups
from cache.verify import verify_store
from cli.console import JsonOption, emit, out, progress_bar, say
from cli.device import evaluation_device
from idif.datasets.realiad import read_realiad
from idif.encoders import load_encoder
from idif.errors import StoreError

app = typer.Typer(help="Build, verify and inspect feature stores.", no_args_is_help=True)
build_app = typer.Typer(
    help="Phase one: run the frozen encoder once over clean images.", no_args_is_help=True
)
app.add_typer(build_app, name="build")

CategoryOption = Annotated[list[str], typer.Option("--category", help="Only these; may be repeated.")]
ImagesOption = Annotated[str, typer.Option(help="Folder of the images below the root.")]
AnnotationsOption = Annotated[str, typer.Option(help="Folder of the annotations below the root.")]
DropOption = Annotated[bool, typer.Option("--drop-incomplete", help="Leave out samples that lack a view.")]


@build_app.callback()
def _build() -> None:
    pass


@build_app.command("realiad")
def build_realiad(
    root: Annotated[Path, typer.Option(help="Dataset in the Real-IAD layout.")],
    store: Annotated[Path, typer.Option(help="The store to make, continue or add to.")],
    category: CategoryOption = [],  # noqa: B006
    split: Annotated[Literal["train", "test", "all"], typer.Option(help="Which samples.")] = "all",
    dtype: Annotated[
        Literal["float16", "uint8"], typer.Option(help="Type the features are kept in.")
    ] = "float16",
    image_size: Annotated[
        int, typer.Option(help="Side of the square images, a multiple of 16.", min=32)
    ] = 256,
    teacher_weights: Annotated[
        str, typer.Option(help="imagenet, untrained, or a .safetensors or .pth file.")
    ] = "imagenet",
    images: ImagesOption = "realiad_256",
    annotations: AnnotationsOption = "realiad_jsons",
    drop_incomplete: DropOption = False,
    as_json: JsonOption = False,
) -> None:
    """Run the frozen teacher over the clean images once. Continues where an earlier build stopped.

    Examples:

        idif cache build realiad --root data/Real-IAD --store stores/realiad.zarr

        idif cache build realiad --root data/mvtec3d --store stores/gland.zarr --category cable_gland
    """
    index = read_realiad(
        root,
        images=images,
        annotations=annotations,
        categories=category,
        split=None if split == "all" else split,
        drop_incomplete=drop_incomplete,
    )
    encoder = load_encoder(teacher_weights)
    if encoder.weights == "untrained":
        say("note: the teacher is an untrained, seeded random network, not ImageNet's")
    with progress_bar("building", "views") as listen:
        report = build_store(
            root,
            index,
            store,
            encoder,
            image_size=image_size,
            storage=dtype,
            device=evaluation_device(),
            progress=listen,
        )
    if report.shards_encoded == 0:
        summary = f"{store}: complete already, nothing to do ({', '.join(report.groups)})"
    else:
        rate = report.views_encoded / max(report.seconds, 1e-9)
        summary = (
            f"{store}: {report.views_encoded:,} views encoded in {report.seconds:.1f} s "
            f"({rate:.1f} views/s), {report.bytes_written / 1e6:,.1f} MB; "
            f"{report.shards_kept} shards kept from before"
        )
    emit({"store": str(store), **asdict(report)}, as_json=as_json, otherwise=summary)


@app.command()
def verify(
    store: Annotated[Path, typer.Argument(help="The store.")],
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
    if not store.is_dir():
        raise StoreError(f"{store}: there is no store; expected a folder made by `idif cache build`")
    if root is not None:
        categories = sorted({group.category for group in list_groups(store)})
        index = read_realiad(
            root,
            images=images,
            annotations=annotations,
            categories=categories,
            drop_incomplete=drop_incomplete,
        )
    with progress_bar("verifying", "bytes") as listen:
        report = verify_store(store, root=root, index=index, deep=deep, repair=repair, progress=listen)
    for problem in report.problems:
        say(f"found: {problem}")
    verdict = "sound" if report.sound else f"{len(report.problems)} problems"
    value: dict[str, Any] = {"store": str(store), "sound": report.sound, **asdict(report)}
    emit(
        value,
        as_json=as_json,
        otherwise=f"{store}: {verdict}; {report.files} files, {report.bytes / 1e6:,.1f} MB read",
    )
    if not report.sound:
        raise typer.Exit(1)


@app.command()
def info(
    store: Annotated[Path, typer.Argument(help="The store.")],
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
    size = sum(path.stat().st_size for path in store.rglob("*") if path.is_file())
    value = {
        "store": str(store),
        "bytes": size,
        "fingerprint": opened.fingerprint,
        "view_numbers": list(opened.index.view_numbers),
        "spec": spec.to_json(),
        "groups": groups,
    }
    table = Table("category", "split", "samples", "views", "anomalous", title=str(store))
    for group in groups:
        table.add_row(*(str(value) for value in group.values()))
    layers = ", ".join(layer.name for layer in spec.layers)
    table.caption = (
        f"{size / 1e6:,.1f} MB, {spec.encoder} ({spec.weights} weights {spec.weights_sha256[:12]}), "
        f"{layers} as {spec.storage}, {spec.image_size} px, cameras {list(opened.index.view_numbers)}"
    )
    emit(value, as_json=as_json, otherwise=table)
    if not as_json:
        out.print(f"fingerprint {opened.fingerprint}")
