"""What a part is made of: components (a solid in a material), the edits a defect makes to them, and the marks
it leaves."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from idif.datasets.synthetic.materials import Color, Material, jitter, toward
from idif.datasets.synthetic.sdf import Points, Solid, Values, gradient

Edit = Callable[[Points, Values], Values]
"""From points [3, N] and the distances there [N] to the distances of the changed solid [N]."""

TABLE = -1
"""Component number of the work table."""
SHOWN = 0.35
"""Least weight of a mark that counts."""


@dataclass(frozen=True)
class Component:
    """One piece of a part: a solid in one material. Its field may understate a distance, never exceed it."""

    name: str
    solid: Solid
    material: Material


@dataclass(frozen=True)
class Mark:
    """A change of a surface's look without a change of its shape."""

    weight: Callable[[Points], Values]
    """Shape, 0..1 at points [3, N]; from `SHOWN` on the mark is said to be there."""
    color: Color
    roughness: float
    metallic: float
    opacity: float = 1.0
    """How much of the surface's own look it hides, 0..1."""


@dataclass(frozen=True)
class Fault:
    """A defect of a part's construction, which its builder makes: something missing, wrong or bent."""

    kind: str
    """QS missing, WP wrong, BX bent."""
    severity: float
    """0 subtle .. 1 clear."""
    rng: np.random.Generator
    """Decides which piece and which way."""


@dataclass(frozen=True)
class Part:
    """A part standing on the table z = 0 with its axis near the origin."""

    components: tuple[Component, ...]
    radius: float
    """Nothing reaches further than this along x or y; the rig's distance is set by it."""
    height: float
    table: Color
    """sRGB colour of the mat this category is photographed on."""
    edits: tuple[Edit, ...] = ()
    marks: tuple[Mark, ...] = ()

    def edited(self, p: Points, distance: Values) -> Values:
        """Distances [N] after all edits."""
        for edit in self.edits:
            distance = edit(p, distance)
        return distance

    def distance(self, p: Points) -> Values:
        """Signed distance [N] to the whole part."""
        nearest = self.components[0].solid(p)
        for component in self.components[1:]:
            nearest = np.minimum(nearest, component.solid(p))
        return self.edited(p, nearest)

    def _one(self, component: Component, p: Points) -> Values:
        return self.edited(p, component.solid(p))

    def normals(self, p: Points, component: NDArray[np.int16]) -> Points:
        """Unit outward normals [3, N] at points on the surface, each of the component [N] that it lies on."""
        result = np.empty_like(p)
        for number, piece in enumerate(self.components):
            here = np.flatnonzero(component == number)
            if len(here):
                result[:, here] = gradient(partial(self._one, piece), p.take(here, axis=1), 0.004)
        return result

    def component_at(self, p: Points) -> NDArray[np.int16]:
        """Number [N] of the component nearest to each point."""
        nearest = self.components[0].solid(p)
        which = np.zeros(p.shape[1], np.int16)
        for number, component in enumerate(self.components[1:], 1):
            distance = component.solid(p)
            which[distance < nearest] = number
            nearest = np.minimum(nearest, distance)
        return which


def between(fault: Fault, low: float, high: float) -> float:
    """A size from ``low`` (subtle) to ``high`` (clear), by the fault's severity."""
    return low + (high - low) * fault.severity


def graded(fault: Fault, choices: Sequence[str]) -> str:
    """One of the pieces, which are named from the least to the most conspicuous, by the fault's severity."""
    return choices[min(len(choices) - 1, int(fault.severity * len(choices)))]


def several(fault: Fault, of: int, most: int) -> tuple[int, ...]:
    """Numbers of neighbouring pieces of a row of ``of``: one where the fault is subtle, ``most`` where it is
    clear."""
    count = 1 + round(fault.severity * (most - 1))
    first = int(fault.rng.integers(of))
    return tuple((first + k) % of for k in range(count))


def replaced(fault: Fault, usual: Material, other: Material) -> Material:
    """What a wrong piece is made of: a third of the way to another material (subtle) or that one (clear)."""
    return toward(usual, jitter(other, fault.rng), between(fault, 0.33, 1.0))
