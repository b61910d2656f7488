"""A pickle that runs code where it is loaded freely, for tests of what reads files of strangers."""

from pathlib import Path
from typing import Any


class Hostile:
    """Pickled, it makes the file ``mark`` when it is loaded."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.mark,)
