"""Camera values from the S-AUROC of camera subsets: Shapley values, leave-one-out losses, best subsets."""

from collections.abc import Mapping, Sequence
from itertools import combinations
from math import factorial
from typing import Any

import numpy as np
import numpy.typing as npt

from idif.metrics.bootstrap import bootstrap_auroc, percentile_interval
from idif.randomness import numpy_rng

SubsetAuroc = Mapping[frozenset[int], float | None]
"""Camera numbers of a subset -> S-AUROC; None if undefined."""

EMPTY_SET_AUROC = 0.5
"""S-AUROC of the empty set of cameras, the baseline of Shapley values."""

MAX_EXACT_CAMERAS = 10
"""Largest number of cameras for which every subset (1,023) is measured; else those of `camera_orders`."""
PERMUTATIONS = 32
"""Number of random camera orders used as a sample of all orders beyond `MAX_EXACT_CAMERAS`."""


def camera_orders(numbers: Sequence[int], seed: int = 0) -> list[tuple[int, ...]]:
    """`PERMUTATIONS` random orders of the cameras, determined by ``seed``.

    The first s cameras of each are a uniform draw among the subsets of size s, and the gain of each next
    camera an unbiased draw of its Shapley value (Castro et al., 2009).
    """
    rng = numpy_rng("camera orders", seed, len(numbers))
    return [tuple(numbers[place] for place in rng.permutation(len(numbers))) for _ in range(PERMUTATIONS)]


def camera_subsets(numbers: Sequence[int]) -> list[tuple[int, ...]]:
    """The subsets to measure, the largest first: all 2^V - 1, or for V > `MAX_EXACT_CAMERAS` a sample.

    The sample contains every prefix of `camera_orders` and every subset that lacks one camera.
    """
    if len(numbers) <= MAX_EXACT_CAMERAS:
        return [
            subset for size in range(len(numbers), 0, -1) for subset in combinations(sorted(numbers), size)
        ]
    found = {tuple(n for n in numbers if n != camera) for camera in numbers}
    for order in camera_orders(numbers):
        found |= {tuple(sorted(order[:size])) for size in range(1, len(order) + 1)}
    return sorted(found, key=lambda subset: (-len(subset), subset))


def shapley(worth: SubsetAuroc, numbers: Sequence[int]) -> dict[str, float] | None:
    """Shapley value of each camera for S-AUROC: its mean gain over all orders in which cameras are added.

    The values add up to the S-AUROC of all cameras minus `EMPTY_SET_AUROC`. None if the S-AUROC of a subset
    is undefined.

    Args:
        worth: S-AUROC of every non-empty subset.
        numbers: the cameras.
    """
    if any(value is None for value in worth.values()):
        return None
    count = len(numbers)
    values = {}
    for camera in numbers:
        others = [n for n in numbers if n != camera]
        total = 0.0
        for size in range(count):
            weight = factorial(size) * factorial(count - size - 1) / factorial(count)
            for before in combinations(others, size):
                total += weight * _gain(worth, before, camera)
        values[str(camera)] = total
    return values


def shapley_sampled(
    worth: SubsetAuroc, orders: Sequence[Sequence[int]]
) -> tuple[dict[str, float], dict[str, float]] | None:
    """Shapley values estimated from some orders, and the standard error of each; None as `shapley`.

    Args:
        worth: S-AUROC of every prefix of every order.
        orders: at least two, each of all cameras.
    """
    if any(value is None for value in worth.values()):
        return None
    gains: dict[int, list[float]] = {camera: [] for camera in sorted(orders[0])}
    for order in orders:
        for place, camera in enumerate(order):
            gains[camera].append(_gain(worth, order[:place], camera))
    values = {str(camera): float(np.mean(found)) for camera, found in gains.items()}
    errors = {str(camera): standard_error(found) for camera, found in gains.items()}
    return values, errors


def _gain(worth: SubsetAuroc, before: Sequence[int], camera: int) -> float:
    base = worth[frozenset(before)] if before else EMPTY_SET_AUROC
    gained = worth[frozenset((*before, camera))]
    assert base is not None
    assert gained is not None
    return gained - base


def leave_one_out(worth: SubsetAuroc, numbers: Sequence[int]) -> dict[str, float | None]:
    """Drop in S-AUROC when one camera is removed; negative if removing it helps."""
    whole = worth[frozenset(numbers)]
    lost: dict[str, float | None] = {}
    for camera in numbers:
        rest = frozenset(numbers) - {camera}
        left = worth[rest] if rest else EMPTY_SET_AUROC
        lost[str(camera)] = None if whole is None or left is None else whole - left
    return lost


def best_subsets(worth: SubsetAuroc) -> dict[str, dict[str, Any]]:
    """The best measured subset of each size, by size; ties are broken by camera number.

    The choice is made on the test data, so the S-AUROC is optimistic.
    """
    best: dict[str, dict[str, Any]] = {}
    for size in sorted({len(subset) for subset in worth}):
        known = [
            (-value, sorted(subset))
            for subset, value in worth.items()
            if len(subset) == size and value is not None
        ]
        if known:
            value, views = min(known)
            best[str(size)] = {"views": views, "s_auroc": -value}
    return best


def standard_error(values: Sequence[float]) -> float:
    """Standard error of the mean of two or more independent draws."""
    return float(np.std(values, ddof=1) / np.sqrt(len(values)))


def missing_intervals(
    scores: Mapping[int, Sequence[npt.NDArray[np.float32]]], labels: npt.NDArray[np.bool_]
) -> dict[int, dict[str, list[float] | None]]:
    """95 % intervals over samples of the mean S-AUROC by number of missing views, and of its loss.

    Args:
        scores: number of missing views, from 0 -> sample scores [N] of every choice of missing views.
        labels: bool [N].

    Returns:
        Number of missing views -> ``s_auroc_ci``, and ``loss_ci`` of the paired difference to none missing.
    """
    draws = {missing: bootstrap_auroc(alike, labels) for missing, alike in scores.items()}
    whole = draws[0]
    return {
        missing: {
            "s_auroc_ci": percentile_interval(found),
            "loss_ci": None if whole is None or found is None else percentile_interval(whole - found),
        }
        for missing, found in draws.items()
    }
