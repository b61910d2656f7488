"""Bootstrap of AUROC over samples."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from idif.metrics.score_counts import Array, BoolArray

FloatArray = npt.NDArray[np.float64]

_BLOCK = 4_000_000
"""Drawn counts that are worked on at a time."""


def bootstrap_auroc(
    scores: Sequence[Array], labels: BoolArray, *, resamples: int = 1000, seed: int = 0
) -> FloatArray | None:
    """The mean AUROC of several scorings of the same samples, in bootstrap resamples of the samples.

    Normal and anomalous samples are drawn with replacement each from their own, and every scoring is measured
    on the same draw. The same labels and seed give the same draws, so that the difference of two results is
    paired.

    Args:
        scores: one or more [N]; NaN where a scoring leaves a sample out.
        labels: bool [N], true where a sample is anomalous.
        resamples: number of draws, at least 1.
        seed: of the draws.

    Returns:
        [resamples], NaN in a draw without a normal or an anomalous sample that some scoring scores; None
        where a scoring scores one class only.
    """
    normal, anomalous = np.flatnonzero(~labels), np.flatnonzero(labels)
    scored = [~np.isnan(scoring) for scoring in scores]
    if any(not one[normal].any() or not one[anomalous].any() for one in scored):
        return None
    rng = np.random.default_rng(seed)
    rows = max(1, _BLOCK // labels.size)
    blocks = [slice(start, min(start + rows, resamples)) for start in range(0, resamples, rows)]
    normal_draws, anomalous_draws = (_draw(rng, items.size, blocks) for items in (normal, anomalous))
    total = np.zeros(resamples)
    for scoring, known in zip(scores, scored, strict=True):
        use_normal, use_anomalous = known[normal], known[anomalous]
        low, high = scoring[normal[use_normal]], scoring[anomalous[use_anomalous]]
        order = np.flatnonzero(use_normal)[np.argsort(low, kind="stable")]
        low = np.sort(low)
        first, last = np.searchsorted(low, high, side="left"), np.searchsorted(low, high, side="right")
        for block in blocks:
            n, a = normal_draws[block][:, order], anomalous_draws[block][:, use_anomalous]
            below = np.zeros((len(n), n.shape[1] + 1), np.int64)
            np.cumsum(n, axis=1, out=below[:, 1:])
            # Twice the pairs in the right order, ties once.
            pairs = ((below[:, first] + below[:, last]) * a).sum(axis=1)
            with np.errstate(divide="ignore", invalid="ignore"):
                total[block] += pairs / (2 * below[:, -1] * a.sum(axis=1))
    return total / len(scores)


def percentile_interval(draws: FloatArray | None, level: float = 0.95) -> list[float] | None:
    """[low, high] with a share ``level`` of the draws inside, NaN left out; None of None or of NaN alone."""
    if draws is None or not np.isfinite(draws).any():
        return None
    ends = np.nanquantile(draws, [(1 - level) / 2, (1 + level) / 2])
    return [float(end) for end in ends]


def _draw(rng: np.random.Generator, items: int, blocks: Sequence[slice]) -> npt.NDArray[np.int32]:
    """How often each item is drawn in each resample: [resamples, items], each row summing to ``items``."""
    share = np.full(items, 1 / items)
    return np.concatenate(
        [rng.multinomial(items, share, part.stop - part.start).astype(np.int32) for part in blocks]
    )
