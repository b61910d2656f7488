"""Evenly spaced items: a few that stand for many."""

from collections.abc import Sequence
from typing import TypeVar

import numpy as np

Item = TypeVar("Item")


def evenly_spaced(items: Sequence[Item], most: int) -> list[Item]:
    """At most ``most`` of the items in their order, evenly spaced from the first to the last.

    Args:
        items: a range chooses places.
        most: 1 chooses the first alone.
    """
    places = np.linspace(0, len(items) - 1, min(most, len(items))).round().astype(int)
    return [items[place] for place in places.tolist()]
