"""Cleans organized point clouds: finds the table, keeps the object, drops flying pixels, closes small holes.

An organized cloud keeps the sensor's pixel grid: ``points[row, column]`` is where that pixel's ray ends, in
meters, camera axes (x right, y down, z away from the sensor); NaN where nothing was measured.
"""

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt
from scipy import sparse
from scipy.sparse import linalg as sparse_linalg
from scipy.sparse.csgraph import connected_components

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

PLANE_TRIALS = 200
PLANE_BAND = 0.002
"""Points within this distance of a plane, in meters, support it: covers cloth waves and sensor noise."""
MIN_SUPPORT = 0.1
"""Smallest share of the points that makes a plane a table."""
OBJECT_HEIGHT = 0.002
"""Points higher than this above the table, in meters, belong to the object."""
JUMP = 6.0
"""Neighbors further apart than this many grid steps are not joined: a surface seen at under 10 degrees."""
MIN_SURFACE = 0.005
"""Surfaces with a smaller share of the object's points are dropped."""
GAP = 0.06
"""Gaps narrower than this share of the object's width are bridged, even where they open to the outside."""
LARGEST_HOLE = 0.03
"""Holes larger than this share of the object's pixels stay open."""
NEIGHBORS = [(down, across) for down in (-1, 0, 1) for across in (-1, 0, 1) if (down, across) != (0, 0)]


@dataclass(frozen=True)
class TablePlane:
    """The plane an object lies on, as a frame: z up towards the sensor, x along the grid's rows."""

    origin: Floats
    """[3]: a point on the table, camera axes, meters."""
    axes: Floats
    """[3,3]: rows are the table's x, y, z in camera axes; right-handed."""
    support: float
    """Share of the measured points that lie on it."""

    def to_table(self, points: Floats) -> Floats:
        """[...,3] camera axes -> [...,3] table axes, meters; the last is the height."""
        table_points: Floats = (points - self.origin) @ self.axes.T
        return table_points


def find_table(points: Floats, seed: int = 0) -> TablePlane | None:
    """The plane that most points lie on, or None where no plane holds `MIN_SUPPORT` of them.

    Seeded RANSAC over random triples, then three rounds of least squares over the best plane's points.

    Args:
        points: [H,W,3], camera axes, meters, NaN where nothing was measured.
    """
    known = points[np.isfinite(points[..., 2])]
    if len(known) < 100:
        return None
    rng = np.random.default_rng(seed)
    sample = known[rng.choice(len(known), min(len(known), 4000), replace=False)]
    triples = sample[rng.integers(len(sample), size=(PLANE_TRIALS, 3))]
    normals = np.cross(triples[:, 1] - triples[:, 0], triples[:, 2] - triples[:, 0])
    lengths = np.linalg.norm(normals, axis=1)
    usable = lengths > 1e-9
    normals, starts = normals[usable] / lengths[usable, None], triples[usable, 0]
    if not len(normals):
        return None
    off = np.abs(sample @ normals.T - (starts * normals).sum(1))
    best = int((off < PLANE_BAND).sum(0).argmax())
    normal, origin = normals[best], starts[best]
    for _ in range(3):
        near = known[np.abs((known - origin) @ normal) < PLANE_BAND]
        origin = near.mean(0)
        normal = np.linalg.svd(np.cov((near - origin).T))[0][:, 2]
    support = float((np.abs((known - origin) @ normal) < PLANE_BAND).mean())
    if support < MIN_SUPPORT:
        return None
    normal = normal if normal[2] < 0 else -normal
    x = np.array([1.0, 0.0, 0.0]) - normal[0] * normal
    x /= np.linalg.norm(x)
    return TablePlane(origin=origin, axes=np.stack([x, np.cross(normal, x), normal]), support=support)


def grid_step(points: Floats) -> float:
    """Median distance in meters between neighbors along a row."""
    return float(np.nanmedian(np.linalg.norm(np.diff(points, axis=1), axis=2)))


def keep_object(points: Floats, table: TablePlane) -> Floats:
    """The cloud with everything but the object set to NaN.

    The object is everything above the table, in pieces no smaller than a twentieth of the largest. A point
    with fewer than four of its eight neighbors near it is a flying pixel and is dropped too.

    Args:
        points: [H,W,3], camera axes, meters.
    """
    height = table.to_table(points)[..., 2]
    keep = drop_flying(points, np.isfinite(height) & (height > OBJECT_HEIGHT))
    if not keep.any():
        return np.full_like(points, np.nan)
    # gaps of two pixels are bridged before pieces are separated: a dark groove does not split an object
    bridged = cv2.morphologyEx(keep.astype(np.uint8), cv2.MORPH_CLOSE, np.ones((5, 5), np.uint8))
    _, piece = cv2.connectedComponents(bridged, connectivity=8)
    sizes = np.bincount(piece[keep], minlength=2)
    keep &= (sizes >= sizes.max() / 20)[piece]
    return drop_small_surfaces(np.where(keep[..., None], points, np.nan))


def drop_small_surfaces(points: Floats) -> Floats:
    """The cloud without surfaces of under `MIN_SURFACE` of its points: slivers seen past an edge.

    Points belong to one surface where neighbors along rows and columns are within `JUMP` grid steps.
    """
    H, W = points.shape[:2]
    grid = np.arange(H * W).reshape(H, W)
    near = JUMP * grid_step(points)
    right = np.linalg.norm(np.diff(points, axis=1), axis=2) < near
    down = np.linalg.norm(np.diff(points, axis=0), axis=2) < near
    starts = np.concatenate([grid[:, :-1][right], grid[:-1][down]])
    ends = np.concatenate([grid[:, 1:][right], grid[1:][down]])
    links = sparse.coo_array((np.ones(len(starts), bool), (starts, ends)), shape=(H * W, H * W))
    _, surface = connected_components(links, directed=False)
    known = np.isfinite(points[..., 2])
    sizes = np.bincount(surface[known.ravel()], minlength=int(surface.max()) + 1)
    large = (sizes >= MIN_SURFACE * known.sum())[surface].reshape(H, W)
    return np.where(large[..., None], points, np.nan)


def drop_flying(points: Floats, keep: Bools) -> Bools:
    """``keep`` without the points that have fewer than four neighbors on the same surface."""
    inside = np.where(keep[..., None], points, np.nan)
    step = grid_step(points)
    padded = np.pad(inside, ((1, 1), (1, 1), (0, 0)), constant_values=np.nan)
    H, W = keep.shape
    neighbors = np.zeros((H, W), np.int64)
    for down, across in NEIGHBORS:
        other = padded[1 + down : 1 + down + H, 1 + across : 1 + across + W]
        neighbors += np.linalg.norm(other - inside, axis=2) < JUMP / 2 * step
    return keep & (neighbors >= 4)


def close_holes(points: Floats) -> Floats:
    """The cloud with its holes and narrow gaps filled by a membrane over their rims.

    Holes inside the object's outline are filled, the outline smoothed over `GAP` of its width. Holes stay
    open that are larger than `LARGEST_HOLE` of the object, or that need a wall steeper than `JUMP` grid steps
    per pixel, which may not exist.

    Args:
        points: [H,W,3], NaN outside the object.
    """
    known = np.isfinite(points[..., 2])
    gap = _inside_outline(known) & ~known
    step = grid_step(points)
    part = cv2.connectedComponents(gap.astype(np.uint8), connectivity=8)[1].astype(np.int64)
    half_width = cv2.distanceTransform(gap.astype(np.uint8), cv2.DIST_L2, 3)
    sizes = np.bincount(part.ravel())
    # the depths around each part, one entry per rim point and part it touches
    rim_part = cv2.dilate(part.astype(np.float32), np.ones((3, 3), np.uint8)).astype(np.int64)
    rim = known & (rim_part > 0)
    depth = points[..., 2]
    lowest, highest = np.full(len(sizes), np.inf), np.full(len(sizes), -np.inf)
    np.minimum.at(lowest, rim_part[rim], depth[rim])
    np.maximum.at(highest, rim_part[rim], depth[rim])
    across = np.zeros(len(sizes))
    np.maximum.at(across, part.ravel(), 2 * half_width.ravel() + 1)
    fill = (sizes <= LARGEST_HOLE * known.sum()) & (highest - lowest <= JUMP * step * across)
    fill[0] = False
    return span_membrane(points, fill[part])


def _inside_outline(known: Bools) -> Bools:
    """``known`` and everything that it encloses, after bridging gaps narrower than `GAP` of its width."""
    width = max(int(np.ptp(axis)) + 1 for axis in np.nonzero(known))
    reach = 2 * int(GAP * width / 2) + 1
    padded = np.pad(known.astype(np.uint8), reach)
    disk = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (reach, reach))
    bridged = cv2.morphologyEx(padded, cv2.MORPH_CLOSE, disk) > 0
    _, outside = cv2.connectedComponents((~bridged).astype(np.uint8), connectivity=4)
    inside: Bools = (outside != outside[0, 0])[reach:-reach, reach:-reach]
    return inside


def span_membrane(points: Floats, gap: Bools) -> Floats:
    """The cloud with each point of ``gap`` set to the mean of its existing eight neighbors (Laplace).

    Args:
        points: [H,W,3]; every part of ``gap`` must touch a known point.
    """
    H, W = gap.shape
    number = np.cumsum(gap.ravel()).reshape(H, W) - 1
    unknowns = int(gap.sum())
    if not unknowns:
        return points
    exists = np.pad(gap | np.isfinite(points[..., 2]), 1)
    in_gap = np.pad(gap, 1)
    numbers, values = np.pad(number, 1), np.pad(np.nan_to_num(points), ((1, 1), (1, 1), (0, 0)))
    row, column = (index + 1 for index in np.nonzero(gap))
    degree, right = np.zeros(unknowns), np.zeros((unknowns, 3))
    ones: list[npt.NDArray[np.int64]] = []
    others: list[npt.NDArray[np.int64]] = []
    for down, across in NEIGHBORS:
        beside = row + down, column + across
        degree += exists[beside]
        joined = in_gap[beside]
        right += np.where((exists[beside] & ~joined)[:, None], values[beside], 0)
        ones.append(np.flatnonzero(joined))
        others.append(numbers[beside][joined])
    links = np.concatenate(ones), np.concatenate(others)
    matrix = sparse.csc_array((np.full(len(links[0]), -1.0), links), shape=(unknowns, unknowns))
    solved = sparse_linalg.spsolve(matrix + sparse.diags_array(degree, format="csc"), right)
    filled = points.copy()
    filled[gap] = solved
    return filled
