"""`idif cache build` and `idif cache plan`: phase one, and its cost; a command for each kind of dataset.

Modules that import torch are imported by the commands.
"""

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from cli.options import DropOption, SetOption
from cli.terminal.console import JsonOption, note, out, print_result, progress_bar
from cli.terminal.help import CommandGroup
from idif.data.arrays import StorageType
from idif.data.resize import Resize
from idif.datasets.readers import READERS, Reader
from idif.encoders.options import NeckName, Padding
from idif.errors import StoreError

build_app = CommandGroup(
    help="Phase one: run the frozen encoder once over clean images.", no_args_is_help=True
)
plan_app = CommandGroup(help="What a store would cost here, and when it pays.", no_args_is_help=True)

CategoryOption = Annotated[list[str], typer.Option("--category", help="Only these; may be repeated.")]
DtypeOption = Annotated[
    StorageType,
    typer.Option(
        help="Type the features are kept in; uint8 (int8 where they are signed) takes half the room."
    ),
]
SizeOption = Annotated[
    int | None,
    typer.Option(help="Side of the square images; default 256, or the encoder's own.", min=32),
]
RootOption = Annotated[Path | None, typer.Option(help="Dataset in the layout that the command names.")]
EncoderOption = Annotated[
    list[str],
    typer.Option(
        "--encoder",
        help="Frozen encoder or set of them; may be repeated. Default resnet18, of weld runs the set weld.",
    ),
]
WeightsOption = Annotated[
    list[str],
    typer.Option(
        "--teacher-weights",
        help="imagenet, untrained, or a .safetensors or .pth file; NAME=... for one of several encoders.",
    ),
]
TapsOption = Annotated[
    str | None,
    typer.Option(
        help="Layers to keep, comma-separated: strides of a convolutional network, blocks of a transformer."
    ),
]
NeckOption = Annotated[
    NeckName | None,
    typer.Option(help="Layer after the taps: one map of all of them, or pooled ones; see `teacher.neck`."),
]
PaddingOption = Annotated[Padding | None, typer.Option(help="Padding of the encoder's convolutions.")]
ResizeOption = Annotated[Resize | None, typer.Option(help="Resampling of the images; default bilinear.")]
CropOption = Annotated[
    int | None,
    typer.Option(help="Side that images are resized to before their center is cut out.", min=32),
]
FullTokensOption = Annotated[
    bool,
    typer.Option(
        "--full-tokens",
        help="Keep all tokens of the video instead of one mean per moment: 256 times the room for it.",
    ),
]
StoreImagesOption = Annotated[
    bool | None,
    typer.Option(
        "--store-images/--no-store-images",
        help="Whether to keep the clean images too; default: if the config's method reads them.",
    ),
]
ConfigOption = Annotated[
    Path | None,
    typer.Option(
        "--config", help="Config that names whatever no option does: data, store, encoder, weights, size."
    ),
]
OwnImagesOption = Annotated[
    str | None, typer.Option("--images", help="Folder of the images below the root; default realiad_256.")
]
OwnAnnotationsOption = Annotated[
    str | None,
    typer.Option("--annotations", help="Folder of the annotations below the root; default realiad_jsons."),
]


def local_folder(store: str, why: str) -> Path:
    """The folder of a store.

    Raises:
        StoreError: it lies in an object store, with the reason why that cannot be.
    """
    from cache.format.object_store import store_path

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


_BUILD_HELP = """Run the frozen encoders over the clean data once. Continues where an earlier build stopped.

    Examples:

        idif cache build {name} --root data/Real-IAD --store stores/realiad.zarr

        idif cache build {name} --root data/mvtec3d --store stores/gland.zarr --category cable_gland

        idif cache build {name} --config configs/realiad.yaml --set data.root=data/Real-IAD

        idif cache build {name} --root data/Real-IAD --store s3://features/realiad.zarr

        torchrun --nproc-per-node 4 --no-python idif cache build {name} --root data/Real-IAD --store all.zarr
    """

_PLAN_HELP = """Build and read a store of a few samples, and say what the whole would cost and when it pays.

    Weights do not change the speed, so any will do.

    Example:

        idif cache plan {name} --root data/Real-IAD --store stores/realiad.zarr
    """


def _build_command(layout: str, reader: Reader) -> Callable[..., None]:
    """The command `idif cache build NAME` of one reader."""

    def build(
        root: RootOption = None,
        store: Annotated[
            str | None,
            typer.Option(help="The store to make, continue or add to: a folder or s3://BUCKET/PREFIX."),
        ] = None,
        category: CategoryOption = [],  # noqa: B006
        split: Annotated[Literal["train", "val", "test", "all"], typer.Option(help="Which samples.")] = "all",
        dtype: DtypeOption = "float16",
        image_size: SizeOption = None,
        encoder: EncoderOption = [],  # noqa: B006
        teacher_weights: WeightsOption = [],  # noqa: B006
        taps: TapsOption = None,
        neck: NeckOption = None,
        padding: PaddingOption = None,
        resize: ResizeOption = None,
        crop_from: CropOption = None,
        full_tokens: FullTokensOption = False,
        store_images: StoreImagesOption = None,
        images: OwnImagesOption = None,
        annotations: OwnAnnotationsOption = None,
        drop_incomplete: DropOption = False,
        config: ConfigOption = None,
        overrides: SetOption = [],  # noqa: B006
        staging: Annotated[
            Path, typer.Option(help="Folder where a store for s3:// is built before it is published.")
        ] = Path("stores/staging"),
        as_json: JsonOption = False,
    ) -> None:
        from cache.building.build import build_store
        from cache.remote.upload import build_remote
        from cli.workflow.device import evaluation_device, join_team, processes_here
        from cli.workflow.enlarged_images import describe_enlarged
        from cli.workflow.store_choice import choose_store
        from idif.data.decode import decode_threads
        from idif.datasets.contamination import contamination

        choice = choose_store(
            config,
            overrides,
            data=_data_keys(root, images, annotations, category, drop_incomplete),
            store=store,
            encoders=encoder,
            weights=teacher_weights,
            image_size=image_size,
            options=_teacher_keys(taps, neck, padding, resize, crop_from),
            full_tokens=full_tokens,
            images=store_images,
            default_encoder=reader.encoder,
        )
        request = choice.request(
            reader,
            split=None if split == "all" else split,
            storage=dtype,
            workers=max(1, decode_threads() // processes_here()),
            device=evaluation_device(),
        )
        place = request.store
        choice.check_views(place)
        with join_team() as ranks:
            if ranks.first:
                for name in request.spec.untrained:
                    note(f"note: the encoder {name} is an untrained, seeded random network")
                if (dirty := contamination(request.index.samples)) is not None:
                    note(f"note: {dirty}; they are kept like the others")
                if (enlarged := describe_enlarged(request)) is not None:
                    note(f"warning: {enlarged}")
            with progress_bar("building", "views", show=ranks.first) as listen:
                if isinstance(place, Path):
                    report = build_store(request, ranks=ranks, progress=listen)
                else:
                    report = build_remote(request, staging=staging, ranks=ranks, progress=listen)
        if not ranks.first:
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

    build.__doc__ = _BUILD_HELP.format(name=layout)
    return build


def _plan_command(layout: str, reader: Reader) -> Callable[..., None]:
    """The command `idif cache plan NAME` of one reader."""

    def plan(
        root: RootOption = None,
        store: Annotated[
            str | None,
            typer.Option(help="Where the store would lie; that disk is measured, nothing is left there."),
        ] = None,
        category: CategoryOption = [],  # noqa: B006
        dtype: DtypeOption = "float16",
        image_size: SizeOption = None,
        encoder: EncoderOption = [],  # noqa: B006
        teacher_weights: WeightsOption = [],  # noqa: B006
        taps: TapsOption = None,
        neck: NeckOption = None,
        padding: PaddingOption = None,
        resize: ResizeOption = None,
        crop_from: CropOption = None,
        full_tokens: FullTokensOption = False,
        store_images: StoreImagesOption = None,
        images: OwnImagesOption = None,
        annotations: OwnAnnotationsOption = None,
        config: ConfigOption = None,
        overrides: SetOption = [],  # noqa: B006
        as_json: JsonOption = False,
    ) -> None:
        from cache.cost_estimate import plan_store
        from cli.terminal.cache_plan import plan_table, plan_words
        from cli.workflow.device import evaluation_device
        from cli.workflow.enlarged_images import describe_enlarged
        from cli.workflow.store_choice import choose_store

        choice = choose_store(
            config,
            overrides,
            data=_data_keys(root, images, annotations, category),
            store=store or ("stores/store.zarr" if config is None else None),
            encoders=encoder,
            weights=teacher_weights,
            image_size=image_size,
            options=_teacher_keys(taps, neck, padding, resize, crop_from),
            full_tokens=full_tokens,
            images=store_images,
            default_encoder=reader.encoder,
            default_weights="untrained",
        )
        if choice.store is not None:
            local_folder(choice.store, "a plan measures a disk of this machine")
        request = choice.request(reader, storage=dtype, device=evaluation_device())
        if (enlarged := describe_enlarged(request)) is not None:
            note(f"warning: {enlarged}")
        with progress_bar("measuring", "steps") as listen:
            found = plan_store(request, progress=listen)
        size = request.spec.image_size
        value = {"store": choice.store, "storage": dtype, "image_size": size, "fits": found.fits}
        table = plan_table(found, str(choice.store))
        print_result(value | asdict(found), as_json=as_json, otherwise=table)
        if not as_json:
            for line in plan_words(found):
                out.print(line, soft_wrap=True)

    plan.__doc__ = _PLAN_HELP.format(name=layout)
    return plan


def _data_keys(
    root: Path | None,
    images: str | None,
    annotations: str | None,
    category: list[str],
    drop_incomplete: bool = False,
) -> dict[str, Any]:
    """The keys of a config's section ``data`` given as options; None if not given."""
    return {
        "root": root,
        "images": images,
        "annotations": annotations,
        "categories": tuple(category) or None,
        "drop_incomplete": drop_incomplete or None,
    }


def _teacher_keys(
    taps: str | None,
    neck: NeckName | None,
    padding: Padding | None,
    resize: Resize | None,
    crop_from: int | None,
) -> dict[str, Any]:
    """The keys of a config's section ``teacher`` given as options; None if not given."""
    try:
        numbers = None if taps is None else tuple(int(number) for number in taps.split(","))
    except ValueError:
        raise typer.BadParameter(f"--taps: expected numbers such as 4,8,16, got {taps!r}") from None
    return {"taps": numbers, "neck": neck, "padding": padding, "resize": resize, "crop_from": crop_from}


for _name, _reader in READERS.items():
    build_app.command(_name)(_build_command(_name, _reader))
    plan_app.command(_name)(_plan_command(_name, _reader))
