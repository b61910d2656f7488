"""The order of an epoch: a pure function of (rows, seed, epoch, rank, world)."""

from collections.abc import Sequence

from idif.config.sections import Config
from idif.data.index import Index
from idif.randomness import numpy_rng


def epoch_order(rows: Sequence[int], *, seed: int, epoch: int, rank: int = 0, world: int = 1) -> list[int]:
    """The rows that process ``rank`` of ``world`` visits in ``epoch``, in order.

    All processes use the same permutation and take every ``world``-th row of it, so together they visit
    each row once. If the number of rows is not divisible by ``world``, the first rows of the permutation
    are visited again, so that all processes make the same number of steps.
    """
    shuffled = [rows[place] for place in numpy_rng("order", seed, epoch).permutation(len(rows))]
    short = -len(shuffled) % world
    return (shuffled + shuffled[:short])[rank::world]


def split_holdout(rows: Sequence[int], share: float, *, seed: int) -> tuple[list[int], list[int]]:
    """Training rows and held-out rows (ascending), ``share`` of them held out, at least one each.

    A share of 0 holds out no rows.
    """
    if share == 0:
        return list(rows), []
    count = min(max(1, round(share * len(rows))), len(rows) - 1)
    chosen = set(numpy_rng("holdout", seed).permutation(len(rows))[:count].tolist())
    held = [row for place, row in enumerate(rows) if place in chosen]
    return [row for place, row in enumerate(rows) if place not in chosen], held


def training_rows(config: Config, index: Index) -> tuple[list[int], list[int]]:
    """Rows of a training split to train on, and held-out rows; the share applies to each category.

    A category is split in the same way in unified and per-category runs.
    """
    kept: list[int] = []
    held: list[int] = []
    for category in index.categories:
        rows = [row for row, sample in enumerate(index.samples) if sample.category == category]
        mine, out = split_holdout(rows, config.train.holdout, seed=config.train.seed)
        kept += mine
        held += out
    return kept, held
