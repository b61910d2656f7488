"""Writes a store's files: atomic and hashed; JSON files contain their own digest."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cache.format.layout import FORMAT
from cache.format.object_store import ObjectPath, StorePath
from idif import files
from idif.errors import IdifError, StoreDamaged, StoreError

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


def write_failed(path: Path, error: OSError) -> IdifError:
    """The error for a failed write: `StoreError` or `CannotFinish`, see `idif.files`."""
    return files.write_failed(path, error, StoreError)


def make_folder(path: Path) -> None:
    """Create a folder and its parents; durable when this returns.

    Raises:
        StoreError: the folder cannot be created. CannotFinish: no space is left, or the disk fails.
    """
    files.make_folder(path, StoreError)


def write_file(path: StorePath, data: bytes) -> None:
    """Write a file of a store, complete and durable or not at all; creates its folders.

    Raises:
        StoreError: the file cannot be written. CannotFinish: no space is left, or the disk fails.
    """
    if isinstance(path, ObjectPath):
        path.write_bytes(data)
        return
    make_folder(path.parent)
    files.replace_file(path, data, StoreError)


def remove_file(path: StorePath) -> None:
    """Remove a file of a store, if there is one.

    Raises:
        StoreError: it cannot be removed.
    """
    if isinstance(path, ObjectPath):
        path.unlink(missing_ok=True)
        return
    with files.writing(path, StoreError):
        files.remove_file(path)


def seal(value: dict[str, Any]) -> bytes:
    """Serialize a JSON object with its own SHA-256 (computed with the digest field set to zeros)."""
    body = json.dumps({"format": FORMAT, **value}, ensure_ascii=False, separators=(",", ":"))
    text = f'{_PREFIX}{_ZEROS}",{body[1:]}\n'
    sha256 = hashlib.sha256(text.encode()).hexdigest()
    return text.replace(_ZEROS, sha256, 1).encode()


def seal_of(data: bytes) -> str:
    """The digest (hex) inside the bytes made by `seal`."""
    start = len(_PREFIX)
    return data[start : start + 64].decode()


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
