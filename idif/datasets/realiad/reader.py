"""Reads the annotations of a dataset in the Real-IAD layout into an index of samples. No image is opened.

The layout, with ``images`` = ``realiad_256`` (or a sibling) and ``annotations`` = ``realiad_jsons``::

    ROOT/realiad_256/<category>/{OK,NG/<defect>}/S0001/<category>_0001_OK_C1_<time>.jpg
    ROOT/realiad_jsons/<category>.json        or one level deeper, realiad_jsons/realiad_jsons/

The label of a view is its ``anomaly_class``, never its folder: 26,881 test images under ``NG/`` are ``OK``.
Views are grouped by folder and sample number, never by their position in the list.
"""

import json
import posixpath
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from idif.data.index import NORMAL_CLASS, SPLITS, TRAIN_AND_TEST, Index, Sample, Split, View
from idif.datasets.realiad.files import RealIADLayout, annotation_files
from idif.errors import DatasetError
from idif.paths import is_plain, relative_posix, shown

MAX_JSON_BYTES = 64 * 2**20
"""Largest annotation file read, about 20 times the largest one of Real-IAD. Python's objects take ten times
as much memory."""

MAX_VIEW_NUMBER = 999

_FILE_NAME = re.compile(r"(?P<sample>[0-9]+)_(?:.*_)?C(?P<view>[0-9]+)_[^/]*")
"""The part of a file name after ``<category>_``; the last ``_C<view>_`` counts."""
_FILE_NAME_END = re.compile(r"(?P<sample>[0-9]+)_(?:.*_)?C(?P<view>[0-9]+)\.[^/.]*")
"""The same without anything after ``C<view>`` but the suffix."""


class _Photo(NamedTuple):
    """One parsed entry of an annotation file."""

    split: Split
    sample_id: str
    view: View
    origin: str | None
    """``of`` of the settings that an import recorded; None without."""


_FULL_NAME = re.compile(
    rf"(?P<category>.+?)_[0-9]{{4,}}_(?:{NORMAL_CLASS}|NG(?:_.+)?)_C[0-9]{{1,3}}_(?!(?:{'|'.join(SPLITS)}))[^/]+\.[^/.]+"
)
"""A complete file name of Real-IAD: ``<category>_<number>_{OK,NG_<defect>}_C<view>_<time>``. Names that an
import wrote, with a split in place of the time, are none."""


def read_realiad(
    layout: RealIADLayout,
    *,
    categories: Sequence[str] = (),
    split: Split | None = None,
    drop_incomplete: bool = False,
    views: Sequence[int] | None = None,
) -> Index:
    """The samples of a dataset, ordered by category, split (train first) and sample id.

    The view numbers of the index are all those of the chosen categories, in either split, so that train and
    test agree, or ``views``. A sample that lacks some of them has None in their slots; a sample
    that has none of them is left out. Paths are relative to the root; whether the files exist is not checked.

    Args:
        categories: empty for all.
        split: None for both.
        drop_incomplete: leave out every sample that lacks a view.
        views: the view numbers of the index, each of which some category of the dataset has, if not one of
            the chosen; None for all of theirs.

    Raises:
        DatasetError: a folder, category or view number does not exist, an annotation file is broken, a path
            leaves its folder, a view has two files, a sample is in both splits, or no sample of a category is
            left.
    """
    files = annotation_files(layout, categories)
    images = relative_posix(layout.images, "data.images")
    chosen = sorted(files)
    photos = {category: list(_read_photos(files[category], category, images)) for category in chosen}
    numbers = _view_numbers(files, photos)
    if views is not None:
        _require_views(views, numbers, layout, chosen)
        numbers = tuple(sorted(set(views)))
    samples: list[Sample] = []
    for category in chosen:
        grouped = _group(files[category], category, photos[category], numbers)
        usable = [s for s in grouped if (all(s.present) if drop_incomplete else any(s.present))]
        if not usable:
            which = "no complete sample" if drop_incomplete else "no sample"
            raise DatasetError(f"{files[category]}: {which} with the views {numbers} in train or test")
        samples += [s for s in usable if split in (None, s.split)]
    return Index(view_numbers=numbers, samples=tuple(samples))


def _load(path: Path) -> dict[str, Any]:
    """The annotation file as a JSON object with ``meta``, ``train`` and ``test``."""
    try:
        size = path.stat().st_size
        if size > MAX_JSON_BYTES:
            raise DatasetError(f"{path}: expected at most {MAX_JSON_BYTES:,} bytes, got {size:,}")
        content = json.loads(path.read_bytes())
    except DatasetError:
        raise
    except OSError as error:
        raise DatasetError(f"{path}: annotations cannot be read ({error.strerror})") from None
    except RecursionError:
        raise DatasetError(f"{path}: expected a JSON object, got one nested too deep to read") from None
    except ValueError as error:
        raise DatasetError(f"{path}: annotations are not valid JSON ({error})") from None
    _expect(content, dict, f"{path}: annotations")
    for key, kind in (("meta", dict), ("train", list), ("test", list)):
        _value(content, key, kind, f"{path}")
    return content  # type: ignore[no-any-return]


_KINDS: dict[type, str] = {dict: "an object", list: "a list", str: "a text", type(None): "null"}


def _expect(value: object, kind: type, where: str) -> None:
    if not isinstance(value, kind):
        came = _KINDS.get(type(value), f"{type(value).__name__} {shown(value)}")
        raise DatasetError(f"{where}: expected {_KINDS[kind]}, got {came}")


def _value(holder: dict[str, Any], key: str, kind: type, where: str) -> Any:
    """``holder[key]``. Raises `DatasetError` where it is missing or not of type ``kind``."""
    if key not in holder:
        raise DatasetError(f"{where}: expected the key {key!r}, but it is missing")
    _expect(holder[key], kind, f"{where}: {key}")
    return holder[key]


def _read_photos(path: Path, category: str, images: str) -> Iterator[_Photo]:
    """The entries of one annotation file, in its order."""
    content = _load(path)
    meta = content["meta"]
    prefix = relative_posix(_value(meta, "prefix", str, f"{path}: meta"), f"{path}: meta: prefix")
    normal = _value(meta, "normal_class", str, f"{path}: meta")
    folder = posixpath.normpath(f"{images}/{prefix}")
    imported = meta.get("imported")
    origin = imported.get("of") if isinstance(imported, dict) else None
    origin = origin if isinstance(origin, str) and is_plain(origin) else None
    for split in TRAIN_AND_TEST:
        for position, entry in enumerate(content[split]):
            where = f"{path}: {split}[{position}]"
            _expect(entry, dict, where)
            named = _value(entry, "category", str, where)
            if named != category:
                raise DatasetError(f"{where}: expected the file's category {category!r}, got {shown(named)}")
            yield _read_photo(entry, where, split, category, normal, folder)._replace(origin=origin)


def _read_photo(
    entry: dict[str, Any], where: str, split: Split, category: str, normal: str, folder: str
) -> _Photo:
    anomaly_class = _value(entry, "anomaly_class", str, where)
    if anomaly_class == normal:
        anomaly_class = NORMAL_CLASS
    elif anomaly_class == NORMAL_CLASS:
        raise DatasetError(
            f"{where}: anomaly_class is {NORMAL_CLASS!r}, but meta.normal_class {shown(normal)}"
        )
    if not anomaly_class or not is_plain(anomaly_class):
        raise DatasetError(f"{where}: expected a class name as anomaly_class, got {shown(anomaly_class)}")
    image = relative_posix(_value(entry, "image_path", str, where), f"{where}: image_path")
    if "mask_path" not in entry:
        raise DatasetError(f"{where}: expected the key 'mask_path' (a path or null), but it is missing")
    mask = entry["mask_path"]
    if mask is not None:
        _expect(mask, str, f"{where}: mask_path")
        mask = posixpath.join(folder, relative_posix(mask, f"{where}: mask_path"))

    parent, name = posixpath.split(image)
    numbers = _name_numbers(name, category) or re.fullmatch(f".*?_{_FILE_NAME.pattern}", name)
    if numbers is None:
        pattern = "<category>_<number>_<class>_C<view>_<time>"
        raise DatasetError(f"{where}: image_path: expected a file name {pattern}, got {shown(name)}")
    if len(numbers["view"]) > 9 or not 1 <= int(numbers["view"]) <= MAX_VIEW_NUMBER:
        raise DatasetError(f"{where}: image_path: expected a view 1 to {MAX_VIEW_NUMBER}, got {shown(name)}")
    sample_id = posixpath.join(category, parent)
    own_folder = re.fullmatch("S([0-9]+)", posixpath.basename(parent))
    if own_folder is None or own_folder[1].lstrip("0") != numbers["sample"].lstrip("0"):
        sample_id = posixpath.join(sample_id, numbers["sample"])
    source, camera = (_plain_text(entry.get(key)) for key in ("source", "camera"))
    view = View(
        int(numbers["view"]), posixpath.join(folder, image), mask, anomaly_class, source=source, camera=camera
    )
    return _Photo(split, sample_id, view, None)


def _plain_text(value: object) -> str | None:
    """An original name, which is only shown; None for one with control characters."""
    return value if isinstance(value, str) and value and is_plain(value) else None


def _name_numbers(name: str, category: str) -> re.Match[str] | None:
    rest = name.removeprefix(f"{category}_")
    return _FILE_NAME.fullmatch(rest) or _FILE_NAME_END.fullmatch(rest)


def read_file_name(name: str, categories: Sequence[str]) -> tuple[str, str, int] | None:
    """(category, sample number, view number) of a Real-IAD file name; None for other names.

    Only the given categories are recognized; the longest name that fits counts.
    """
    for category in sorted(categories, key=len, reverse=True):
        if name.startswith(f"{category}_"):
            numbers = _name_numbers(name, category)
            if numbers is not None and len(numbers["view"]) <= 3:
                return category, numbers["sample"], int(numbers["view"])
    return None


def read_full_name(name: str) -> str | None:
    """The category that a complete file name of Real-IAD tells, known or not; None for other names.

    Shorter names are none, since photographs of other origin have names such as ``part_0001_C1.jpg``.
    """
    full = _FULL_NAME.fullmatch(name)
    return None if full is None else full["category"]


def _view_numbers(files: dict[str, Path], photos: dict[str, list[_Photo]]) -> tuple[int, ...]:
    """Camera numbers of the chosen categories, ascending."""
    for category, entries in photos.items():
        if not entries:
            raise DatasetError(f"{files[category]}: train and test are both empty")
    return tuple(sorted({photo.view.number for entries in photos.values() for photo in entries}))


def _require_views(
    views: Sequence[int], numbers: Sequence[int], layout: RealIADLayout, chosen: Sequence[str]
) -> None:
    """Refuse view numbers that no category of the dataset has.

    Args:
        numbers: those of the chosen categories; the other categories are read only for numbers beyond them.
    """
    known, images = set(numbers), relative_posix(layout.images, "data.images")
    for category, path in annotation_files(layout).items():
        if set(views) <= known:
            break
        if category not in chosen:
            known |= {photo.view.number for photo in _read_photos(path, category, images)}
    unknown = sorted(set(views) - known)
    if unknown or not views:
        came = f"view {unknown[0]}" if unknown else "none"
        raise DatasetError(f"data.views: expected view numbers out of {sorted(known)}, got {came}")


def _group(path: Path, category: str, photos: list[_Photo], numbers: tuple[int, ...]) -> list[Sample]:
    """Samples of one category, train before test, by sample id."""
    splits: dict[str, Split] = {}
    slots: dict[str, dict[int, View]] = {}
    origin = photos[0].origin if photos else None
    for split, sample_id, view, _ in photos:
        if splits.setdefault(sample_id, split) != split:
            raise DatasetError(f"{path}: sample {shown(sample_id)} is in both train and test")
        first = slots.setdefault(sample_id, {}).setdefault(view.number, view)
        if first is not view:
            raise DatasetError(
                f"{path}: sample {shown(sample_id)} has two files for view {view.number}: "
                f"{shown(first.image)} and {shown(view.image)}"
            )
    order = sorted(slots, key=lambda sample_id: (splits[sample_id] == "test", sample_id))
    return [
        Sample(
            sample_id,
            category,
            splits[sample_id],
            tuple(slots[sample_id].get(n) for n in numbers),
            origin=origin,
        )
        for sample_id in order
    ]
