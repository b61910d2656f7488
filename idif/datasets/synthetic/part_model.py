"""Model of a part: components (solids in a material), edits of their shape, and marks on their surface."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from idif.datasets.synthetic.materials import Color, Material, jitter, toward
from idif.datasets.synthetic.sdf import Points, Solid, Values, gradient

Edit = Callable[[Points, Values], Values]
"""Maps points [3, N] and distances [N] there to distances [N] of the changed solid."""

TABLE = -1
"""Component number of the work table."""
MARK_THRESHOLD = 0.35
"""Weight from which a mark is visible."""


@dataclass(frozen=True)
class Component:
    """One piece of a part: a solid in one material. Its field never overestimates a distance."""

    name: str
    solid: Solid
    material: Material


@dataclass(frozen=True)
class Mark:
    """A change of a surface's appearance, not of its shape."""

    weight: Callable[[Points], Values]
    """Shape, 0..1 at points [3, N]; from `MARK_THRESHOLD` on the mark counts as visible."""
    color: Color
    roughness: float
    metallic: float
    opacity: float = 1.0
    """Share of the surface's own appearance that it hides, 0..1."""


@dataclass(frozen=True)
class Fault:
    """A construction defect, made by a part's builder: something missing, wrong or bent."""

    kind: str
    """QS missing, WP wrong, BX bent."""
    severity: float
    """0 subtle .. 1 clear."""
    rng: np.random.Generator
    """Chooses the piece and the direction."""


@dataclass(frozen=True)
class Part:
    """A part standing on the table z = 0 with its axis near the origin."""

    components: tuple[Component, ...]
    radius: float
    """Largest extent along x and y; it sets the distance of the cameras."""
    height: float
    table: Color
    """sRGB color of the mat under this category."""
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

    def _component_distance(self, component: Component, p: Points) -> Values:
        return self.edited(p, component.solid(p))

    def normals(self, p: Points, component: NDArray[np.int16]) -> Points:
        """Unit outward normals [3, N] at surface points, given the component [N] that each lies on."""
        result = np.empty_like(p)
        for number, piece in enumerate(self.components):
            at = np.flatnonzero(component == number)
            if len(at):
                result[:, at] = gradient(partial(self._component_distance, piece), p.take(at, axis=1), 0.004)
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


def scale_by_severity(fault: Fault, low: float, high: float) -> float:
    """A size from ``low`` (subtle) to ``high`` (clear), by the fault's severity."""
    return low + (high - low) * fault.severity


def choose_by_severity(fault: Fault, choices: Sequence[str]) -> str:
    """One of the pieces, ordered from the least to the most conspicuous, by the fault's severity."""
    return choices[min(len(choices) - 1, int(fault.severity * len(choices)))]


def choose_neighbors(fault: Fault, total: int, most: int) -> tuple[int, ...]:
    """Numbers of neighboring pieces out of ``total``: one for a subtle fault, ``most`` for a clear one."""
    count = 1 + round(fault.severity * (most - 1))
    first = int(fault.rng.integers(total))
    return tuple((first + k) % total for k in range(count))


def substitute_material(fault: Fault, usual: Material, other: Material) -> Material:
    """Material of a wrong piece: a third of the way to another material (subtle) up to that one (clear)."""
    return toward(usual, jitter(other, fault.rng), scale_by_severity(fault, 0.33, 1.0))
