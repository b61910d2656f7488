"""JSON files that contain their own digest, so that a reader notices damage: those of a run's folder."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from idif.errors import RunError
from idif.files import write_json
from idif.fingerprint import digest

SEAL = "seal"
"""Key of the digest, a SHA-256 over all other keys and their values."""


def write_sealed(path: Path, value: dict[str, Any]) -> dict[str, Any]:
    """Write a JSON object atomically, with its digest; returns what the file holds.

    NaN and infinity are refused: they are not JSON.
    """
    plain: dict[str, Any] = json.loads(json.dumps(value, ensure_ascii=False, allow_nan=False))
    plain.pop(SEAL, None)
    sealed = plain | {SEAL: digest(plain)}
    write_json(path, sealed)
    return sealed


def read_sealed(path: Path, remedy: str, keys: Sequence[str] = ()) -> dict[str, Any]:
    """The object that `write_sealed` wrote; a file of version 0.1, without a digest, is read as it is.

    Args:
        path: the file.
        remedy: what the user can do about a damaged one, the end of the message.
        keys: keys that the object has.

    Raises:
        RunError: there is no such file, it cannot be read, or it is not as it was written.
    """
    try:
        value = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise RunError(f"{path}: there is no such file; {remedy}") from None
    except IsADirectoryError:
        raise RunError(f"{path}: expected a file, found a folder; {remedy}") from None
    except OSError as error:
        raise RunError(f"{path}: cannot be read ({error.strerror or error})") from None
    except (ValueError, RecursionError) as error:
        raise RunError(f"{path}: damaged, not JSON ({error}); {remedy}") from None
    if not isinstance(value, dict):
        raise RunError(f"{path}: damaged, expected a JSON object, found {type(value).__name__}; {remedy}")
    seal = value.pop(SEAL, None)
    if seal is not None and seal != digest(value):
        raise RunError(f"{path}: damaged, its digest is not that of its content; {remedy}")
    if lacking := [key for key in keys if key not in value]:
        raise RunError(f"{path}: damaged, it lacks {', '.join(lacking)}; {remedy}")
    return value
