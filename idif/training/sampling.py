"""The samples of a training, and their order: a pure function of (rows, seed, epoch, rank, world)."""

from collections.abc import Sequence
from itertools import chain

from idif.config.sections import Config
from idif.data.index import Index, Sample
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


def balanced_order(
    rows: Sequence[int], labels: Sequence[bool], *, seed: int, epoch: int, rank: int = 0, world: int = 1
) -> list[int]:
    """As `epoch_order`, of normal and anomalous rows in turn: each batch has as many of one as of the other.

    An epoch is as long as with `epoch_order`. Rows of the rarer kind occur several times, equally often up to
    one, and not all of the more frequent kind occur. With one kind alone it is `epoch_order`.

    Args:
        rows: the rows of all processes.
        labels: whether each of the rows is anomalous.
    """
    kinds = [
        [row for row, label in zip(rows, labels, strict=True) if label == kind] for kind in (False, True)
    ]
    if not all(kinds):
        return epoch_order(rows, seed=seed, epoch=epoch, rank=rank, world=world)
    rng, length = numpy_rng("balanced order", seed, epoch), -(-len(rows) // world)
    turns = []
    for kind in kinds:
        needed = world * -(-length // 2)
        rounds = [rng.permutation(len(kind)) for _ in range(-(-needed // len(kind)))]
        turns.append([kind[place] for place in chain(*rounds)][:needed][rank::world])
    return list(chain(*zip(*turns, strict=True)))[:length]


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
    """Rows to train on, and held-out rows; the share applies to each category.

    A category is split in the same way in unified and per-category runs. A method that learns from labels
    learns from all defects and from the split ``val``: held out are normal samples of the training split.

    Args:
        index: samples of the splits that the method learns from, or of the training split alone.
    """
    kept: list[int] = []
    held: list[int] = []
    for category in index.categories:
        rows = [row for row, sample in enumerate(index.samples) if sample.category == category]
        divided = [row for row in rows if not (config.method.uses_labels and _is_taught(index.samples[row]))]
        _, out = split_holdout(divided, config.train.holdout, seed=config.train.seed)
        held_out = set(out)
        held += out
        kept += [row for row in rows if row not in held_out]
    return kept, held


def training_normals(config: Config, index: Index) -> tuple[list[int], list[int]]:
    """As `training_rows`, without the defects that a method learns from as such."""
    kept, held = training_rows(config, index)
    known = config.method.uses_labels
    return [row for row in kept if not (known and index.samples[row].label)], held


def _is_taught(sample: Sample) -> bool:
    """Whether a method that learns from labels does so from this sample in any case."""
    return sample.label or sample.split != "train"
