"""Imports VisA by its split file::

split_csv/1cls.csv                        object,split,label,image,mask; paths relative to the root
CATEGORY/image_anno.csv                   image,label,mask: the defects of each image, in words; optional
CATEGORY/Data/Images/{Normal,Anomaly}/000.JPG
CATEGORY/Data/Masks/Anomaly/000.png       values are numbers of defects
"""

import csv
import re
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path, PurePosixPath

from idif.data.index import Split
from idif.datasets.folder.importer import (
    MAX_SIZE,
    FolderSummary,
    load_category,
    require_view_count,
    sample_files,
)
from idif.datasets.folder.layout import PhotoSample
from idif.datasets.realiad.writer import CategorySource, ImportRequest, source_digest, write_categories
from idif.errors import DatasetError
from idif.paths import is_plain, shown
from idif.progress import Progress, silent

SPLIT_FILE = "split_csv/1cls.csv"
"""The one-class split: normal images for training, normal and anomalous ones for the test."""
ANNOTATIONS = "image_anno.csv"
SPLIT_COLUMNS = ("object", "split", "label", "image", "mask")
UNNAMED, SEVERAL = "anomaly", "several"
"""Class of a defect without words, and of an image with several defects."""


def import_visa(
    request: ImportRequest,
    *,
    split_file: str = SPLIT_FILE,
    views: int | None = None,
    workers: int = 2,
    progress: Progress = silent,
) -> FolderSummary:
    """Decode every image of the split, resize it to a square and write it in the Real-IAD layout.

    Images and masks are treated as those of `idif.datasets.folder.importer.import_folder`.

    Args:
        request: ``src`` is VisA's folder; ``size`` is 32 to `MAX_SIZE`, or None.
        split_file: path of the split, relative to ``src``.
        views: how many views are expected, as that of `import_folder`; VisA has 1.
        workers: threads that decode.

    Raises:
        DatasetError: a file is missing or not as it should be (nothing of that category is written), or
            ``out`` cannot take the categories.
        CannotFinish: ``out`` cannot be written.
    """
    request.check_size(MAX_SIZE)
    require_view_count(request.src, views, ["1"])
    samples = read_split(request.src, split_file)
    for category in request.categories:
        if category not in samples:
            raise DatasetError(
                f"{request.src / split_file}: no category {shown(category)}; there is: {', '.join(samples)}"
            )
    sources = {}
    for category in dict.fromkeys(request.categories or samples):
        listed = samples[category]
        settings = {
            "of": "visa",
            "split": split_file,
            "files": source_digest(request.src, sample_files(request.src, listed)),
        }
        load = partial(load_category, request.src, listed, request.size, {"1": 1}, workers)
        sources[category] = CategorySource(settings, len(listed), load)
    summary = write_categories(request.target, sources, progress)
    return FolderSummary(**vars(summary), cameras={1: "1"})


def read_split(src: Path, split_file: str = SPLIT_FILE) -> dict[str, list[PhotoSample]]:
    """Category -> its samples, training first; paths are relative to ``src``.

    Raises:
        DatasetError: a line is not as it should be, or a category has no training images.
    """
    samples: dict[str, list[PhotoSample]] = {}
    defects: dict[str, dict[str, str]] = {}
    path = src / split_file
    for number, row in _rows(path, SPLIT_COLUMNS):
        category, split, label, image, mask = (row[column] for column in SPLIT_COLUMNS)
        if not is_plain(category) or re.search(r'[\\/:*?"<>|]', category):
            raise DatasetError(f"{path}, line {number}: {shown(category)} cannot be the name of a category")
        if split not in ("train", "test") or label not in ("normal", "anomaly") or not image:
            raise DatasetError(
                f"{path}, line {number}: expected train or test, normal or anomaly, and an image, got "
                f"{shown(', '.join((split, label, image)))}"
            )
        defect = None
        if label == "anomaly":
            if category not in defects:
                defects[category] = read_defects(src / category / ANNOTATIONS)
            defect = defects[category].get(image, UNNAMED)
        part: Split = "train" if split == "train" else "test"
        name = f"{label}-{PurePosixPath(image).stem}"
        masks = {"1": mask} if mask and defect is not None else {}
        samples.setdefault(category, []).append(PhotoSample(part, defect, name, {"1": image}, masks))
    for category, listed in samples.items():
        if not any(sample.split == "train" for sample in listed):
            raise DatasetError(f"{path}: {category} has no training images")
        listed.sort(key=lambda sample: (sample.split == "test", sample.defect is not None))
    if not samples:
        raise DatasetError(f"{path}: expected one line for each image, found none")
    return samples


def read_defects(path: Path) -> dict[str, str]:
    """Image -> class of its defect, of a category's annotations; empty if there is no such file."""
    if not path.exists():
        return {}
    found = {}
    for _, row in _rows(path, ("image", "label")):
        words = [word.strip() for word in row["label"].split(",") if word.strip()]
        name = re.sub(r"[^A-Za-z0-9 ._-]+", "-", words[0]).strip(" .") if len(words) == 1 else SEVERAL
        found[row["image"]] = name if words and name else UNNAMED
    return found


def _rows(path: Path, columns: Sequence[str]) -> Iterator[tuple[int, dict[str, str]]]:
    """(line number, row) of a CSV file that has at least the given columns."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file)
            lacking = [column for column in columns if column not in (reader.fieldnames or ())]
            if lacking:
                raise DatasetError(f"{path}: expected a column {lacking[0]!r}, found {reader.fieldnames}")
            for row in reader:
                yield reader.line_num, {column: (row[column] or "").strip() for column in columns}
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DatasetError(f"{path}: cannot be read ({error})") from None
