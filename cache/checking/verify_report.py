"""Report of a verification, readable by people and by the repair."""

from dataclasses import dataclass, field

from cache.format.row_spans import spans_of_rows


@dataclass(frozen=True)
class Problem:
    """One problem found by a verification."""

    file: str
    """Path relative to the store, or a sample id if the data has changed instead."""
    rows: tuple[int, ...]
    """Affected rows of the group; all of them if unknown."""
    what: str
    group: str = ""
    """``category/split``; empty for a file shared by all groups."""
    shard: int | None = None
    """The shard to rebuild, if that repairs the problem."""

    def __str__(self) -> str:
        where = f" ({spans_of_rows(self.rows)} of {self.group})" if self.rows else ""
        return f"{self.file}: {self.what}{where}"


@dataclass
class VerifyReport:
    """Counts and problems of a verification."""

    problems: list[Problem] = field(default_factory=list)
    files: int = 0
    bytes: int = 0
    views_compared: int = 0
    """Number of views and per-sample inputs compared with the data's files by hash."""
    rows_encoded: int = 0
    """Number of rows encoded again by a deep verification."""
    encoders_left_out: tuple[str, ...] = ()
    """Encoders that a deep verification skipped, since the store does not contain their input."""
    shards_repaired: int = 0

    @property
    def sound(self) -> bool:
        """Whether there are no problems."""
        return not self.problems
