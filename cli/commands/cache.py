"""`idif cache`: verifies, inspects, exports and imports feature stores, and has the commands that build them.

Modules that import torch are imported by the commands that need them: `idif cache info` does not.
"""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from cli.commands.cache_build import build_app, local_folder, plan_app
from cli.options import DropOption
from cli.terminal.console import JsonOption, note, out, print_result, progress_bar
from cli.terminal.help import CommandGroup
from idif.errors import StoreError

app = CommandGroup(help="Build, verify and inspect feature stores.", no_args_is_help=True)
app.add_typer(build_app, name="build")
app.add_typer(plan_app, name="plan")

StoreArgument = Annotated[str, typer.Argument(help="The store: a folder or s3://BUCKET/PREFIX.")]
ImagesOption = Annotated[str, typer.Option(help="Folder of the images below the root.")]
AnnotationsOption = Annotated[str, typer.Option(help="Folder of the annotations below the root.")]


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
    reader: Annotated[
        str, typer.Option(help="Layout of the dataset, a sub-command of `idif cache build`.")
    ] = "realiad",
    as_json: JsonOption = False,
) -> None:
    """Read everything a store holds and compare it with what was written.

    Examples:

        idif cache verify stores/realiad.zarr

        idif cache verify stores/realiad.zarr --deep --root data/Real-IAD
    """
    from cache.checking.verify import verify_store
    from cache.format.object_store import store_path
    from cache.reading.open_groups import list_groups
    from idif.datasets.config import DataConfig
    from idif.datasets.readers import reader_of

    if repair and root is None:
        raise typer.BadParameter("--repair reads images again: name the dataset with --root")
    index = None
    place = store_path(store)
    if not place.is_dir():
        raise StoreError(f"{place}: there is no store; expected one made by `idif cache build`")
    if root is not None:
        categories = sorted({group.category for group in list_groups(place)})
        data = DataConfig(
            reader=reader,
            root=root,
            images=images,
            annotations=annotations,
            categories=tuple(categories),
            drop_incomplete=drop_incomplete,
        )
        index = reader_of(data).read(data, None)
    report = verify_store(place, root=root, index=index, deep=deep, repair=repair, bar=progress_bar)
    for problem in report.problems:
        note(f"found: {problem}")
    if report.encoders_left_out:
        left_out = ", ".join(report.encoders_left_out)
        note(f"note: not encoded again, since the store keeps no input of theirs: {left_out}; name --root")
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
    from cache.format.object_store import store_path
    from cache.hdf5 import export_store

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
    """Restore a store from an exported file, with the same bytes, manifests and checksums.

    Example:

        idif cache import realiad.h5 stores/realiad.zarr
    """
    from cache.hdf5 import import_store

    folder = local_folder(store, "an import makes a store on this machine")
    with progress_bar("importing", "samples") as listen:
        samples = import_store(source, folder, progress=listen)
    value = {"store": str(store), "file": str(source), "samples": samples}
    print_result(value, as_json=as_json, otherwise=f"{store}: {samples} samples from {source}")


@app.command()
def info(
    store: StoreArgument,
    as_json: JsonOption = False,
) -> None:
    """Print a store's samples, arrays and sizes.

    Example:

        idif cache info stores/realiad.zarr
    """
    from cache.reading.summary import summarize_store

    summary = summarize_store(store)
    spec, cameras = summary.spec, list(summary.view_numbers)
    groups = [asdict(group) for group in summary.groups]
    value = {
        "store": str(summary.path),
        "bytes": summary.bytes,
        "fingerprint": summary.fingerprint,
        "view_numbers": cameras,
        "spec": spec.to_json(),
        "groups": groups,
    }
    table = Table("category", "split", "samples", "views", "anomalous", title=str(summary.path))
    for group in groups:
        table.add_row(*map(str, group.values()))
    encoders = "; ".join(
        f"{encoder.name} ({encoder.weights} weights {encoder.weights_sha256[:12]}): "
        f"{', '.join(array.name for array in encoder.arrays)}"
        for encoder in spec.encoders
    )
    pixels = "no images" if spec.image_size is None else f"{spec.image_size} px"
    table.caption = (
        f"{summary.bytes / 1e6:,.1f} MB, {encoders}; as {spec.storage}, {pixels}, cameras {cameras}"
    )
    print_result(value, as_json=as_json, otherwise=table)
    if not as_json:
        out.print(f"fingerprint {summary.fingerprint}")
