"""Mean of metrics some of which are undefined."""

from collections.abc import Iterable


def mean_defined(values: Iterable[float | None]) -> tuple[float | None, int]:
    """The mean of the values that are not None (None if there are none), and how many are None."""
    everything = list(values)
    defined = [value for value in everything if value is not None]
    return (sum(defined) / len(defined) if defined else None), len(everything) - len(defined)
