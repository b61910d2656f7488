"""Findings of a verification, in words for people and in parts for a repair."""

from dataclasses import dataclass, field

from cache.format.row_spans import spans_of_rows


@dataclass(frozen=True)
class Problem:
    """One thing that is not as it should be."""

    file: str
    """Path relative to the store; a sample id where the data, not the store, have changed."""
    rows: tuple[int, ...]
    """Rows of the group that it touches; all of them where it is unknown which."""
    what: str
    group: str = ""
    """``category/split``, or empty for a file that all groups share."""
    shard: int | None = None
    """The shard to rebuild, where that mends it."""

    def __str__(self) -> str:
        where = f" ({spans_of_rows(self.rows)} of {self.group})" if self.rows else ""
        return f"{self.file}: {self.what}{where}"


@dataclass
class VerifyReport:
    """Counts and findings of a verification."""

    problems: list[Problem] = field(default_factory=list)
    files: int = 0
    bytes: int = 0
    views_compared: int = 0
    """Views, and other inputs that a sample has once: with the data's files, by hash."""
    rows_encoded: int = 0
    """By a deep verification."""
    encoders_left_out: tuple[str, ...] = ()
    """Encoders that a deep verification could not run again, since the store does not keep their input."""
    shards_repaired: int = 0

    @property
    def sound(self) -> bool:
        """True where nothing was found."""
        return not self.problems
