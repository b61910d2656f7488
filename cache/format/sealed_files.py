"""Writes a store's files: atomic and hashed; JSON files contain their own digest."""

import errno
import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cache.format.layout import FORMAT
from cache.format.object_store import ObjectPath, StorePath
from idif.errors import CannotFinish, StoreDamaged, StoreError
from idif.files import replace_file

_ZEROS = "0" * 64
_PREFIX = '{"sha256":"'


@dataclass(frozen=True)
class FileRecord:
    """Size and hash of one file, as a manifest lists it."""

    size: int
    sha256: str

    @classmethod
    def of(cls, data: bytes) -> "FileRecord":
        """The record of a file with this content."""
        return cls(len(data), hashlib.sha256(data).hexdigest())


def write_failed(path: Path, error: OSError) -> Exception:
    """The `IdifError` for a failed write."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return CannotFinish(f"{path}: no space left on the device")
    return StoreError(f"{path}: cannot be written ({error.strerror or error})")


def make_folder(path: Path) -> None:
    """Create a folder and its parents.

    Raises:
        StoreError: the folder cannot be created.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise write_failed(path, error) from None


def write_file(path: StorePath, data: bytes) -> None:
    """Write a file of a store atomically (`idif.files.replace_file`); creates its folders.

    Raises:
        StoreError: the file cannot be written. CannotFinish: no space is left.
    """
    if isinstance(path, ObjectPath):
        path.write_bytes(data)
        return
    make_folder(path.parent)
    try:
        replace_file(path, data)
    except OSError as error:
        raise write_failed(path, error) from None


def seal(value: dict[str, Any]) -> bytes:
    """Serialize a JSON object with its own SHA-256 (computed with the digest field set to zeros)."""
    body = json.dumps({"format": FORMAT, **value}, ensure_ascii=False, separators=(",", ":"))
    text = f'{_PREFIX}{_ZEROS}",{body[1:]}\n'
    sha256 = hashlib.sha256(text.encode()).hexdigest()
    return text.replace(_ZEROS, sha256, 1).encode()


def unseal(path: StorePath) -> dict[str, Any]:
    """Read and check a file written with `seal`.

    Raises:
        FileNotFoundError: the file does not exist.
        StoreDamaged, StoreError: as `unseal_bytes`, or the file cannot be read.
    """
    try:
        raw = path.read_bytes()
    except FileNotFoundError:
        raise
    except OSError as error:
        raise StoreDamaged(f"{path}: cannot be read ({error.strerror or error})") from None
    return unseal_bytes(raw, str(path))


def unseal_bytes(raw: bytes, where: str) -> dict[str, Any]:
    """Check and parse the bytes made by `seal`.

    Raises:
        StoreDamaged: a byte differs from the written one; ``where`` is named.
        StoreError: it was written by another version of the format.
    """
    start = len(_PREFIX)
    zeroed = raw[:start] + _ZEROS.encode() + raw[start + 64 :]
    sha256 = hashlib.sha256(zeroed).hexdigest().encode()
    if not raw.startswith(_PREFIX.encode()) or raw[start : start + 64] != sha256:
        raise StoreDamaged(f"{where}: not the bytes that were written (its own SHA-256 does not match)")
    value: dict[str, Any] = json.loads(raw)
    if value["format"] != FORMAT:
        raise StoreError(f"{where}: format {value['format']!r}, expected {FORMAT}; build the store again")
    return value
