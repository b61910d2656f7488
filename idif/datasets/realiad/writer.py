"""Writes imported categories in the Real-IAD layout: each one complete, or invisible to a reader."""

import contextlib
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from idif.data.images import picture_bytes
from idif.data.index import NORMAL_CLASS, Split
from idif.datasets.realiad.files import ORIGINAL, RealIADLayout, images_folder
from idif.datasets.realiad.reader import read_realiad
from idif.errors import DatasetError
from idif.files import make_folder, remove_tree, rename, replace_file, replacing_folder, writing
from idif.fingerprint import digest
from idif.paths import is_portable_name, shown
from idif.progress import Progress

_GREY_MASKS = "grey_masks"
_LONGEST_FILE_NAME = 255
"""Bytes."""


@dataclass(frozen=True)
class ImportRequest:
    """Source, target and image size of an import."""

    src: Path
    """Holds one folder per category."""
    out: Path
    """Absent, empty, or in the Real-IAD layout. Categories are added to it, each complete or not at all;
    those that an earlier call finished are kept."""
    categories: Sequence[str] = ()
    """Empty for all."""
    size: int | None = 256
    """Side of the square images in pixels; None: photographs are copied as they are."""

    def check_size(self, largest: int) -> None:
        """Raise `DatasetError` where there is a size and it is not 32 to ``largest``."""
        if self.size is not None and not 32 <= self.size <= largest:
            raise DatasetError(f"size: expected 32 to {largest} pixels, got {self.size}")

    def rendered_size(self, largest: int) -> int:
        """The size of rendered images; raises `DatasetError` as `check_size` does, and if there is none."""
        self.check_size(largest)
        if self.size is None:
            raise DatasetError("size: rendered images have no original size; expected a number of pixels")
        return self.size

    @property
    def target(self) -> RealIADLayout:
        """The folders that are written."""
        return RealIADLayout(self.out, images_folder(self.size))


@dataclass(frozen=True)
class PhotographFile:
    """A photograph that an import copies unchanged."""

    content: bytes
    suffix: str
    """Suffix of the file's name in lower case, with the dot."""


@dataclass(frozen=True)
class ImportedView:
    """One view of a sample."""

    image: npt.NDArray[np.uint8] | PhotographFile
    """[H,W,3], RGB, 0..255, or a file to be copied."""
    mask: npt.NDArray[np.bool_] | None
    """[H,W] of the upright image: true on the defect; None where that is not known."""
    anomalous: bool
    """Whether the view shows the defect; the mask is written only then."""
    grey_mask: bool = False
    """Whether the mask had values between black and white, so that a rule decided what it marks."""
    source: str | None = None
    """Path of the photograph below the category's source folder."""
    camera: str | None = None
    """Name of the camera in the source; None if it has only its number."""


@dataclass(frozen=True)
class ImportedSample:
    """One sample, ready to be written."""

    split: Split
    defect: str | None
    """Class of the defect; None for a normal sample."""
    stamp: str
    """End of the file names, in the place of Real-IAD's time."""
    views: Mapping[int, ImportedView]
    """View number -> view; none is anomalous where ``defect`` is None."""


ImportSettings = dict[str, Any]
"""Source and settings of a category's import, as JSON: equal settings give equal categories."""


@dataclass(frozen=True)
class CategorySource:
    """One category to import."""

    settings: ImportSettings
    count: int
    """Samples."""
    load: Callable[[], Iterable[ImportedSample]]
    """Gives the samples in order. Called only where the category is not finished yet."""


@dataclass(frozen=True)
class ImportSummary:
    """Content of a dataset after an import."""

    out: str
    categories: tuple[str, ...]
    train_samples: int
    test_samples: int
    images: int
    masks: int
    kept: tuple[str, ...]
    """Categories that an earlier call with the same source and settings had finished."""
    grey_masks: int
    """Masks whose grey values left open what they mark; they are written as black and white."""


def write_categories(
    target: RealIADLayout, categories: Mapping[str, CategorySource], progress: Progress
) -> ImportSummary:
    """Write every category that is not finished yet.

    Raises:
        DatasetError: a sample cannot be loaded, the target cannot take the categories, or the name of a
            category or defect cannot be a folder's.
        CannotFinish: the target cannot be written.
    """
    for name in categories:
        check_folder_name(name, "category", target.root)
    kept = _finished_categories(target, {name: source.settings for name, source in categories.items()})
    total, done = sum(source.count for source in categories.values()), 0
    for name, source in categories.items():
        if name in kept:
            done += source.count
            continue
        samples = source.load()
        with _category_writer(target, name, source.settings) as writer:
            for sample in samples:
                writer.add(sample)
                done += 1
                progress(done, total, name)
    return _summarize(target, list(categories), kept)


def source_digest(src: Path, files: Iterable[Path]) -> str:
    """Digest of the names and sizes of files, to recognize the same source again.

    Raises:
        DatasetError: a file cannot be accessed.
    """
    try:
        return digest([[path.relative_to(src).as_posix(), path.stat().st_size] for path in files])
    except OSError as error:
        raise DatasetError(f"{error.filename}: cannot be read ({error.strerror or error})") from None


def check_folder_name(name: str, role: str, where: Path) -> None:
    """Refuse the name of a category or defect that cannot be a folder's on every system, or means ``OK``.

    Raises:
        DatasetError: gives the name, its role and ``where`` it was found.
    """
    if not is_portable_name(name) or name == NORMAL_CLASS:
        raise DatasetError(
            f"{shown(str(where))}: {shown(name)} cannot be the name of a {role}; expected a folder's name "
            f"that every system allows, other than {NORMAL_CLASS!r}"
        )


def _picture_name(category: str, number: str, defect: str | None, view: int, stamp: str) -> str:
    """File name of a picture without its suffix; shortened where a file system would refuse it."""
    name = f"{category}_{number}_{defect or NORMAL_CLASS}_C{view}_{stamp}"
    room = _LONGEST_FILE_NAME - len("_mask.png")
    if len(name.encode()) <= room:
        return name
    # the label is in the annotations, so a name can do without it
    start = f"{category}_{number}_C{view}_"
    ending = stamp.encode()[-(room - len(start.encode())) :].decode(errors="ignore")
    return start + ending


class _CategoryWriter:
    """Writes one category into a staging folder; `_category_writer` moves it to its place."""

    def __init__(self, staging: Path, category: str) -> None:
        self._staging = staging
        self._category = category
        self._entries: dict[Split, list[dict[str, str | None]]] = {"train": [], "test": []}
        self._count = self._grey = 0

    def add(self, sample: ImportedSample) -> None:
        """Write one sample: a picture for each view, a mask for each view that is anomalous and has one."""
        defect = sample.defect
        assert defect is not None or not any(view.anomalous for view in sample.views.values())
        if defect is not None:
            check_folder_name(defect, "defect", self._staging.parent)
        self._count += 1
        number = f"{self._count:04d}"
        folder = f"{NORMAL_CLASS if defect is None else f'NG/{defect}'}/S{number}"
        (self._staging / folder).mkdir(parents=True)
        for view_number, view in sorted(sample.views.items()):
            name = f"{folder}/{_picture_name(self._category, number, defect, view_number, sample.stamp)}"
            image_path = self._write_image(name, view.image)
            mask_path = None
            if view.anomalous and view.mask is not None:
                mask_path = f"{name}_mask.png"
                self._grey += view.grey_mask
                _write_png(self._staging / mask_path, view.mask.astype(np.uint8) * 255)
            entry: dict[str, str | None] = {
                "category": self._category,
                "anomaly_class": defect if defect is not None and view.anomalous else NORMAL_CLASS,
                "image_path": image_path,
                "mask_path": mask_path,
            }
            named = {"source": view.source, "camera": view.camera}
            self._entries[sample.split].append(entry | {k: v for k, v in named.items() if v is not None})

    def _write_image(self, name: str, image: npt.NDArray[np.uint8] | PhotographFile) -> str:
        """Write a photograph, or copy its file; returns the name with its suffix."""
        if isinstance(image, PhotographFile):
            (self._staging / f"{name}{image.suffix}").write_bytes(image.content)
            return f"{name}{image.suffix}"
        _write_png(self._staging / f"{name}.png", image)
        return f"{name}.png"

    def annotations(self, settings: ImportSettings) -> bytes:
        """The category's annotation file."""
        meta: dict[str, Any] = {
            "prefix": f"{self._category}/",
            "normal_class": NORMAL_CLASS,
            "imported": settings,
        }
        if self._grey:
            meta[_GREY_MASKS] = self._grey
        return (json.dumps({"meta": meta, **self._entries}, indent=1) + "\n").encode()


def _finished_categories(target: RealIADLayout, settings: Mapping[str, ImportSettings]) -> tuple[str, ...]:
    """Categories that the target already holds, imported with the same settings.

    Raises:
        DatasetError: the target is a file, holds something other than this layout, has images of another
            size, or has one of the categories from another source or with other settings.
    """
    out = target.root
    if out.exists() and not out.is_dir():
        raise DatasetError(f"{out}: expected a folder to write to, but it is a file")
    names = sorted(path.name for path in out.iterdir()) if out.is_dir() else []
    allowed = rf"realiad_([0-9]+|{ORIGINAL})|{re.escape(target.annotations)}|preview|\.importing-.*"
    foreign = [name for name in names if not re.fullmatch(allowed, name)]
    if foreign:
        raise DatasetError(
            f"{out}: expected no other files than a dataset in the Real-IAD layout, found {foreign[0]!r}"
        )
    own_folders = (target.annotations, target.images)
    other_sizes = [name for name in names if name.startswith("realiad_") and name not in own_folders]
    if other_sizes:
        raise DatasetError(f"{out}: holds {other_sizes[0]!r}, images of another size than {target.images!r}")
    finished = []
    for category, expected in settings.items():
        annotations = out / target.annotations / f"{category}.json"
        folder = out / target.images / category
        if folder.exists() and not annotations.exists() and (left := _prepared(target, category)).exists():
            if _recorded_settings(left) == expected:
                _add_annotations(target, category)
            else:
                remove_tree(folder)
        if folder.exists() and _recorded_settings(annotations) == expected:
            finished.append(category)
            continue
        for path in (annotations, folder):
            if path.exists():
                raise DatasetError(
                    f"{path}: is there already, from another source or with other settings; remove it, "
                    f"or import to another folder"
                )
    return tuple(finished)


def _recorded_settings(annotations: Path) -> ImportSettings | None:
    """The settings that an import recorded in its annotations; None where there are none."""
    try:
        settings: ImportSettings | None = json.loads(annotations.read_bytes())["meta"]["imported"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None
    return settings


def _summarize(target: RealIADLayout, categories: Sequence[str], kept: tuple[str, ...]) -> ImportSummary:
    """Content of these categories of the target."""
    index = read_realiad(target, categories=categories)
    views = [view for sample in index.samples for view in sample.views if view is not None]
    train = sum(sample.split == "train" for sample in index.samples)
    return ImportSummary(
        out=str(target.root),
        categories=tuple(categories),
        train_samples=train,
        test_samples=len(index) - train,
        images=len(views),
        masks=sum(view.mask is not None for view in views),
        kept=kept,
        grey_masks=sum(_read_meta(target, category).get(_GREY_MASKS, 0) for category in categories),
    )


def _read_meta(target: RealIADLayout, category: str) -> dict[str, Any]:
    meta: dict[str, Any] = json.loads((target.root / target.annotations / f"{category}.json").read_bytes())[
        "meta"
    ]
    return meta


@contextlib.contextmanager
def _category_writer(
    target: RealIADLayout, category: str, settings: ImportSettings
) -> Iterator[_CategoryWriter]:
    """A writer whose category appears in the target when the block ends without an error, else not at all.

    Annotations come last: a category without them does not exist for a reader.

    Raises:
        DatasetError: the folder cannot be written. CannotFinish: the disk is full or fails.
    """
    out = target.root
    staging = out / f".importing-{category}"
    make_folder(out, DatasetError)
    with replacing_folder(staging, out / target.images / category, DatasetError):
        writer = _CategoryWriter(staging, category)
        yield writer
        make_folder(out / target.images, DatasetError)
        make_folder(out / target.annotations, DatasetError)
        replace_file(_prepared(target, category), writer.annotations(settings), DatasetError)
    _add_annotations(target, category)


def _prepared(target: RealIADLayout, category: str) -> Path:
    """The annotations of a category whose pictures may not be in their place yet; beside a killed import's
    pictures they tell whose these are."""
    return target.root / f".importing-{category}.json"


def _add_annotations(target: RealIADLayout, category: str) -> None:
    annotations = target.root / target.annotations / f"{category}.json"
    with writing(annotations, DatasetError):
        rename(_prepared(target, category), annotations)


def _write_png(path: Path, pixels: npt.NDArray[np.uint8]) -> None:
    """Write a picture into a folder that is made durable as a whole when it is complete."""
    path.write_bytes(picture_bytes(Image.fromarray(pixels), ".png"))
