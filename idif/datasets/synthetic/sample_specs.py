"""What is asked for of each sample: its defects, how hard they are to see, and its random numbers."""

import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from idif.data.index import Split
from idif.datasets.synthetic.defects import CONSTRUCTION, SURFACE

Level = Literal["easy", "medium", "hard"]
Difficulty = Literal["easy", "medium", "hard", "mixed"]

LEVELS: tuple[Level, ...] = get_args(Level)
SEVERITIES: dict[Level, tuple[float, float]] = {"easy": (0.8, 1.0), "medium": (0.4, 0.6), "hard": (0.0, 0.2)}
"""Range of a defect's severity at each level, of 0 (smallest, faintest) to 1; the gaps keep levels apart."""


@dataclass(frozen=True)
class SampleSpec:
    """What is asked for: everything that a sample depends on, besides the image size."""

    seed: int
    category: str
    split: Split
    number: int
    """Within category and split, from 0."""
    kinds: tuple[str, ...] = ()
    """Defects, by code: none, one, or two of which the second is one of the surface."""
    level: Level = "medium"
    """How hard its defects are to see; means nothing without any."""

    def rng(self, *purpose: int) -> np.random.Generator:
        """An independent generator for one purpose. The level has no part in it: the same order at another
        level has the same defects at the same places, smaller or larger."""
        split = 0 if self.split == "train" else 1
        words = (self.seed, zlib.crc32(self.category.encode()), split, self.number, *purpose)
        return np.random.Generator(np.random.PCG64(np.random.SeedSequence(words)))


def orders(
    seed: int, category: str, split: Split, count: int, difficulty: Difficulty
) -> Iterator[SampleSpec]:
    """The first ``count`` orders of a category's split. Training samples are normal."""
    for number in range(count):
        kinds = kinds_for(seed, category, number) if split == "test" else ()
        level = level_for(seed, category, number) if difficulty == "mixed" else difficulty
        yield SampleSpec(seed, category, split, number, kinds, level)


_TURNS = ("AK", "QS", "ZW", "BX", "HS", "YW", "WP", "PS")


def _start(seed: int, category: str) -> int:
    return zlib.crc32(f"{seed} {category}".encode())


def kinds_for(seed: int, category: str, number: int) -> tuple[str, ...]:
    """Defects of a category's test sample ``number``: none for every other one, then each kind in turn.

    Every sixth spoilt sample has two: one of construction and one of the surface.
    """
    if number % 2 == 0:
        return ()
    rank = number // 2
    start = _start(seed, category)
    kind = _TURNS[(rank + start) % len(_TURNS)]
    if rank % 6 != 5:
        return (kind,)
    surface = tuple(SURFACE)[(rank // 6 + start) % len(SURFACE)]
    construction = kind if kind in CONSTRUCTION else CONSTRUCTION[(rank // 6) % len(CONSTRUCTION)]
    return (construction, surface)


def level_for(seed: int, category: str, number: int) -> Level:
    """Level of a category's test sample ``number`` in a mixed dataset: each in turn.

    So 24 spoilt samples meet every kind at every level, except where two defects meet; those pairs fall on
    other levels in the next 24, and 72 leave nothing out.
    """
    rank = number // 2
    turn = rank + rank // (len(LEVELS) * len(_TURNS)) + _start(seed, category) // len(_TURNS)
    return LEVELS[turn % len(LEVELS)]
