"""Surface defects of a finished part, placed where a camera sees them: dent, scratch, damage, stain, foreign
object.

Construction defects (missing, wrong, bent) are made by the parts' builders. Codes are those of Real-IAD,
except WP.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from idif.datasets.synthetic.materials import BRASS, ORANGE, RED, ZINC, Color, Material
from idif.datasets.synthetic.part_model import Component, Mark, Part
from idif.datasets.synthetic.sdf import TAU, Points, Values, dot, gradient, length, noise, smoothstep, unit

KINDS = {
    "AK": "pit or dent",
    "BX": "deformation",
    "HS": "scratch",
    "PS": "damage, a piece broken out",
    "QS": "missing part",
    "WP": "wrong part",
    "YW": "foreign object",
    "ZW": "contamination",
}
CONSTRUCTION = ("QS", "WP", "BX")
"""Kinds made by a part's builder; the others are made by `SURFACE`."""


@dataclass(frozen=True)
class DefectSite:
    """A point on the surface with its tangent frame; vectors float32 [3, 1]."""

    center: Points
    normal: Points
    along: Points
    across: Points

    def local(self, p: Points) -> tuple[Values, Values, Values]:
        """Coordinates [N] of points [3, N] along, across and above the surface."""
        q = p - self.center
        return dot(q, self.along), dot(q, self.across), dot(q, self.normal)


_SPREAD = 0.12
"""Expected radius of a defect."""
_MAX_CANDIDATES = 40
"""Largest number of candidate sites whose surroundings are tested."""


def _project_to_surface(part: Part, p: Points) -> tuple[Points, Points, NDArray[np.bool_]]:
    """Points [3, N] projected onto the surface, the normals there, and whether the projection converged."""
    for _ in range(6):
        p = p - gradient(part.distance, p, 0.004) * part.distance(p)
    return p, gradient(part.distance, p, 0.006), np.abs(part.distance(p)) < 0.004


def _is_seen(part: Part, p: Points, normal: Points, camera: Points, facing: float) -> NDArray[np.bool_]:
    """Whether a camera at [3, 1] sees surface points [3, N] under a cosine of more than ``facing``."""
    toward = unit(camera - p)
    result = dot(normal, toward) > facing
    for reach in np.geomspace(0.06, 1.2, 10):
        result &= part.distance(p + toward * np.float32(reach)) > 0.012
    return result


def find_defect_site(part: Part, cameras: Points, camera: int, rng: np.random.Generator) -> DefectSite | None:
    """A random site that one camera sees well and few others see; None where no site is found.

    Args:
        cameras: positions [3, V].
        camera: number of the camera that must see the site, from 0.
    """
    count = 512
    around, up = rng.uniform(-np.pi, np.pi, count), rng.uniform(0.05, part.height + 0.05, count)
    out = part.radius * np.sqrt(rng.uniform(0.0, 1.0, count))
    start = np.stack([out * np.cos(around), out * np.sin(around), up]).astype(np.float32)
    p, normal, good = _project_to_surface(part, start)
    good &= (p[2] > 0.07) & _is_seen(part, p, normal, cameras[:, camera : camera + 1], 0.5)
    candidates = np.flatnonzero(good)[:_MAX_CANDIDATES]
    if not len(candidates):
        return None
    p, normal = p[:, candidates], normal[:, candidates]
    direction = rng.normal(size=(3, len(candidates))).astype(np.float32)
    along = unit(direction - dot(direction, normal) * normal)
    across = np.cross(normal, along, axis=0).astype(np.float32)

    turns = np.arange(6) * (TAU / 6)
    ring = [p + np.float32(_SPREAD) * (np.cos(t) * along + np.sin(t) * across) for t in turns]
    near, facing, converged = _project_to_surface(part, np.concatenate([p, *ring], axis=1).astype(np.float32))
    cameras_seeing = np.zeros(len(candidates), int)
    for view in range(cameras.shape[1]):
        seen = converged & _is_seen(part, near, facing, cameras[:, view : view + 1], 0.15)
        cameras_seeing += seen.reshape(7, -1).any(0)
    # The candidates come in random order, so the first of the best is a random one.
    first = int(np.argmin(np.maximum(cameras_seeing, 2)))
    best = slice(first, first + 1)
    return DefectSite(p[:, best], normal[:, best], along[:, best], across[:, best])


SurfaceDefect = Callable[[Part, DefectSite, float, np.random.Generator], Part]
"""Adds a defect to a part at a site, from subtle (severity 0) to clear (1)."""


def _dent(part: Part, site: DefectSite, severity: float, rng: np.random.Generator) -> Part:
    radius = 0.09 + 0.15 * severity
    depth = radius * (0.18 + 0.26 * severity)
    stretch = float(rng.uniform(0.7, 1.3))

    def edit(p: Points, distance: Values) -> Values:
        a, b, n = site.local(p)
        square = (a * a * stretch + b * b / stretch + n * n) * (1 / radius**2)
        bowl = np.maximum(1.0 - square, 0.0)
        result: Values = distance + depth * bowl * bowl * (3 - 2 * bowl)
        return result

    return replace(part, edits=(*part.edits, edit))


def _material_under(part: Part, site: DefectSite) -> Material:
    return part.components[int(part.component_at(site.center)[0])].material


def _scratch(part: Part, site: DefectSite, severity: float, rng: np.random.Generator) -> Part:
    half = 0.12 + 0.26 * severity + float(rng.uniform(0, 0.04))
    width = 0.010 + 0.014 * severity
    opacity = 0.55 + 0.45 * severity
    bow, wobble = float(rng.uniform(-0.5, 0.5)), rng.uniform(-9, 9, (3, 1)).astype(np.float32)
    double = float(rng.uniform(0.04, 0.08)) if rng.random() < 0.4 else 0.0

    def inside(p: Points) -> Values:
        """Depth [N] of a point in the groove: 1 in its middle, 0 outside."""
        a, b, n = site.local(p)
        off = np.abs(b - bow * a * a)
        if double:
            off = np.minimum(off, np.abs(b - bow * a * a - double - 0.15 * a) + 0.5 * width)
        limit = (
            width
            * (1.0 + 0.45 * noise(p * np.float32(23) + wobble)[0])
            * np.sqrt(np.clip(1 - (a / half) ** 2, 0, 1))
        )
        groove = np.clip(1.0 - off / np.maximum(limit, 1e-4), 0.0, 1.0)
        result: Values = np.where(np.abs(n) < 0.16, groove, np.float32(0))
        return result

    def edit(p: Points, distance: Values) -> Values:
        result: Values = distance + 0.7 * width * inside(p)
        return result

    material = _material_under(part, site)
    if material.metallic > 0:
        mark = Mark(lambda p: np.minimum(1.6 * inside(p), 0.85), (0.93, 0.93, 0.94), 0.25, 1.0, opacity)
    else:
        r, g, b = material.color
        color = (0.5 * r + 0.42, 0.5 * g + 0.42, 0.5 * b + 0.42)
        mark = Mark(lambda p: np.minimum(1.6 * inside(p), 0.75), color, 0.7, 0.0, opacity)
    return replace(part, edits=(*part.edits, edit), marks=(*part.marks, mark))


def _damage(part: Part, site: DefectSite, severity: float, rng: np.random.Generator) -> Part:
    radius = 0.075 + 0.145 * severity
    shift = rng.uniform(-9, 9, (3, 1)).astype(np.float32)
    center = site.center + np.float32(0.45 * radius) * site.normal

    def ball(p: Points) -> Values:
        uneven = noise(p * np.float32(9.0) + shift)[0] + 0.5 * noise(p * np.float32(24.0) + shift)[0]
        result: Values = 0.75 * (length(p - center) - radius * (1.0 + 0.35 * uneven))
        return result

    material = _material_under(part, site)
    r, g, b = material.color
    fresh = (0.75 * r + 0.2, 0.75 * g + 0.2, 0.75 * b + 0.2) if material.metallic == 0 else (0.45, 0.44, 0.43)

    def edit(p: Points, distance: Values) -> Values:
        return np.maximum(distance, -ball(p))

    def weight(p: Points) -> Values:
        return 0.85 * smoothstep(0.02, 0.006, ball(p))

    mark = Mark(weight, fresh, 0.85, 0.6 * material.metallic)
    return replace(part, edits=(*part.edits, edit), marks=(*part.marks, mark))


def _stain(part: Part, site: DefectSite, severity: float, rng: np.random.Generator) -> Part:
    radius = 0.085 + 0.165 * severity
    opacity = 0.30 + 0.65 * severity
    shift = rng.uniform(-9, 9, (3, 1)).astype(np.float32)
    looks: tuple[tuple[Color, float], ...] = (
        ((0.40, 0.21, 0.10), 0.80),  # rust
        ((0.10, 0.08, 0.06), 0.18),  # oil
        ((0.82, 0.80, 0.74), 0.85),  # dried residue
    )
    color, roughness = looks[int(rng.integers(len(looks)))]
    under = _material_under(part, site).color
    if max(abs(a - b) for a, b in zip(color, under, strict=True)) < 0.3:
        color, roughness = ((0.82, 0.80, 0.74), 0.85) if sum(under) < 1.2 else ((0.10, 0.08, 0.06), 0.18)

    def weight(p: Points) -> Values:
        uneven = noise(p * np.float32(7.0) + shift)[0] + 0.5 * noise(p * np.float32(19.0) + shift)[0]
        edge = length(p - site.center) * (1 / radius) + 0.45 * uneven
        thickness = 0.75 + 0.25 * noise(p * np.float32(31.0) + shift)[0]
        result: Values = smoothstep(0.95, 0.70, edge) * thickness
        return result

    return replace(part, marks=(*part.marks, Mark(weight, color, roughness, 0.0, opacity)))


def _foreign(part: Part, site: DefectSite, severity: float, rng: np.random.Generator) -> Part:
    if rng.random() < 0.5:
        half, thick = 0.12 + 0.24 * severity, 0.010 + 0.012 * severity
        bow, rise = float(rng.uniform(-2.2, 2.2)), float(rng.uniform(0.2, 0.8))
        dark = Material((0.10, 0.09, 0.10), roughness=0.8)
        material = (RED, dark, Material((0.85, 0.83, 0.78), roughness=0.8))[int(rng.integers(3))]

        def fiber(p: Points) -> Values:
            a, b, n = site.local(p)
            reach = np.clip(a, -half, half)
            slope = 1.0 / float(np.sqrt(1.0 + (2 * bow * half) ** 2))
            tube = np.sqrt(
                (b - bow * reach * reach) ** 2 + (n - thick - rise * reach * reach) ** 2 + (a - reach) ** 2
            )
            result: Values = (tube - thick) * slope
            return result

        return replace(part, components=(*part.components, Component("fibre", fiber, material)))
    radius = 0.035 + 0.07 * severity
    shift = rng.uniform(-9, 9, (3, 1)).astype(np.float32)
    material = (BRASS, ZINC, ORANGE, Material((0.13, 0.11, 0.10), roughness=0.8))[int(rng.integers(4))]
    center = site.center + np.float32(0.45 * radius) * site.normal

    def particle(p: Points) -> Values:
        q = p - center
        square = np.abs(dot(q, site.along)) * 0.55 + np.abs(dot(q, site.across)) + np.abs(dot(q, site.normal))
        ball = np.maximum(length(q) - radius, 0.6 * (square - 1.1 * radius))
        result: Values = 0.8 * (ball - 0.25 * radius * noise(p * np.float32(0.9 / radius) + shift)[0])
        return result

    return replace(part, components=(*part.components, Component("particle", particle, material)))


SURFACE: dict[str, SurfaceDefect] = {"AK": _dent, "HS": _scratch, "PS": _damage, "YW": _foreign, "ZW": _stain}
