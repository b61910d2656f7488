"""Specifications of samples: defects, how hard they are to see, and random numbers."""

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
"""Range of a defect's severity at each level, 0 (smallest, faintest) to 1. The gaps keep levels apart."""


@dataclass(frozen=True)
class SampleSpec:
    """Everything that determines a sample, except the image size."""

    seed: int
    category: str
    split: Split
    number: int
    """Within category and split, from 0."""
    kinds: tuple[str, ...] = ()
    """Defects, by code: none, one, or two of which the second is a surface defect."""
    level: Level = "medium"
    """How hard the defects are to see; ignored where there are none."""

    def rng(self, *purpose: int) -> np.random.Generator:
        """An independent generator for one purpose.

        It does not depend on the level: the same specification at another level has the same defects at the
        same places, smaller or larger.
        """
        split = 0 if self.split == "train" else 1
        words = (self.seed, zlib.crc32(self.category.encode()), split, self.number, *purpose)
        return np.random.Generator(np.random.PCG64(np.random.SeedSequence(words)))


def specs_for_split(
    seed: int, category: str, split: Split, count: int, difficulty: Difficulty
) -> Iterator[SampleSpec]:
    """The first ``count`` specifications of a category's split. Training samples are normal."""
    for number in range(count):
        kinds = kinds_for(seed, category, number) if split == "test" else ()
        level = level_for(seed, category, number) if difficulty == "mixed" else difficulty
        yield SampleSpec(seed, category, split, number, kinds, level)


_KIND_CYCLE = ("AK", "QS", "ZW", "BX", "HS", "YW", "WP", "PS")


def _cycle_offset(seed: int, category: str) -> int:
    return zlib.crc32(f"{seed} {category}".encode())


def kinds_for(seed: int, category: str, number: int) -> tuple[str, ...]:
    """Defects of a category's test sample ``number``: none for every other one, then each kind in turn.

    Every sixth defective sample has two: one of construction and one of the surface.
    """
    if number % 2 == 0:
        return ()
    rank = number // 2
    start = _cycle_offset(seed, category)
    kind = _KIND_CYCLE[(rank + start) % len(_KIND_CYCLE)]
    if rank % 6 != 5:
        return (kind,)
    surface = tuple(SURFACE)[(rank // 6 + start) % len(SURFACE)]
    construction = kind if kind in CONSTRUCTION else CONSTRUCTION[(rank // 6) % len(CONSTRUCTION)]
    return (construction, surface)


def level_for(seed: int, category: str, number: int) -> Level:
    """Level of a category's test sample ``number`` in a mixed dataset: each in turn.

    24 defective samples cover every kind at every level, except at the samples with two defects. The next 24
    put those on other levels, so 72 cover every combination.
    """
    rank = number // 2
    turn = rank + rank // (len(LEVELS) * len(_KIND_CYCLE)) + _cycle_offset(seed, category) // len(_KIND_CYCLE)
    return LEVELS[turn % len(LEVELS)]
