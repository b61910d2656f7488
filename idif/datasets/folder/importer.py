"""Imports a folder of photographs into the Real-IAD layout: one view per sample, or several by a pattern."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt

from idif.data.images import check_mask_shape, decode, decode_mask, fit_mask, load_image, read_file, to_rgb
from idif.data.photo_files import describe_left_out, find_photos, natural_key, read_camera
from idif.datasets.folder.layout import (
    PhotoSample,
    choose_categories,
    list_samples,
    read_pattern,
    split_categories,
)
from idif.datasets.folder.sorted_layout import (
    TestShare,
    expected_layouts,
    list_sorted_samples,
    sorted_categories,
)
from idif.datasets.realiad.reader import MAX_VIEW_NUMBER
from idif.datasets.realiad.writer import (
    CategorySource,
    ImportedSample,
    ImportedView,
    ImportRequest,
    ImportSummary,
    PhotographFile,
    source_digest,
    write_categories,
)
from idif.errors import DatasetError
from idif.paths import resolve_inside
from idif.prefetch import prefetch_map
from idif.progress import Progress, silent

MAX_SIZE = 4096
"""Largest side of the images in pixels."""


@dataclass(frozen=True)
class FolderSummary(ImportSummary):
    """Content of a dataset after an import of photographs."""

    cameras: dict[int, str]
    """View number -> name of the view in the source."""
    left_out: str | None = None
    """A sentence about the pictures that were not read; None where all were."""
    chosen_split: str | None = None
    """A sentence about good samples that the import split; None where the source has a split."""
    taken_as_defects: tuple[str, ...] = ()
    """Classes of defects that the names of sorted folders were taken for."""


def import_folder(
    request: ImportRequest,
    *,
    pattern: str | None = None,
    views: int | None = None,
    test: TestShare | None = None,
    workers: int = 2,
    progress: Progress = silent,
) -> FolderSummary:
    """Decode every photograph, resize it to a square and write it in the Real-IAD layout.

    Photographs and masks are decoded and resized by `idif.data.images.RESIZE_RULE`, like all others, so that
    a photograph given to a model later looks the same. A mask that nearest-neighbor sampling would lose keeps
    the pixels it touches. Without a size, photographs are decoded only as a check and their files copied, and
    masks keep their size, so that the encoder of a store resizes the originals.

    In a category with masks every defective sample needs one that marks something,
    and its anomalous views are those whose mask does. In a category without masks all views of a defective
    sample are anomalous.

    Views whose names are all numbers from 1, or tell a camera (``C3``, ``cam3``), keep those numbers; other
    names are numbered in their natural order.

    Args:
        request: ``src`` holds one folder per category in the layout of `idif.datasets.folder.layout`, or of
            `idif.datasets.folder.sorted_layout`, or is such a folder itself; ``size`` is 32 to `MAX_SIZE`, or
            None.
        pattern: None where every photograph is a sample; see `read_pattern`.
        views: how many views the pattern must find (1 without one); None for any number.
        test: how good samples of a sorted folder are split; None: as `TestShare` does by default.
        workers: threads that decode.

    Raises:
        DatasetError: something in ``src`` is not as it should be (nothing of that category is written), or
            ``out`` cannot take the categories.
        CannotFinish: ``out`` cannot be written.
    """
    request.check_size(MAX_SIZE)
    src = request.src
    name_pattern = None if pattern is None else read_pattern(pattern)
    if not src.is_dir():
        raise DatasetError(f"{src}: expected a folder of photographs, but there is none")
    known, is_split = split_categories(src), True
    if not known:
        known, is_split = sorted_categories(src), False
    if not known:
        raise DatasetError(expected_layouts(src))
    if is_split and test is not None:
        raise DatasetError(
            f"{src}: --test-share and --seed split good parts, but there is a split: train/good"
        )
    test = test or TestShare()
    folders = choose_categories(src, known, request.categories)
    samples = {
        category: list_samples(folder, name_pattern)
        if is_split
        else list_sorted_samples(folder, name_pattern, test)
        for category, folder in folders.items()
    }
    names = [view for listed in samples.values() for sample in listed for view in sample.photographs]
    numbers = _number_views(src, names)
    require_view_count(src, views, list(numbers))
    sources = {}
    for category, folder in folders.items():
        settings = {
            "of": "folder",
            "pattern": pattern,
            "cameras": numbers,
            "files": source_digest(folder, sample_files(folder, samples[category])),
        }
        load = partial(load_category, folder, samples[category], request.size, numbers, workers)
        sources[category] = CategorySource(settings, len(samples[category]), load)
    summary = write_categories(request.target, sources, progress)
    left_out = [path for folder in folders.values() for path in find_photos(folder).left_out]
    return FolderSummary(
        **vars(summary),
        cameras={number: name for name, number in numbers.items()},
        left_out=describe_left_out(tuple(left_out)),
        chosen_split=None if is_split else _describe_split(samples, test),
        taken_as_defects=() if is_split else _defects(samples),
    )


def _describe_split(samples: Mapping[str, Sequence[PhotoSample]], test: TestShare) -> str:
    """E.g. ``of 60 good samples 47 are for training and 13 for testing (by name; ...)``."""
    good = [sample for listed in samples.values() for sample in listed if sample.defect is None]
    kept = sum(sample.split == "train" for sample in good)
    text = (
        f"of {len(good)} good samples {kept} are for training and {len(good) - kept} for testing (by name; "
        f"test share {test.share:g}, seed {test.seed})"
    )
    alone = [category for category, listed in samples.items() if all(s.defect is None for s in listed)]
    return text + (f"; no bad parts to test with in {', '.join(alone)}" if alone else "")


def _defects(samples: Mapping[str, Sequence[PhotoSample]]) -> tuple[str, ...]:
    named = {sample.defect for listed in samples.values() for sample in listed}
    return tuple(sorted(name for name in named if name is not None))


def sample_files(folder: Path, samples: Sequence[PhotoSample]) -> Iterator[Path]:
    """Every photograph and mask of the samples."""
    return (folder / file for s in samples for file in (*s.photographs.values(), *s.masks.values()))


def require_view_count(src: Path, expected: int | None, names: Sequence[str]) -> None:
    """Refuse another number of views than the expected one; None expects any."""
    if expected not in (None, len(names)):
        raise DatasetError(f"{src}: expected {expected} views, found {len(names)}: {', '.join(names)}")


def _number_views(src: Path, names: Sequence[str]) -> dict[str, int]:
    """View's name -> number, ascending; see `import_folder`."""
    ordered = sorted(set(names), key=natural_key)
    if len(ordered) > MAX_VIEW_NUMBER:
        raise DatasetError(
            f"{src}: the pattern finds {len(ordered)} views; expected at most {MAX_VIEW_NUMBER}"
        )
    values = [number for name in ordered if (number := _told_number(name)) is not None]
    told = len(values) == len(ordered) == len(set(values))
    if told and min(values, default=0) >= 1 and max(values) <= MAX_VIEW_NUMBER:
        return dict(sorted(zip(ordered, values, strict=True), key=lambda pair: pair[1]))
    return {name: number for number, name in enumerate(ordered, start=1)}


def _told_number(name: str) -> int | None:
    """The number that a view's name is or tells."""
    if re.fullmatch("[0-9]{1,6}", name):
        return int(name)
    camera = read_camera(name)
    return None if camera is None or camera.part else camera.number


def load_category(
    folder: Path, samples: Sequence[PhotoSample], size: int | None, numbers: dict[str, int], workers: int
) -> Iterator[ImportedSample]:
    """The samples of a category, decoded in threads, in order."""
    has_masks = any(sample.masks for sample in samples)
    load = partial(load_sample, folder, size=size, has_masks=has_masks)
    loaded = prefetch_map(load, samples, workers=workers, depth=2 * workers)
    for sample, views in zip(samples, loaded, strict=True):
        stamp = re.sub(r"[^A-Za-z0-9.-]+", "-", f"{sample.split}-{sample.name}")[-100:]
        # a camera that is only a number needs no name
        numbered = {
            numbers[name]: replace(view, camera=None if name == str(numbers[name]) else name)
            for name, view in views.items()
        }
        yield ImportedSample(sample.split, sample.defect, stamp, numbered)


def load_sample(
    folder: Path, sample: PhotoSample, *, size: int | None, has_masks: bool
) -> dict[str, ImportedView]:
    """View's name -> photograph and mask of one sample.

    Args:
        folder: the category's.
        size: side of the square images; None: the files as they are.
        has_masks: whether the category has masks.

    Raises:
        DatasetError: a file cannot be read or lies outside, a mask does not fit, or a defective sample of a
            category with masks has none that marks anything.
    """
    views = {}
    for name, file in sample.photographs.items():
        image, shape = _load_photograph(resolve_inside(folder, file), size)
        mask, has_grey = None, False
        if name in sample.masks:
            mask, has_grey = _load_marked(resolve_inside(folder, sample.masks[name]), size, shape)
        anomalous = sample.defect is not None and (mask is not None if has_masks else True)
        views[name] = ImportedView(image, mask, anomalous, grey_mask=has_grey, source=file)
    if sample.defect is not None and not any(view.anomalous for view in views.values()):
        first = next(iter(sample.photographs.values()))
        raise DatasetError(
            f"{folder / first}: shows {sample.defect!r}, but no mask below "
            f"{folder / 'ground_truth' / sample.defect} marks anything; other samples have masks"
        )
    return views


def _load_photograph(
    path: Path, size: int | None
) -> tuple[npt.NDArray[np.uint8] | PhotographFile, tuple[int, int]]:
    """The photograph [size,size,3], or its file if ``size`` is None; and its (height, width)."""
    if size is not None:
        image, shape = load_image(path, size)
        return np.ascontiguousarray(image.transpose(1, 2, 0)), shape
    content = read_file(path, "image")
    rgb = to_rgb(decode(content, path, "image"), path)
    return PhotographFile(content, path.suffix.lower()), (rgb.height, rgb.width)


def _load_marked(
    path: Path, size: int | None, shape: tuple[int, int]
) -> tuple[npt.NDArray[np.bool_] | None, bool]:
    """The mask [size,size], or [H,W] if ``size`` is None; and whether grey values leave open what it marks.

    The mask is None where it marks nothing.
    """
    whole = decode_mask(path)
    if size is None:
        check_mask_shape(whole.marked, path, shape)
        return whole.marked if whole.marked.any() else None, whole.has_grey
    mask = fit_mask(whole.marked, path, size, shape)
    if not mask.any():
        rows, columns = np.nonzero(whole.marked)
        mask = np.zeros((size, size), np.bool_)
        mask[rows * size // shape[0], columns * size // shape[1]] = True
    return mask if mask.any() else None, whole.has_grey
