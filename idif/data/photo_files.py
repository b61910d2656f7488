"""Finds the photographs below a folder, and reads the camera that a file's name tells."""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from idif.data.images import SUFFIXES
from idif.errors import DatasetError

OTHER_PICTURES = (".heic", ".heif", ".avif", ".gif", ".jp2", ".jxl", ".dng", ".cr2", ".nef", ".arw", ".raw")
"""Suffixes of pictures that are not read."""
RESOURCE_FORK = "._"
"""Beginning of the names of files that macOS writes beside others."""
MAC_FOLDER = "__MACOSX"
"""Folder that archives of macOS contain beside the files."""

_CAMERA = re.compile(r"(?:C|(?i:cam|camera|view)[-_ ]?)0*([0-9]{1,3})")
_SEPARATORS = r"[_\-. ]+"


@dataclass(frozen=True)
class PhotoFiles:
    """The photographs of a folder."""

    files: tuple[Path, ...]
    """In no particular order."""
    left_out: tuple[Path, ...]
    """Pictures of other kinds, and linked folders, which are not followed."""


@dataclass(frozen=True)
class NamedCamera:
    """The camera that a file's name tells."""

    number: int
    part: str
    """The name in front of it, or behind it if it comes first; may be empty."""


def find_photos(folder: Path) -> PhotoFiles:
    """Every photograph below ``folder``, hidden files and the notes of macOS excepted.

    Raises:
        DatasetError: a folder cannot be listed.
    """

    def refuse(error: OSError) -> None:
        raise DatasetError(f"{error.filename}: cannot be listed ({error.strerror or error})")

    files, left_out = [], []
    for parent, folders, names in os.walk(folder, onerror=refuse):
        visible = [name for name in sorted(folders) if not is_hidden(name)]
        links = [name for name in visible if (Path(parent) / name).is_symlink()]
        left_out += [Path(parent) / name for name in links]
        folders[:] = [name for name in visible if name not in links]
        for name in names:
            suffix = Path(name).suffix.lower()
            if suffix in SUFFIXES and not is_hidden(name):
                files.append(Path(parent) / name)
            elif suffix in OTHER_PICTURES and not is_hidden(name):
                left_out.append(Path(parent) / name)
    return PhotoFiles(tuple(files), tuple(left_out))


def is_hidden(name: str) -> bool:
    """Whether a file or folder belongs to the system: it begins with a dot, or is that of macOS's notes."""
    return name.startswith(".") or name == MAC_FOLDER


def describe_left_out(left_out: tuple[Path, ...]) -> str | None:
    """A sentence about the pictures that were not read; None where there are none."""
    if not left_out:
        return None
    kinds = sorted({path.suffix.lower() or "linked folder" for path in left_out})
    return (
        f"{len(left_out)} pictures or linked folders are not read ({', '.join(kinds)}), the first is "
        f"{left_out[0]}; expected {', '.join(SUFFIXES)} in folders of their own"
    )


def natural_key(name: str) -> list[tuple[int, str]]:
    """Sort key in natural order: ``view2`` before ``view10``, upper and lower case alike."""
    pieces = re.split("([0-9]+)", name.casefold())
    return [*((int(t), "") if t.isdecimal() else (-1, t) for t in pieces), (-2, name)]


def read_named_camera(stem: str, names: Mapping[int, str]) -> NamedCamera | None:
    """The camera whose name, in upper or lower case, occurs between separators; the last one counts.

    Args:
        stem: of a file, or a folder's name.
        names: camera number -> name.
    """
    found, at = None, (-1, -1)
    for number, name in names.items():
        pattern = rf"(?:^|(?<=[_\-. ])){re.escape(name)}(?=[_\-. ]|$)"
        for match in re.finditer(pattern, stem, re.IGNORECASE):
            # of names that end alike, such as left and far-left, the longest
            if (match.end(), -match.start()) > at:
                part = re.sub(f"{_SEPARATORS}$", "", stem[: match.start()])
                found = NamedCamera(number, part or re.sub(f"^{_SEPARATORS}", "", stem[match.end() :]))
                at = (match.end(), -match.start())
    return found


def read_camera(stem: str) -> NamedCamera | None:
    """The camera that a name tells: ``C3``, ``cam3``, ``view-03`` between separators; the last one counts."""
    found = None
    for start in [0, *(match.end() for match in re.finditer(_SEPARATORS, stem))]:
        camera = re.compile(f"{_CAMERA.pattern}(?=[_\\-. ]|$)").match(stem, start)
        if camera is not None:
            found = NamedCamera(int(camera[1]), re.sub(f"{_SEPARATORS}$", "", stem[:start]))
    return found
