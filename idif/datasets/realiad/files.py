"""Folders, annotation files and categories of a dataset in the Real-IAD layout; no file is read."""

import difflib
import posixpath
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from idif.errors import DatasetError
from idif.paths import is_portable_name, relative_posix, resolve_inside, shown

DEFAULT_IMAGES = "realiad_256"
DEFAULT_ANNOTATIONS = "realiad_jsons"
ORIGINAL = "original"
"""The size of an import that copies photographs, as options and the folder of the images name it."""

_MAX_LISTED = 10
"""Names listed in a message before it only counts the rest."""


@dataclass(frozen=True)
class RealIADLayout:
    """The folders of one dataset in the Real-IAD layout."""

    root: Path
    images: str = DEFAULT_IMAGES
    """Folder of the images and masks, relative to the root."""
    annotations: str = DEFAULT_ANNOTATIONS
    """Folder of the ``<category>.json`` files, relative to the root."""

    @property
    def keeps_sizes(self) -> bool:
        """Whether the images are photographs that an import copied, each in its own size."""
        return posixpath.basename(relative_posix(self.images, "data.images")) == images_folder(None)


def images_folder(size: int | None) -> str:
    """Name of the folder of square images of this side in pixels, or of photographs in their own sizes."""
    return f"realiad_{size or ORIGINAL}"


def find_images(root: Path) -> str:
    """Name of the folder of the images below ``root``: `DEFAULT_IMAGES`, or else the only other one.

    Raises:
        DatasetError: there are several others and no `DEFAULT_IMAGES`.
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


def list_categories(layout: RealIADLayout) -> list[str]:
    """The categories that have an annotation file, sorted.

    Raises:
        DatasetError: the root or the annotations' folder is missing or holds no annotation file.
    """
    return sorted(_all_annotation_files(layout))


def annotation_files(layout: RealIADLayout, categories: Sequence[str] = ()) -> dict[str, Path]:
    """Category -> annotation file, without reading any.

    Args:
        categories: empty for all.

    Raises:
        DatasetError: a folder or category that does not exist, or a link that leaves the root.
    """
    files = _all_annotation_files(layout)
    images = relative_posix(layout.images, "data.images")
    _require_folder(layout.root, images, "images", lambda name: not _is_annotations(name))
    for category in categories:
        if category not in files:
            folder = layout.root / layout.annotations
            raise DatasetError(_unknown_category(folder, category, sorted(files)))
    return {category: files[category] for category in sorted(set(categories) or files)}


def _all_annotation_files(layout: RealIADLayout) -> dict[str, Path]:
    """Category -> annotation file; a file in the folder itself takes precedence over one a level deeper."""
    root = layout.root
    if not root.is_dir():
        raise DatasetError(f"{shown(str(root))}: expected the dataset's root, but there is no such folder")
    annotations = relative_posix(layout.annotations, "data.annotations")
    _require_folder(root, annotations, "annotations", _is_annotations)
    folder = root / annotations
    files: dict[str, Path] = {}
    for parent in (folder / folder.name, folder):
        for path in _children(parent):
            # names that begin with a dot belong to the operating system
            if path.suffix.lower() != ".json" or path.name[0] == ".":
                continue
            if not is_portable_name(path.stem):
                raise DatasetError(
                    f"{shown(str(path))}: expected a category's name that can be a folder's on every system"
                )
            if resolve_inside(root, path.relative_to(root).as_posix()).is_file():
                files[path.stem] = path
    if not files:
        below = [f"{annotations}/{path.name}" for path in _children(folder) if path.is_dir()]
        raise DatasetError(f"{folder}: expected files <category>.json, found none{_listing(below)}")
    return files


def _is_annotations(name: str) -> bool:
    return name.lower().startswith("realiad_jsons")


def _children(folder: Path) -> list[Path]:
    """Paths in ``folder``, sorted; none where it does not exist."""
    try:
        return sorted(folder.iterdir()) if folder.is_dir() else []
    except OSError as error:
        raise DatasetError(f"{folder}: cannot be listed ({error.strerror})") from None


def _require_folder(
    root: Path, name: str, what: Literal["images", "annotations"], is_alternative: Callable[[str], bool]
) -> None:
    if not (root / name).is_dir():
        alternatives = _listing([sibling for sibling in _siblings(root) if is_alternative(sibling)])
        steps = f"idif data import folder {root} OUT"
        hint = (
            "" if _siblings(root) else f"; import your own photographs with `{steps}`, then give --root OUT"
        )
        raise DatasetError(
            f"{root / name}: expected the folder data.{what}, but it is missing{alternatives}{hint}"
        )
    resolve_inside(root, name)


def _siblings(root: Path) -> list[str]:
    """Names of the folders of images and annotations below the root."""
    return [p.name for p in _children(root) if p.is_dir() and p.name.lower().startswith("realiad_")]


def _listing(names: Sequence[str]) -> str:
    """``; there is: a, b``, or an empty text."""
    if not names:
        return ""
    more = f" and {len(names) - _MAX_LISTED} more" if len(names) > _MAX_LISTED else ""
    return f"; there is: {', '.join(shown(name)[1:-1] for name in names[:_MAX_LISTED])}{more}"


def _unknown_category(folder: Path, category: str, known: list[str]) -> str:
    """Message for a category that does not exist, with similar names that do."""
    lower = {name.lower(): name for name in known}
    similar = [lower[name] for name in difflib.get_close_matches(category.lower(), lower)]
    hint = f" (did you mean {' or '.join(similar)}?)" if similar else ""
    return f"{folder}: no annotations of category {shown(category)}{hint}{_listing(known)}"
