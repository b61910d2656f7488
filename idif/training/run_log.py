"""The training log of a run."""

import json
from pathlib import Path
from typing import Any

from idif.files import append, replace_file, sync_file, writing


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
        text = "".join(json.dumps(line) + "\n" for line in lines)
        append(self.path, text.encode(), durable=False)

    def sync(self) -> None:
        """Make the lines durable; resuming from a checkpoint expects those before it."""
        with writing(self.path):
            sync_file(self.path)


def read_log(path: Path) -> list[dict[str, Any]]:
    """The lines of a log; a last line truncated by a crash is omitted."""
    lines = []
    for text in path.read_text(encoding="utf-8").splitlines():
        try:
            lines.append(json.loads(text))
        except json.JSONDecodeError:
            break
    return lines
