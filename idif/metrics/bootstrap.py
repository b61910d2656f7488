"""Bootstrap intervals of AUROC."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from idif.metrics.score_counts import Array, BoolArray


def auroc_interval(
    scores: Array, labels: BoolArray, resamples: int = 1000, seed: int = 0, level: float = 0.95
) -> list[float] | None:
    """Bootstrap percentile interval of the AUROC over items.

    Normal and anomalous items are drawn with replacement each from their own, so that every resample has
    both classes in the proportion of the data.

    Args:
        scores: [N], finite.
        labels: bool [N].
        resamples: number of draws, at least 1.
        seed: the same seed gives the same interval.
        level: share of the resamples inside.

    Returns:
        [low, high]; None with one class only.
    """
    if not labels.any() or labels.all():
        return None
    distinct, group = np.unique(scores, return_inverse=True)
    rng = np.random.default_rng(seed)
    normal, anomalous = group[~labels], group[labels]
    found = np.empty(resamples)
    # Blocks keep the drawn counts below about 100 MB, also for all categories pooled.
    step = max(1, 4_000_000 // len(scores))
    for start in range(0, resamples, step):
        rows = min(step, resamples - start)
        n = _draw(rng, normal, rows, distinct.size)
        a = _draw(rng, anomalous, rows, distinct.size)
        below = np.cumsum(n, axis=1) - n
        found[start : start + rows] = (a * (below + n / 2)).sum(axis=1) / (normal.size * anomalous.size)
    low, high = np.quantile(found, [(1 - level) / 2, (1 + level) / 2])
    return [float(low), float(high)]


def _draw(rng: np.random.Generator, groups: Array, rows: int, size: int) -> Array:
    """How often each of ``size`` groups is drawn: int [rows, size], each row as many as there are items."""
    drawn = groups[rng.integers(0, groups.size, (rows, groups.size))]
    flat = (drawn + size * np.arange(rows)[:, None]).ravel()
    return np.bincount(flat, minlength=rows * size).reshape(rows, size)


def mean_auroc_draws(
    scores: Sequence[npt.NDArray[np.float32]],
    labels: npt.NDArray[np.bool_],
    *,
    resamples: int = 1000,
    seed: int = 0,
) -> npt.NDArray[np.float64] | None:
    """The mean AUROC of several scorings of the same samples, in bootstrap resamples of the samples.

    Normal and anomalous samples are drawn with replacement each from their own; every scoring sees the same
    draw, since it is the same samples that the cameras look at. The same labels and seed give the same draws,
    so that the difference of two results is paired.

    Args:
        scores: one or more [N]; NaN where a scoring leaves a sample out.
        labels: bool [N].
        resamples: number of draws.
        seed: of the draws.

    Returns:
        [resamples], NaN in a draw that holds none of the few samples which a scoring can see; None where a
        scoring has one class only.
    """
    normal, anomalous = np.flatnonzero(~labels), np.flatnonzero(labels)
    kept = [~np.isnan(one) for one in scores]
    if any(not one[normal].any() or not one[anomalous].any() for one in kept):
        return None
    rng = np.random.default_rng(seed)
    n, a = (
        rng.multinomial(len(items), np.full(len(items), 1 / len(items)), resamples).astype(np.float32)
        for items in (normal, anomalous)
    )
    total = np.zeros(resamples)
    complete = np.zeros((len(normal), len(anomalous)), np.float32)
    for one, there in zip(scores, kept, strict=True):
        low, high = one[normal][:, None], one[anomalous]
        wins = (low < high) + np.float32(0.5) * (low == high)
        if there.all():
            complete += wins  # these share their denominator, so one product serves them all
        else:
            with np.errstate(divide="ignore", invalid="ignore"):
                total += ((n @ wins) * a).sum(axis=1) / ((n @ there[normal]) * (a @ there[anomalous]))
    total += ((n @ complete) * a).sum(axis=1) / (len(normal) * len(anomalous))
    return total / len(scores)


def interval(draws: npt.NDArray[np.float64] | None, level: float = 0.95) -> list[float] | None:
    """[low, high] with a share ``level`` of the draws inside, NaN left out; None of None or of NaN alone."""
    if draws is None or not np.isfinite(draws).any():
        return None
    ends = np.nanquantile(draws, [(1 - level) / 2, (1 + level) / 2])
    return [float(end) for end in ends]
