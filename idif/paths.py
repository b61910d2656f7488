"""Untrusted names and paths from data: checked before they are joined, resolved before they are opened."""

import posixpath
import re
import unicodedata
from pathlib import Path

from idif.errors import DatasetError

_SHOWN = 200
_LONGEST_PATH, _LONGEST_NAME = 4096, 255
_ROOM_FOR_ENDINGS = 24
"""Bytes of a name that stay free for what is added to it: a suffix, ``.tmp``, a number."""
LONGEST_PORTABLE_NAME = 100
_SEPARATORS = re.compile(r'[\\/:*?"<>|]')
_RESERVED = re.compile(r"(?:con|prn|aux|nul|conin\$|conout\$|(?:com|lpt)[0-9¹²³])(?:\..*)? *", re.IGNORECASE)
"""Names that are devices on Windows, with any ending."""
_UNSAFE = {"Cc", "Cs", "Zl", "Zp"}
"""Unicode categories forbidden in paths and names: control characters, lone surrogates, line separators."""


def shown(value: object) -> str:
    """``value`` for a message: one line, every control character escaped, cut after 200 characters."""
    text = repr(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


def is_plain(text: str) -> bool:
    """True where ``text`` holds no control character, no line separator and no lone surrogate."""
    return text.isprintable() or all(unicodedata.category(char) not in _UNSAFE for char in text)


def is_portable_name(text: str) -> bool:
    """Whether ``text`` can be the name of one file or folder on every system.

    It is not where it is empty, hidden, ``..``, longer than 100 characters, reserved by Windows (``con``,
    ``nul.txt``), ends in a dot or a space, or holds a separator, a control character or one of ``:*?"<>|``.
    """
    return (
        0 < len(text) <= LONGEST_PORTABLE_NAME
        and is_plain(text)
        and len(text.encode()) <= _LONGEST_NAME - _ROOM_FOR_ENDINGS
        and text[0] not in ". "
        and text[-1] not in ". "
        and not _SEPARATORS.search(text)
        and not _RESERVED.fullmatch(text)
    )


def portable_name(text: str) -> str:
    """``text`` with everything replaced that `is_portable_name` refuses; unchanged where it is portable."""
    plain = "".join("_" if unicodedata.category(char) in _UNSAFE else char for char in text)
    plain = _SEPARATORS.sub("_", plain)[:LONGEST_PORTABLE_NAME]
    plain = plain.encode()[: _LONGEST_NAME - _ROOM_FOR_ENDINGS].decode(errors="ignore")
    plain = re.sub("^[. ]|[. ]$", "_", plain) or "_"
    plain = f"_{plain}"[:LONGEST_PORTABLE_NAME] if _RESERVED.fullmatch(plain) else plain
    assert is_portable_name(plain), plain
    return plain


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
    encoded = path.encode()  # a file system counts bytes, not characters
    if len(encoded) > _LONGEST_PATH or any(len(part) > _LONGEST_NAME for part in encoded.split(b"/")):
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
