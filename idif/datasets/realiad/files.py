"""Which images, annotation files and categories a dataset in the Real-IAD layout has; no file is read."""

import difflib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

from idif.errors import DatasetError
from idif.paths import is_plain, relative_posix, resolve_inside, shown

DEFAULT_IMAGES = "realiad_256"

_NAMED = 10
"""Names listed in a message before it only counts the rest."""


def find_images(root: Path) -> str:
    """The folder of the images below ``root``: `DEFAULT_IMAGES`, or the only other one there is.

    Raises:
        DatasetError: several others and no default.
    """
    if (root / DEFAULT_IMAGES).is_dir():
        return DEFAULT_IMAGES
    others = [name for name in _siblings(root) if not _is_annotations(name)]
    if len(others) > 1:
        raise DatasetError(
            f"{root}: expected {DEFAULT_IMAGES} or a single folder of images{_listing(others)}; choose one "
            "with --images"
        )
    return others[0] if others else DEFAULT_IMAGES


def list_categories(root: Path, annotations: str = "realiad_jsons") -> list[str]:
    """The categories that have an annotation file, sorted.

    Raises:
        DatasetError: the root or the annotations' folder is missing or holds no annotation file.
    """
    return sorted(_annotation_files(root, annotations))


def annotation_files(
    root: Path, *, images: str, annotations: str, categories: Sequence[str] = ()
) -> dict[str, Path]:
    """Category -> annotation file of the categories asked for, without reading any.

    Raises:
        DatasetError: a folder or category that does not exist, or a link that leaves the root.
    """
    files = _annotation_files(root, annotations)
    images = relative_posix(images, "data.images")
    _require_folder(root, images, "images", lambda name: not _is_annotations(name))
    for category in categories:
        if category not in files:
            raise DatasetError(_unknown_category(root / annotations, category, sorted(files)))
    return {category: files[category] for category in sorted(set(categories) or files)}


def _annotation_files(root: Path, annotations: str) -> dict[str, Path]:
    """Category -> annotation file; a file in the folder itself goes before one a level deeper."""
    if not root.is_dir():
        raise DatasetError(f"{shown(str(root))}: expected the dataset's root, but there is no such folder")
    annotations = relative_posix(annotations, "data.annotations")
    _require_folder(root, annotations, "annotations", _is_annotations)
    folder = root / annotations
    files: dict[str, Path] = {}
    for place in (folder / folder.name, folder):
        # names that begin with a dot are an operating system's own
        found = [path for path in _children(place) if path.suffix.lower() == ".json" and path.name[0] != "."]
        for path in found:
            if not is_plain(path.name):
                raise DatasetError(f"{shown(str(path))}: a category's name holds control characters")
            if resolve_inside(root, path.relative_to(root).as_posix()).is_file():
                files[path.stem] = path
    if not files:
        below = [f"{annotations}/{path.name}" for path in _children(folder) if path.is_dir()]
        raise DatasetError(f"{folder}: expected files <category>.json, found none{_listing(below)}")
    return files


def _is_annotations(name: str) -> bool:
    return name.lower().startswith("realiad_jsons")


def _children(folder: Path) -> list[Path]:
    """What lies in ``folder``, sorted; nothing where it does not exist."""
    try:
        return sorted(folder.iterdir()) if folder.is_dir() else []
    except OSError as error:
        raise DatasetError(f"{folder}: cannot be listed ({error.strerror})") from None


def _require_folder(
    root: Path, name: str, what: Literal["images", "annotations"], alike: Callable[[str], bool]
) -> None:
    if not (root / name).is_dir():
        alternatives = _listing([sibling for sibling in _siblings(root) if alike(sibling)])
        raise DatasetError(f"{root / name}: expected the folder data.{what}, but it is missing{alternatives}")
    resolve_inside(root, name)


def _siblings(root: Path) -> list[str]:
    """Names of the folders of images and annotations below the root."""
    return [p.name for p in _children(root) if p.is_dir() and p.name.lower().startswith("realiad_")]


def _listing(names: Sequence[str]) -> str:
    """``; there is: a, b`` or nothing."""
    if not names:
        return ""
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return f"; there is: {', '.join(shown(name)[1:-1] for name in names[:_NAMED])}{more}"


def _unknown_category(folder: Path, category: str, known: list[str]) -> str:
    """The sentence for a category that does not exist, with the nearest that do."""
    lower = {name.lower(): name for name in known}
    near = [lower[name] for name in difflib.get_close_matches(category.lower(), lower)]
    hint = f" (did you mean {' or '.join(near)}?)" if near else ""
    return f"{folder}: no annotations of category {shown(category)}{hint}{_listing(known)}"
