"""Untrusted paths from data: checked before they are joined, resolved before they are opened."""

import posixpath
import re
import unicodedata
from pathlib import Path

from idif.errors import DatasetError

_SHOWN = 200
_LONGEST_PATH, _LONGEST_NAME = 4096, 255
_UNSAFE = {"Cc", "Cs", "Zl", "Zp"}
"""Unicode categories forbidden in paths and names: control characters, lone surrogates, line separators."""


def shown(value: object) -> str:
    """``value`` for a message: one line, every control character escaped, cut after 200 characters."""
    text = repr(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


def is_plain(text: str) -> bool:
    """True where ``text`` holds no control character, no line separator and no lone surrogate."""
    return text.isprintable() or all(unicodedata.category(char) not in _UNSAFE for char in text)


def relative_posix(text: str, where: str) -> str:
    """``text`` as a normalized POSIX path that stays inside the folder it is relative to.

    An empty text is the folder itself (``.``). The disk is not accessed.

    Args:
        where: file and key that contain the text; begins the error message.

    Raises:
        DatasetError: absolute, with a drive letter, backslash or control character, too long,
            or leaving by ``..``.
    """
    if not is_plain(text):
        raise DatasetError(f"{where}: expected a path without control characters, got {shown(text)}")
    if "\\" in text:
        raise DatasetError(f"{where}: expected a path with forward slashes, got {shown(text)}")
    if text.startswith("/") or re.match("[A-Za-z]:", text):
        raise DatasetError(f"{where}: expected a relative path, got {shown(text)}")
    path = posixpath.normpath(text)
    if len(path) > _LONGEST_PATH or any(len(part) > _LONGEST_NAME for part in path.split("/")):
        raise DatasetError(f"{where}: expected a path short enough for a file system, got {shown(text)}")
    if path.split("/", 1)[0] == "..":
        raise DatasetError(f"{where}: expected a path that stays inside its folder, got {shown(text)}")
    return path


def resolve_inside(root: Path, relative: str) -> Path:
    """``root/relative`` with every symbolic link followed, for opening.

    Raises:
        DatasetError: the path leaves the resolved root, by ``..`` or through a link, or a link loops.
    """
    relative = relative_posix(relative, str(root))
    try:
        base = root.resolve()
        path = (base / relative).resolve()
    except (OSError, RuntimeError) as error:
        raise DatasetError(f"{root}: {shown(relative)} cannot be resolved ({error})") from None
    if not path.is_relative_to(base):
        raise DatasetError(
            f"{root}: {shown(relative)} is a link to {shown(str(path))}, outside the dataset's root"
        )
    return path
