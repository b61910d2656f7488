"""Range and steps of a category's threshold slider."""

import math
from dataclasses import dataclass, replace

from idif.app.session import Trained

STEPS = 1000
"""Least number of steps of the threshold slider between the lowest and the highest score."""

MARGIN = 5
"""Steps beyond both ends: browsers round to steps, and stored features are rounded, uploads' are not."""


@dataclass(frozen=True)
class Slider:
    """Range of a category's threshold slider."""

    low: float
    high: float
    step: float
    run_threshold: float | None
    """The threshold that evaluation chose, where the slider starts."""

    @classmethod
    def of(cls, trained: Trained) -> "Slider":
        """A slider over the range of the test scores or, if they are unknown, around the threshold."""
        threshold = trained.limits.part
        low, high = trained.scores or (0.0, 1.0 if threshold is None else 2 * threshold)
        ends = [low, high, *([] if threshold is None else [threshold])]
        low, high = min(ends), max(ends)
        # round ends and steps, so that the page shows short numbers
        digits = math.ceil(-math.log10(max(high - low, 1e-6) / STEPS))
        step = 10.0**-digits
        # + 0.0: no negative zero
        low, high = round(low - MARGIN * step, digits) + 0.0, round(high + MARGIN * step, digits) + 0.0
        return cls(low, high, step, threshold)

    def widened(self, value: float) -> "Slider":
        """A slider with the same steps whose range includes ``value``."""
        return replace(self, low=min(self.low, value), high=max(self.high, value))

    @property
    def precision(self) -> int:
        """Decimal places of the steps; with fewer a browser would send another threshold than the run's."""
        return max(0, round(-math.log10(self.step)))

    @property
    def value(self) -> float:
        """The initial value."""
        return (self.low + self.high) / 2 if self.run_threshold is None else self.run_threshold

    def exact(self, value: float) -> float:
        """The run's exact threshold if ``value`` is within a step of it, since browsers round to steps."""
        threshold = self.run_threshold
        return threshold if threshold is not None and abs(value - threshold) <= self.step else value
