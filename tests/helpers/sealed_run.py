"""Changes to the sealed files of a run, as the code that wrote them would have made them."""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from idif.runs.files import CONFIG_DIGESTS, CONFIG_FILE, FACTS_FILE
from idif.sealed_json import read_sealed, write_sealed


def change_config(folder: Path, old: str, new: str) -> None:
    """Replace a text in a run's config."""
    path = folder / CONFIG_FILE
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new), encoding="utf-8")
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    change_json(folder / FACTS_FILE, lambda facts: facts | {CONFIG_DIGESTS: [digest]})


def change_json(path: Path, change: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    """Replace the content of a sealed JSON file."""
    write_sealed(path, change(read_sealed(path, "")))
