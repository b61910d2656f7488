"""Plans of synthetic runs: the settings, the defect, and the inputs in which the defect shows."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from idif.data.index import NORMAL_CLASS, Split
from idif.errors import ConfigError
from idif.randomness import numpy_rng

SMALLEST = 8
"""Fewest runs of a dataset: each split then has a good one, and ``val`` and ``test`` a defective one."""

SHOWS: Mapping[str, frozenset[str]] = {
    "excessive_convexity": frozenset({"video", "audio", "sensor", "stills"}),
    "undercut": frozenset({"audio", "sensor", "stills"}),
    "lack_of_fusion": frozenset({"video", "stills"}),
    "porosity": frozenset({"audio", "sensor", "stills"}),
    "porosity_w-excessive_penetration": frozenset({"video", "audio", "sensor", "stills"}),
    "spatter": frozenset({"video", "audio", "stills"}),
    "burnthrough": frozenset({"video", "audio", "sensor", "stills"}),
    "excessive_penetration": frozenset({"video", "sensor", "stills"}),
    "crater_cracks": frozenset({"sensor", "stills"}),
    "warping": frozenset({"video", "stills"}),
    "overlap": frozenset({"video", "sensor", "stills"}),
}
"""Defect -> inputs in which it shows; in every other one the run equals a good run, to the byte."""

_PARTS: Mapping[str, frozenset[str]] = {
    "porosity_w-excessive_penetration": frozenset({"porosity", "excessive_penetration"}),
}
"""Defects that consist of others."""


@dataclass(frozen=True)
class WeldSetting:
    """Settings that a welder makes before a run, as the columns of a manifest."""

    joint: str
    thickness_mm: int
    steel: str
    current_a: int
    voltage_v: float
    gas_bar: float
    speed_cpm: int


SETTINGS = (
    WeldSetting("NON_FILLET", 7, "FE410", 150, 19.0, 4.0, 30),
    WeldSetting("NON_FILLET", 7, "FE410", 160, 21.0, 4.0, 30),
    WeldSetting("FILLET", 7, "FE410", 165, 20.0, 4.0, 25),
    WeldSetting("NON_FILLET", 7, "BSK46", 155, 20.0, 3.6, 30),
)
"""The settings in use: so far apart that a run is compared with those of all, as in production."""


@dataclass(frozen=True)
class RunPlan:
    """One synthetic run."""

    number: int
    """From 1."""
    split: Split
    defect: str
    """``OK`` or a key of `SHOWS`."""
    seed: int
    """The dataset's."""

    @cached_property
    def setting(self) -> WeldSetting:
        """The settings of this run, which say nothing about its defect."""
        return SETTINGS[int(self.rng("setting").integers(len(SETTINGS)))]

    @cached_property
    def severity(self) -> float:
        """0.6 (hard to see) to 1.2."""
        return float(self.rng("severity").uniform(0.6, 1.2))

    @cached_property
    def place(self) -> tuple[float, float]:
        """Start and end of a defect that is somewhere along the bead, as shares of its length."""
        rng = self.rng("place")
        start = float(rng.uniform(0.2, 0.55))
        return start, start + float(rng.uniform(0.12, 0.3))

    @property
    def folder(self) -> str:
        """The run's folder relative to the root."""
        return f"run_{self.number:04d}"

    def kinds(self, name: str) -> frozenset[str]:
        """The simple defects that show in an input, a name of `SHOWS`' values."""
        if self.defect == NORMAL_CLASS or name not in SHOWS[self.defect]:
            return frozenset()
        return _PARTS.get(self.defect, frozenset({self.defect}))

    def rng(self, purpose: str) -> np.random.Generator:
        """Random numbers for one purpose, which depend on nothing else that is drawn."""
        return numpy_rng("weld", self.seed, self.number, purpose)


def plan_runs(runs: int, seed: int) -> list[RunPlan]:
    """The runs of a dataset: 40 % good ones to train on, 25 % in ``val`` and the rest in ``test``.

    Two in five of ``val`` and ``test`` are good, and all defects are equally frequent.

    Raises:
        ConfigError: fewer than `SMALLEST` runs.
    """
    if runs < SMALLEST:
        raise ConfigError(f"runs: expected at least {SMALLEST}, got {runs}")
    train, val = round(0.4 * runs), round(0.25 * runs)
    plans: list[RunPlan] = []
    defects = list(SHOWS)
    for split, count in (("train", train), ("val", val), ("test", runs - train - val)):
        good = count if split == "train" else max(1, round(0.4 * count))
        order = numpy_rng("weld", seed, split).permutation(len(defects))
        for number in range(count):
            defect = NORMAL_CLASS if number < good else defects[order[(number - good) % len(defects)]]
            plans.append(RunPlan(len(plans) + 1, split, defect, seed))  # type: ignore[arg-type]
    return plans
