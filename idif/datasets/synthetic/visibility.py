"""Share of a defect's surface that each camera sees: surface points compared with the cameras' depth maps."""

import numpy as np
from numpy.typing import NDArray

from idif.datasets.synthetic.distance_volume import CELL
from idif.datasets.synthetic.part_model import MARK_THRESHOLD, Part
from idif.datasets.synthetic.scene import RayHits
from idif.datasets.synthetic.sdf import Points, Values, dot, gradient, unit
from idif.datasets.synthetic.shading import Scene

_POINTS = 60_000
"""Points drawn around the surface; a few hundred to a few thousand of them lie on a defect."""
_MAX_POINTS = 3_000
"""Largest number of points of a defect that are tested."""
_SHELL = 0.03
"""Points within this distance of a surface are projected onto it, so that they lie evenly on it."""
_CHANGED = 0.0025
"""A surface point at least this far from the other part's surface is on one that the other part lacks."""


def visible_shares(
    before: RayHits, after: RayHits, near: Points | None, rng: np.random.Generator
) -> tuple[float, ...]:
    """Share 0..1 of the defect's surface that each camera sees; all 0 where there is no such surface.

    The defect's surface is the surface that the defective part has and the clean part ``before`` lacks, or
    has in another material or without a mark, and the surface that the clean part has and the defective part
    lacks. A point is seen where it faces the camera and nothing occludes it; a lost point is tested in the
    clean part. The far side counts too, so even a defect in plain view seldom reaches 1.

    Args:
        near: center [3, 1] of a defect that extends at most half a radius; None searches everywhere.
    """
    p = _sample_around(before.scene, after.scene, near, rng)
    old, new = before.scene.part, after.scene.part
    d_old, d_new = old.distance(p), new.distance(p)
    moved = np.abs(d_old - d_new) > 0.4 * _CHANGED
    near_surface = np.abs(d_new) < _SHELL
    candidate = near_surface & (moved | _marked(new, p))
    if _component_looks(old) != _component_looks(new):
        rest = np.flatnonzero(near_surface & ~candidate)
        candidate[rest] = _other_material(old, new, p[:, rest])
    gained, normal = _project_to_surface(new, p[:, np.flatnonzero(candidate)[:_MAX_POINTS]])
    changed = (np.abs(old.distance(gained)) > _CHANGED) | _marked(new, gained)
    changed |= _other_material(old, new, gained)
    changed &= np.abs(new.distance(gained)) < _CHANGED
    seen = _is_seen(after, gained[:, changed], normal[:, changed])

    candidates = np.flatnonzero((np.abs(d_old) < _SHELL) & moved)[:_MAX_POINTS]
    lost, normal = _project_to_surface(old, p[:, candidates])
    changed = (np.abs(new.distance(lost)) > _CHANGED) & (np.abs(old.distance(lost)) < _CHANGED)
    seen = np.concatenate([seen, _is_seen(before, lost[:, changed], normal[:, changed])], axis=1)
    if not seen.shape[1]:
        return (0.0,) * len(seen)
    return tuple(round(float(share), 4) for share in seen.mean(axis=1))


def _sample_around(before: Scene, after: Scene, near: Points | None, rng: np.random.Generator) -> Points:
    """Random points [3, N], evenly spread around both parts' surfaces, everywhere or near a point."""
    corners = np.concatenate([scene.volume.cells_near_surface(_SHELL) for scene in (before, after)], axis=1)
    corners = np.unique(corners, axis=1)
    if near is not None:
        q = corners - near
        corners = corners[:, dot(q, q) < 0.25]
    chosen = corners[:, rng.integers(corners.shape[1], size=_POINTS)]
    result: Points = chosen + np.float32(CELL) * (rng.random((3, _POINTS), np.float32) - np.float32(0.5))
    return result


def _component_looks(part: Part) -> list[object]:
    return [(component.name, component.material) for component in part.components]


def _other_material(old: Part, new: Part, p: Points) -> NDArray[np.bool_]:
    """Whether points [3, N] lie on components, or in materials, that differ between the two parts."""
    ids: dict[object, int] = {}
    numbers = [
        np.array([ids.setdefault(look, len(ids)) for look in _component_looks(part)])[part.component_at(p)]
        for part in (old, new)
    ]
    result: NDArray[np.bool_] = numbers[0] != numbers[1]
    return result


def _marked(part: Part, p: Points) -> NDArray[np.bool_]:
    result = np.zeros(p.shape[1], bool)
    for mark in part.marks:
        result |= mark.weight(p) > MARK_THRESHOLD
    return result


def _project_to_surface(part: Part, p: Points) -> tuple[Points, Points]:
    """Points [3, N] projected onto the surface, and the normals there."""
    for _ in range(4):
        p = p - gradient(part.distance, p, 0.003) * part.distance(p)
    return p, gradient(part.distance, p, 0.004)


def _is_seen(hits: RayHits, p: Points, normal: Points) -> NDArray[np.bool_]:
    """Whether each camera sees the surface points [3, N] with these normals: [V, N]."""
    cameras = hits.cameras
    size, count = cameras.size, cameras.position.shape[1]
    width = cameras.pixel_width
    result = np.zeros((count, p.shape[1]), bool)
    for view in range(count):
        one = slice(view, view + 1)
        q = p - cameras.position[:, one]
        depth: Values = dot(q, cameras.forward[:, one])
        column, row = (
            np.floor((0.5 + sign * dot(q, axis[:, one]) / (depth * (width * size))) * size).astype(int)
            for sign, axis in ((1, cameras.right), (-1, cameras.up))
        )
        facing = -dot(normal, unit(q))
        inside = (column >= 0) & (column < size) & (row >= 0) & (row < size) & (facing > 0)
        index = np.flatnonzero(inside)
        first = hits.depth[view * size**2 + row[index] * size + column[index]]
        # The depth of a slanted surface varies within a pixel.
        slack = 0.004 + width * depth[index] * np.minimum(1.0 / facing[index], 6.0)
        result[view, index] = depth[index] <= first + slack
    return result
