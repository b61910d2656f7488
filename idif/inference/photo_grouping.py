"""Assigns the photographs of `idif predict` to samples and views."""

import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from idif.data.images import SUFFIXES
from idif.datasets.realiad.reader import read_file_name
from idif.errors import DatasetError
from idif.paths import is_plain, portable_name, shown

RESULTS_FILE = "predictions.jsonl"
"""File of all results beside the parts' folders."""


@dataclass(frozen=True)
class PredictInput:
    """One part to score."""

    name: str
    """Unique among the parts of one call, and valid as a file name."""
    category: str
    images: tuple[Path | None, ...]
    """One slot per view of the run; None if there is no photograph."""


def find_parts(
    given: Sequence[Path], view_numbers: Sequence[int], categories: Sequence[str], category: str | None = None
) -> list[PredictInput]:
    """Group photographs into parts.

    Files named as in Real-IAD (``<category>_<number>_..._C<view>_...``) are grouped by folder, category and
    number. All other files of one folder (or all given individually) are one part of ``category``, with
    views in the order of their names (or as given); for a run with one view each file is a part.

    Args:
        given: files, or folders that are searched recursively; a PNG beside a JPEG of the same name, or a
            file ``X_mask`` beside ``X``, is a mask and is skipped. Files need not exist.
        view_numbers: the run's cameras, one for each slot.
        categories: the run's categories.
        category: category of files whose names do not contain it; optional for runs with one category.

    Raises:
        DatasetError: no photographs, an ambiguous category, view or grouping, two files for one view, or a
            name with control characters.
    """
    if category is not None and category not in categories:
        raise DatasetError(f"--category {shown(category)}: the run has {', '.join(categories)}")
    named: dict[tuple[Path, str, str], dict[int, Path]] = {}
    unnamed: dict[Path | None, list[Path]] = defaultdict(list)
    for path, folder in _files(given):
        told = read_file_name(path.name, categories)
        if told is None:
            unnamed[folder].append(path)
            continue
        of, number, view = told
        if category not in (None, of):
            raise DatasetError(f"{path}: named as a view of {of}, but --category is {category}")
        if view not in view_numbers:
            raise DatasetError(f"{path}: view {view}, but the run has views {list(view_numbers)}")
        views = named.setdefault((path.parent, of, number), {})
        if view in views:
            raise DatasetError(f"{path}: a second file for view {view}; the first is {views[view]}")
        views[view] = path
    parts = [
        PredictInput(f"{of}_{number}", of, tuple(views.get(n) for n in view_numbers))
        for (_, of, number), views in named.items()
    ]
    for folder, paths in unnamed.items():
        parts += _unnamed_parts(folder, paths, len(view_numbers), _only(categories, category, paths[0]))
    if not parts:
        raise DatasetError(f"{given[0]}: expected photographs ({', '.join(SUFFIXES)}), found none")
    return _uniquely_named(parts)


def _files(given: Sequence[Path]) -> Iterator[tuple[Path, Path | None]]:
    """Every photograph with its folder; None for files given individually."""
    for path in given:
        if not path.is_dir():
            yield _plain(path), None
            continue
        found = [p for p in path.rglob("*") if p.suffix.lower() in SUFFIXES and p.is_file()]
        jpegs = {p.with_suffix("") for p in found if p.suffix.lower() in (".jpg", ".jpeg")}
        # in Real-IAD the mask of a JPEG is a PNG of the same name beside it
        found = [p for p in found if p.suffix.lower() != ".png" or p.with_suffix("") not in jpegs]
        # in imported data the mask of X.png is X_mask.png
        stems = {p.with_suffix("") for p in found}
        masks = {stem.with_name(f"{stem.name}_mask") for stem in stems} & stems
        found = [p for p in found if p.with_suffix("") not in masks]
        for file in sorted(found, key=lambda p: (p.parent, _natural(p.name))):
            yield _plain(file), file.parent


def _plain(path: Path) -> Path:
    """Check ``path``, since its name becomes part of messages and file names."""
    if not is_plain(str(path)):
        raise DatasetError(f"{shown(str(path))}: expected a name without control characters")
    return path


def _natural(name: str) -> list[tuple[int, str]]:
    """Sort key in natural order: ``view2`` before ``view10``."""
    return [(int(t), "") if t.isdecimal() else (-1, t) for t in re.split(r"([0-9]+)", name.lower())]


def _only(categories: Sequence[str], category: str | None, path: Path) -> str:
    if category is not None:
        return category
    if len(categories) > 1:
        raise DatasetError(
            f"{path}: its name does not say which category it is; name one of {', '.join(categories)} "
            "with --category"
        )
    return categories[0]


def _unnamed_parts(folder: Path | None, paths: list[Path], views: int, category: str) -> list[PredictInput]:
    if views == 1:
        return [PredictInput(path.stem, category, (path,)) for path in paths]
    if len(paths) > views:
        where = paths[0].parent if folder is None else folder
        raise DatasetError(
            f"{where}: {len(paths)} photographs, but a part has {views} views; put each part into a "
            "folder of its own, or name files <category>_<number>_C<view>_<anything>"
        )
    name = paths[0].stem if folder is None else folder.resolve().name
    return [PredictInput(name, category, (*paths, *[None] * (views - len(paths))))]


def _uniquely_named(parts: list[PredictInput]) -> list[PredictInput]:
    used = {RESULTS_FILE}
    unique = []
    for part in parts:
        # a photograph's name becomes a folder's: "...jpg" without its suffix would be the parent folder
        plain = portable_name(part.name)
        name, again = plain, 2
        # on case-insensitive file systems two parts could otherwise share a folder
        while name.lower() in used:
            name, again = f"{plain}-{again}", again + 1
        used.add(name.lower())
        unique.append(PredictInput(name, part.category, part.images))
    return unique
