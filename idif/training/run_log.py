"""What a run writes about itself: its training log and the environment it ran in."""

import json
from pathlib import Path
from typing import Any

from idif.files import replace_file


class RunLog:
    """``log.jsonl``: one JSON object a line, appended while training.

    Continuing at a step drops what was logged behind it, so that a resumed log reads like one never
    interrupted.
    """

    def __init__(self, path: Path, *, after_step: int = 0) -> None:
        self.path = path
        kept = [line for line in read_log(path) if line["step"] <= after_step] if path.exists() else []
        replace_file(path, "".join(json.dumps(line) + "\n" for line in kept))

    def write(self, *lines: dict[str, Any]) -> None:
        """Append lines; each needs a ``step``."""
        with self.path.open("a", encoding="utf-8") as file:
            file.writelines(json.dumps(line) + "\n" for line in lines)


def read_log(path: Path) -> list[dict[str, Any]]:
    """The lines of a log; a last line cut short by a crash is left out."""
    lines = []
    for text in path.read_text(encoding="utf-8").splitlines():
        try:
            lines.append(json.loads(text))
        except json.JSONDecodeError:
            break
    return lines
