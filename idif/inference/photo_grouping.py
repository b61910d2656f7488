"""Assigns the photographs of `idif predict` to samples and views."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from idif.data.images import SUFFIXES
from idif.data.photo_files import (
    RESOURCE_FORK,
    NamedCamera,
    describe_left_out,
    find_photos,
    natural_key,
    read_camera,
    read_named_camera,
)
from idif.datasets.realiad.reader import read_file_name, read_full_name
from idif.errors import DatasetError
from idif.paths import is_plain, portable_name, shown

RESULTS_FILE = "predictions.jsonl"
"""File of all results beside the parts' folders."""
AUTO = "auto"
"""Category of parts whose category is to be told by their photographs."""


class UnclearCameras(DatasetError):
    """Photographs whose names do not say which camera each is of."""


@dataclass(frozen=True)
class PredictInput:
    """One part to score."""

    name: str
    """Unique among the parts of one call, and valid as a file name."""
    category: str
    images: tuple[Path | None, ...]
    """One slot per view of the run; None if there is no photograph."""
    probabilities: Mapping[str, float] | None = None
    """Probability of each of the run's categories, highest first, if the category was told by them."""


def find_parts(
    given: Sequence[Path],
    view_numbers: Sequence[int],
    categories: Sequence[str],
    category: str | None = None,
    cameras: Mapping[int, str] | None = None,
) -> list[PredictInput]:
    """Group photographs into parts.

    Files named as in Real-IAD (``<category>_<number>_..._C<view>_...``) are grouped by folder, category and
    number. Other files whose names tell a camera, by its name (``part7_Top.png``) or number (`read_camera`:
    ``part7_C3_x.jpg``, ``cam3.png``), are grouped by folder and by the rest of the name; so are files in
    folders that are named as cameras (``Top/part7.png``), by the file's name. All other files of one folder
    (or all given individually) are one part of ``category``, with views in the natural order of their names
    (or as given); for a run with one view each file is a part.

    Args:
        given: files, or folders that are searched recursively; a PNG beside a JPEG of the same name, or a
            file ``X_mask`` beside ``X``, is a mask and is skipped, as are hidden files and ``__MACOSX``.
            Files need not exist.
        view_numbers: the run's cameras, one for each slot.
        categories: the run's categories.
        category: category of files whose names do not contain it, or `AUTO`; optional for runs with one
            category.
        cameras: camera number -> its name in the source of the training data.

    Raises:
        UnclearCameras: an ambiguous view or grouping, a camera that the run does not have, or two files for
            one view.
        DatasetError: no photographs, an ambiguous category, a complete name of Real-IAD with a category that
            the run does not have, a name with control characters, or no photographs but pictures of other
            kinds.
    """
    if category is not None and category not in (*categories, AUTO):
        raise DatasetError(f"--category {shown(category)}: the run has {', '.join(categories)}")
    named: dict[tuple[Path, str, str], dict[int, Path]] = {}
    unnamed: dict[Path | None, list[Path]] = defaultdict(list)
    for path, folder in photographs(given):
        told = read_file_name(path.name, categories)
        if told is None:
            _refuse_foreign(path, categories, category)
            unnamed[folder].append(path)
            continue
        of, number, view = told
        if category not in (None, of) and not is_automatic(category, categories):
            raise DatasetError(f"{path}: named as a view of {of}, but --category is {category}")
        _place(named.setdefault((path.parent, of, f"{of}_{number}"), {}), path, view, view_numbers)
    names = dict(cameras or {})
    by_folder = _in_camera_folders(
        [path for paths in unnamed.values() for path in paths], names, view_numbers
    )
    for path, camera in by_folder.items():
        of = _only(categories, category, path)
        views = named.setdefault((path.parent.parent, of, camera.part), {})
        _place(views, path, camera.number, view_numbers)
    parts = []
    for folder, listed in unnamed.items():
        paths = [path for path in listed if path not in by_folder]
        if not paths:
            continue
        of = _only(categories, category, paths[0])
        by_camera = _told_cameras(paths, len(view_numbers), names)
        if not by_camera:
            parts += _unnamed_parts(folder, paths, len(view_numbers), of, names)
            continue
        silent = next((path for path in paths if path not in by_camera), None)
        if silent is not None:
            raise UnclearCameras(
                f"{silent}: its name tells no camera, but that of {next(iter(by_camera)).name} does; name "
                "both alike, or put each part into a folder of its own"
            )
        for path, camera in by_camera.items():
            name = camera.part or (_FIRST if folder is None else folder.resolve().name)
            views = named.setdefault((path.parent, of, name), {})
            _place(views, path, camera.number, view_numbers)
    parts = [
        PredictInput(
            next(path.stem for path in views.values()) if name == _FIRST else name,
            of,
            tuple(views.get(n) for n in view_numbers),
        )
        for (_, of, name), views in named.items()
    ] + parts
    if not parts:
        raise DatasetError(
            left_out_of(given) or f"{given[0]}: expected photographs ({', '.join(SUFFIXES)}), found none"
        )
    return _uniquely_named(parts)


def told_cameras(
    paths: Sequence[Path],
    view_numbers: Sequence[int],
    categories: Sequence[str],
    cameras: Mapping[int, str],
) -> dict[Path, int]:
    """Camera number of each photograph of one part whose name tells one; see `find_parts`.

    Left out are photographs of a camera that the run does not have or that another one's name tells as well.
    """
    told: dict[Path, int] = {}
    for path in paths:
        by_name = read_named_camera(path.stem, cameras) or read_camera(path.stem)
        if (realiad := read_file_name(path.name, categories)) is not None:
            told[path] = realiad[2]
        elif by_name is not None:
            told[path] = by_name.number
    numbers = list(told.values())
    return {path: n for path, n in told.items() if n in view_numbers and numbers.count(n) == 1}


def is_automatic(category: str | None, categories: Sequence[str]) -> bool:
    """Whether a category is `AUTO` and no category of the run of that name."""
    return category == AUTO and AUTO not in categories


def left_out_of(given: Sequence[Path]) -> str | None:
    """A sentence about the pictures in the folders that `find_parts` does not read; None without any."""
    found = [find_photos(path) for path in given if path.is_dir()]
    return describe_left_out(tuple(path for photos in found for path in photos.left_out))


_FIRST = ""
"""Name of a part that is named after its first photograph."""


def _in_camera_folders(
    paths: Sequence[Path], names: Mapping[int, str], view_numbers: Sequence[int]
) -> dict[Path, NamedCamera]:
    """The cameras of files whose folders are named as cameras; the files' names are those of the parts.

    A run of one view has no folders of cameras.
    """
    if len(view_numbers) < 2:
        return {}
    found = {}
    for path in paths:
        folder = path.parent.name
        by_name = next((n for n, name in names.items() if name.casefold() == folder.casefold()), None)
        if by_name is not None and read_named_camera(path.stem, names) is None:
            found[path] = NamedCamera(by_name, path.stem)
    return found


def _told_cameras(paths: Sequence[Path], views: int, names: Mapping[int, str]) -> dict[Path, NamedCamera]:
    """The cameras that names tell; in a run of one view, a name that is nothing else is only a name."""
    cameras = {path: read_named_camera(path.stem, names) or read_camera(path.stem) for path in paths}
    return {path: c for path, c in cameras.items() if c is not None and (views > 1 or c.part)}


def _place(views: dict[int, Path], path: Path, view: int, view_numbers: Sequence[int]) -> None:
    """Put a photograph into the slot of its camera."""
    if view not in view_numbers:
        raise UnclearCameras(f"{path}: view {view}, but the run has views {list(view_numbers)}")
    if view in views:
        raise UnclearCameras(f"{path}: a second file for view {view}; the first is {views[view]}")
    views[view] = path


def photographs(given: Sequence[Path]) -> Iterator[tuple[Path, Path | None]]:
    """Every photograph of `find_parts`, without masks, with its folder; None for files given individually.

    Raises:
        DatasetError: a name with control characters.
    """
    for path in given:
        if not path.is_dir():
            if not path.name.startswith(RESOURCE_FORK):
                yield _plain(path), None
            continue
        found = [p for p in find_photos(path).files if p.is_file()]
        jpegs = {p.with_suffix("") for p in found if p.suffix.lower() in (".jpg", ".jpeg", ".jfif")}
        # in Real-IAD the mask of a JPEG is a PNG of the same name beside it
        found = [p for p in found if p.suffix.lower() != ".png" or p.with_suffix("") not in jpegs]
        # in imported data the mask of X.png is X_mask.png
        stems = {p.with_suffix("") for p in found}
        masks = {stem.with_name(f"{stem.name}_mask") for stem in stems} & stems
        found = [p for p in found if p.with_suffix("") not in masks]
        for file in sorted(found, key=lambda p: (p.parent, natural_key(p.name))):
            yield _plain(file), file.parent


def _plain(path: Path) -> Path:
    """Check ``path``, since its name becomes part of messages and file names."""
    if not is_plain(str(path)):
        raise DatasetError(f"{shown(str(path))}: expected a name without control characters")
    return path


def _refuse_foreign(path: Path, categories: Sequence[str], category: str | None) -> None:
    """Refuse a photograph whose name is complete as in Real-IAD, of none of the run's categories."""
    if (of := read_full_name(path.name)) is None:
        return
    expected = f"the run has {', '.join(categories)}"
    if category is not None and not is_automatic(category, categories):
        expected = f"--category is {category}"
    raise DatasetError(
        f"{path}: named as a view of {of}, but {expected}; rename it if that is not its category"
    )


def _only(categories: Sequence[str], category: str | None, path: Path) -> str:
    if category is not None:
        return category
    if len(categories) > 1:
        raise DatasetError(
            f"{path}: its name does not say which category it is; name one of {', '.join(categories)} "
            f"with --category, or --category {AUTO}"
        )
    return categories[0]


def _unnamed_parts(
    folder: Path | None, paths: list[Path], views: int, category: str, names: Mapping[int, str]
) -> list[PredictInput]:
    if views == 1:
        return [PredictInput(path.stem, category, (path,)) for path in paths]
    if len(paths) > views:
        where = paths[0].parent if folder is None else folder
        raise UnclearCameras(
            f"{where}: {len(paths)} photographs, but a part has {views} views; put each part into a "
            f"folder of its own, or name files <part>_{next(iter(names.values()), 'C1')}, with the camera at "
            "the end, or <category>_<number>_C<view>_<anything>"
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
        unique.append(replace(part, name=name))
    return unique
