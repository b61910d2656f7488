"""Bring a folder of photographs into the Real-IAD layout: one view a sample, or several by a pattern."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt

from idif.data.images import load_image, load_mask, load_whole_mask
from idif.datasets.folder.layout import PhotoSample, find_categories, list_samples, read_pattern
from idif.datasets.realiad.reader import MAX_VIEW_NUMBER
from idif.datasets.realiad.writer import (
    ImportedView,
    ImportSummary,
    category_writer,
    check_out,
    source_digest,
    summarise,
)
from idif.errors import DatasetError
from idif.paths import resolve_inside
from idif.prefetch import prefetch_map
from idif.progress import Progress, silent


@dataclass(frozen=True)
class FolderSummary(ImportSummary):
    """What an import of photographs wrote."""

    cameras: dict[int, str]
    """View number -> what the source's names call it."""


def import_folder(
    src: Path,
    out: Path,
    *,
    categories: Sequence[str] = (),
    pattern: str | None = None,
    views: int | None = None,
    size: int = 256,
    workers: int = 2,
    progress: Progress = silent,
) -> FolderSummary:
    """Decode every photograph, make it a square of ``size`` and write it in the Real-IAD layout.

    Photographs and masks are decoded and resized as everywhere (`idif.data.images.RESIZE_RULE`), so that a
    photograph given to a model later looks the same; a mask too small for nearest neighbour keeps the pixels
    that it touches. In a category with masks every defective sample needs one that marks something; of its
    views those are anomalous whose mask does. Without any mask all views of a defective sample are.

    Views whose names are all numbers from 1 keep them; other names are numbered in their order.

    Args:
        src: holds one folder per category in the layout of `folder_layout`, or is such a folder itself.
        out: absent, empty, or in the Real-IAD layout; categories are added to it, each whole or not at all,
            and those that an earlier call finished are kept.
        categories: empty for all.
        pattern: None where every photograph is a sample; see `folder_layout.read_pattern`.
        views: how many views the pattern must find (1 without one); None for any number.
        size: side of the square images in pixels.
        workers: threads that decode.

    Raises:
        DatasetError: something in ``src`` is not as it should be (nothing of that category is written), or
            ``out`` cannot take the categories.
        CannotFinish: ``out`` cannot be written.
    """
    if not 32 <= size <= 4096:
        raise DatasetError(f"size: expected 32 to 4096 pixels, got {size}")
    told = None if pattern is None else read_pattern(pattern)
    folders = find_categories(src, categories)
    samples = {category: list_samples(folder, told) for category, folder in folders.items()}
    numbers = _number_views(
        src, [view for all_of in samples.values() for s in all_of for view in s.photographs]
    )
    if views not in (None, len(numbers)):
        raise DatasetError(f"{src}: expected {views} views, found {len(numbers)}: {', '.join(numbers)}")
    images = f"realiad_{size}"
    recipes = {
        category: {
            "of": "folder",
            "pattern": pattern,
            "cameras": numbers,
            "files": source_digest(folders[category], _paths(folders[category], of_category)),
        }
        for category, of_category in samples.items()
    }
    kept = check_out(out, images, recipes)

    total, done = sum(map(len, samples.values())), 0
    for category, of_category in samples.items():
        if category in kept:
            done += len(of_category)
            continue
        masked = any(sample.masks for sample in of_category)
        load = partial(load_sample, folders[category], size=size, masked=masked)
        with category_writer(out, images, category, recipes[category]) as writer:
            loaded = prefetch_map(load, of_category, workers=workers, depth=2 * workers)
            for sample, shots in zip(of_category, loaded, strict=True):
                stamp = re.sub(r"[^A-Za-z0-9.-]+", "-", f"{sample.split}-{sample.name}")[-100:]
                writer.add(
                    sample.split, sample.defect, stamp, {numbers[v]: shot for v, shot in shots.items()}
                )
                done += 1
                progress(done, total, category)
    summary = summarise(out, images, list(samples), kept)
    return FolderSummary(**vars(summary), cameras={number: name for name, number in numbers.items()})


def _paths(folder: Path, samples: Sequence[PhotoSample]) -> Iterator[Path]:
    return (folder / file for s in samples for file in (*s.photographs.values(), *s.masks.values()))


def _number_views(src: Path, names: Sequence[str]) -> dict[str, int]:
    """View's name -> number, ascending; see `import_folder`."""
    ordered = sorted(set(names), key=lambda name: (name.zfill(20) if name.isdecimal() else name, name))
    if len(ordered) > MAX_VIEW_NUMBER:
        raise DatasetError(
            f"{src}: the pattern finds {len(ordered)} views; expected at most {MAX_VIEW_NUMBER}"
        )
    if all(re.fullmatch("[0-9]{1,6}", name) for name in ordered):
        values = [int(name) for name in ordered]
        if len(set(values)) == len(values) and values[0] >= 1 and values[-1] <= MAX_VIEW_NUMBER:
            return dict(zip(ordered, values, strict=True))
    return {name: number for number, name in enumerate(ordered, start=1)}


def load_sample(folder: Path, sample: PhotoSample, *, size: int, masked: bool) -> dict[str, ImportedView]:
    """View's name -> photograph and mask of one sample.

    Args:
        folder: the category's.
        masked: whether the category has masks.

    Raises:
        DatasetError: a file cannot be read or lies outside, a mask does not fit, or a defective sample of a
            category with masks has none that marks anything.
    """
    shots = {}
    for view, file in sample.photographs.items():
        image, shape = load_image(resolve_inside(folder, file), size)
        mask = None
        if view in sample.masks:
            mask = _shrunk_mask(resolve_inside(folder, sample.masks[view]), size, shape)
        shown = sample.defect is not None and (mask is not None if masked else True)
        shots[view] = ImportedView(np.ascontiguousarray(image.transpose(1, 2, 0)), mask, shown)
    if sample.defect is not None and not any(shot.anomalous for shot in shots.values()):
        first = next(iter(sample.photographs.values()))
        raise DatasetError(
            f"{folder / first}: shows {sample.defect!r}, but no mask below "
            f"{folder / 'ground_truth' / sample.defect} marks anything; other samples have masks"
        )
    return shots


def _shrunk_mask(path: Path, size: int, shape: tuple[int, int]) -> npt.NDArray[np.bool_] | None:
    """The mask [size,size]; None where it marks nothing."""
    mask = load_mask(path, size, shape)
    if not mask.any():
        rows, columns = np.nonzero(load_whole_mask(path))
        mask = np.zeros((size, size), np.bool_)
        mask[rows * size // shape[0], columns * size // shape[1]] = True
    return mask if mask.any() else None
