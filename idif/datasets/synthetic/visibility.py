"""How much of a defect's surface each camera can see: points on the surface, looked up in the depths that the
cameras saw."""

import numpy as np
from numpy.typing import NDArray

from idif.datasets.synthetic.distance_volume import CELL
from idif.datasets.synthetic.part_model import SHOWN, Part
from idif.datasets.synthetic.scene import RayHits
from idif.datasets.synthetic.sdf import Points, Values, dot, gradient, unit
from idif.datasets.synthetic.shading import Scene

_POINTS = 60_000
"""Drawn around the surface; a few hundred to some thousand of them belong to a defect."""
_MOST = 3_000
_SHELL = 0.03
"""Points this near to a surface are moved onto it, so that they lie evenly on it."""
_APART = 0.0025
"""A point this far from the other part's surface is on one that the other part does not have."""


def visible_shares(
    before: RayHits, after: RayHits, near: Points | None, rng: np.random.Generator
) -> tuple[float, ...]:
    """Share 0..1 of the defect's surface that each camera sees; all 0 where no such surface is found.

    The defect's surface is what the spoilt part has and its unspoilt twin ``before`` has not, or has in
    another material or without a mark, and what the twin has and the spoilt part has lost. A point counts as
    seen where it faces the camera and nothing lies before it; for what is lost, in the unspoilt part. The far
    side counts in the whole, so even a defect in plain view seldom reaches 1.

    Args:
        near: the middle [3, 1] of a defect that reaches no further than half a radius; None looks everywhere.
    """
    p = _around(before.scene, after.scene, near, rng)
    old, new = before.scene.part, after.scene.part
    d_old, d_new = old.distance(p), new.distance(p)
    moved = np.abs(d_old - d_new) > 0.4 * _APART
    here = np.abs(d_new) < _SHELL
    look = here & (moved | _marked(new, p))
    if _looks(old) != _looks(new):
        rest = np.flatnonzero(here & ~look)
        look[rest] = _other_material(old, new, p[:, rest])
    gained, normal = _settled(new, p[:, np.flatnonzero(look)[:_MOST]])
    kept = (np.abs(old.distance(gained)) > _APART) | _marked(new, gained)
    kept |= _other_material(old, new, gained)
    kept &= np.abs(new.distance(gained)) < _APART
    seen = _seen(after, gained[:, kept], normal[:, kept])

    gone = np.flatnonzero((np.abs(d_old) < _SHELL) & moved)[:_MOST]
    lost, normal = _settled(old, p[:, gone])
    kept = (np.abs(new.distance(lost)) > _APART) & (np.abs(old.distance(lost)) < _APART)
    seen = np.concatenate([seen, _seen(before, lost[:, kept], normal[:, kept])], axis=1)
    if not seen.shape[1]:
        return (0.0,) * len(seen)
    return tuple(round(float(share), 4) for share in seen.mean(axis=1))


def _around(before: Scene, after: Scene, near: Points | None, rng: np.random.Generator) -> Points:
    """Random points [3, N], evenly spread around both parts' surfaces, or that part of them near a point."""
    corners = np.concatenate([scene.volume.near(_SHELL) for scene in (before, after)], axis=1)
    corners = np.unique(corners, axis=1)
    if near is not None:
        q = corners - near
        corners = corners[:, dot(q, q) < 0.25]
    chosen = corners[:, rng.integers(corners.shape[1], size=_POINTS)]
    result: Points = chosen + np.float32(CELL) * (rng.random((3, _POINTS), np.float32) - np.float32(0.5))
    return result


def _looks(part: Part) -> list[object]:
    return [(component.name, component.material) for component in part.components]


def _other_material(old: Part, new: Part, p: Points) -> NDArray[np.bool_]:
    """Whether points [3, N] lie on pieces, or in materials, that differ between the two parts."""
    known: dict[object, int] = {}
    numbers = [
        np.array([known.setdefault(look, len(known)) for look in _looks(part)])[part.component_at(p)]
        for part in (old, new)
    ]
    result: NDArray[np.bool_] = numbers[0] != numbers[1]
    return result


def _marked(part: Part, p: Points) -> NDArray[np.bool_]:
    result = np.zeros(p.shape[1], bool)
    for mark in part.marks:
        result |= mark.weight(p) > SHOWN
    return result


def _settled(part: Part, p: Points) -> tuple[Points, Points]:
    """Points [3, N] moved onto the surface, and the normals there."""
    for _ in range(4):
        p = p - gradient(part.distance, p, 0.003) * part.distance(p)
    return p, gradient(part.distance, p, 0.004)


def _seen(sight: RayHits, p: Points, normal: Points) -> NDArray[np.bool_]:
    """Whether each camera sees the surface points [3, N] of these normals: [V, N]."""
    eyes = sight.eyes
    size, count = eyes.size, eyes.position.shape[1]
    width = eyes.pixel_width
    result = np.zeros((count, p.shape[1]), bool)
    for view in range(count):
        here = slice(view, view + 1)
        q = p - eyes.position[:, here]
        depth: Values = dot(q, eyes.forward[:, here])
        column, row = (
            np.floor((0.5 + sign * dot(q, axis[:, here]) / (depth * (width * size))) * size).astype(int)
            for sign, axis in ((1, eyes.right), (-1, eyes.up))
        )
        facing = -dot(normal, unit(q))
        inside = (column >= 0) & (column < size) & (row >= 0) & (row < size) & (facing > 0)
        at = np.flatnonzero(inside)
        first = sight.depth[view * size**2 + row[at] * size + column[at]]
        # Within a pixel the depth of a slanted surface varies.
        slack = 0.004 + width * depth[at] * np.minimum(1.0 / facing[at], 6.0)
        result[view, at] = depth[at] <= first + slack
    return result
