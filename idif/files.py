"""Writing files: beside their place, then renamed."""

import json
import os
from pathlib import Path
from typing import Any


def write_json(path: Path, value: Any) -> None:
    """Write JSON beside ``path``, then rename. NaN and infinity are refused: they are not JSON."""
    beside = path.with_name(path.name + ".part")
    text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False)
    beside.write_text(text + "\n", encoding="utf-8")
    os.replace(beside, path)
