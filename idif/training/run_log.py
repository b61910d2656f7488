"""The training log of a run."""

import json
from pathlib import Path
from typing import Any

from idif.files import replace_file


class RunLog:
    """``log.jsonl``: one JSON object a line, appended while training.

    Resuming at a step removes the lines after it, so that the log equals that of an uninterrupted run.
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
    """The lines of a log; a last line truncated by a crash is omitted."""
    lines = []
    for text in path.read_text(encoding="utf-8").splitlines():
        try:
            lines.append(json.loads(text))
        except json.JSONDecodeError:
            break
    return lines
