"""Materials, and their variation between good samples."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from idif.datasets.synthetic.sdf import Points, Values

Color = tuple[float, float, float]


@dataclass(frozen=True)
class Material:
    """Appearance of a surface, for `shading`."""

    color: Color
    """sRGB, 0..1."""
    metallic: float = 0.0
    """0 for a dielectric, 1 for a metal, which tints its reflections."""
    roughness: float = 0.5
    """0.05 polished .. 1 matt."""
    grain: float = 0.02
    """Size of the fine unevenness of the normal."""
    mottle: float = 0.04
    """Relative variation of the color over the surface."""
    frequency: Color = (34.0, 34.0, 34.0)
    """Grain cells per unit along x, y, z; unequal values make brushed metal."""
    turned: bool = False
    """True for lathe marks: x and y of the grain are then radius and angle."""
    pattern: Callable[[Points], Values] | None = None
    """Weight 0..1 at points [3, N] of `pattern_color`, e.g. a board's tracks or a print."""
    pattern_color: Color = (0.0, 0.0, 0.0)


STEEL = Material(
    (0.74, 0.74, 0.75), metallic=1, roughness=0.30, grain=0.05, frequency=(70, 3, 30), turned=True
)
ZINC = Material((0.80, 0.79, 0.74), metallic=1, roughness=0.34, grain=0.05, mottle=0.08)
BRASS = Material(
    (0.86, 0.68, 0.36), metallic=1, roughness=0.28, grain=0.04, frequency=(60, 3, 30), turned=True
)
GOLD = Material((0.93, 0.74, 0.38), metallic=1, roughness=0.25, grain=0.02)
TIN = Material((0.80, 0.80, 0.80), metallic=1, roughness=0.25, grain=0.03)
BLACK = Material((0.14, 0.14, 0.15), roughness=0.42, grain=0.03, mottle=0.08)
GREEN = Material((0.16, 0.50, 0.27), roughness=0.40, grain=0.025)
BLUE = Material((0.10, 0.30, 0.66), roughness=0.36, grain=0.025)
RED = Material((0.70, 0.12, 0.10), roughness=0.36, grain=0.025)
ORANGE = Material((0.88, 0.42, 0.08), roughness=0.38, grain=0.025)
YELLOW = Material((0.93, 0.74, 0.08), roughness=0.38, grain=0.025)
CERAMIC = Material((0.92, 0.91, 0.88), roughness=0.16, grain=0.01, mottle=0.02)
FOIL = Material((0.84, 0.84, 0.85), metallic=1, roughness=0.33, grain=0.10, frequency=(46.0, 46.0, 46.0))
WHITE = Material((0.86, 0.85, 0.81), roughness=0.40, grain=0.025)


def jitter(material: Material, rng: np.random.Generator) -> Material:
    """The material with slightly different brightness, hue and roughness (three draws)."""
    light = float(rng.uniform(0.95, 1.05))
    warm = float(rng.uniform(-0.018, 0.018))
    r, g, b = material.color
    return replace(
        material,
        color=(min(1.0, r * (light + warm)), min(1.0, g * light), min(1.0, b * (light - warm))),
        roughness=material.roughness * float(rng.uniform(0.9, 1.12)),
    )


def toward(material: Material, other: Material, share: float) -> Material:
    """The material with color, metallic and roughness moved a share 0..1 of the way to the other's."""

    def mixed(a: float, b: float) -> float:
        return a + (b - a) * share

    r, g, b = (mixed(one, two) for one, two in zip(material.color, other.color, strict=True))
    return replace(
        material,
        color=(r, g, b),
        metallic=mixed(material.metallic, other.metallic),
        roughness=mixed(material.roughness, other.roughness),
    )
