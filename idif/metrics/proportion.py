"""A share of counted items and its confidence interval."""

import math
from dataclasses import dataclass
from typing import Any, Self

_Z = 1.959963984540054
"""97.5 % quantile of the standard normal distribution."""


@dataclass(frozen=True)
class Proportion:
    """``count`` of ``total`` items."""

    count: int
    total: int

    @property
    def interval(self) -> tuple[float, float] | None:
        """95 % Wilson score interval of the share, in 0..1; None without items.

        It holds for small totals and at shares of 0 and 1, where the normal approximation has no width (E. B.
        Wilson, J. Am. Stat. Assoc. 22, 1927; recommended by Brown, Cai and DasGupta, Stat. Sci. 16, 2001).
        """
        if not self.total:
            return None
        n, share, square = self.total, self.count / self.total, _Z * _Z
        middle = (share + square / (2 * n)) / (1 + square / n)
        reach = _Z / (1 + square / n) * math.sqrt(share * (1 - share) / n + square / (4 * n * n))
        # rounding must not move the ends away from shares of 0 and 1
        low = 0.0 if self.count == 0 else max(0.0, middle - reach)
        high = 1.0 if self.count == n else min(1.0, middle + reach)
        return low, high

    @property
    def interval_text(self) -> str:
        """The interval in percent, e.g. ``18 to 41 %``; empty without items."""
        if self.interval is None:
            return ""
        low, high = (f"{100 * end:.0f}" for end in self.interval)
        return f"{low} to {high} %"

    def __str__(self) -> str:
        """E.g. ``17 of 60 (18 to 41 %)``."""
        ends = self.interval_text
        return f"{self.count} of {self.total}" + (f" ({ends})" if ends else "")

    def to_json(self) -> dict[str, Any]:
        """As JSON values, with the interval."""
        interval = None if self.interval is None else list(self.interval)
        return {"count": self.count, "total": self.total, "interval": interval}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Self:
        """Inverse of `to_json`."""
        return cls(data["count"], data["total"])
