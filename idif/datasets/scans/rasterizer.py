"""Deterministic rasterizer: renders the triangle mesh of an organized cloud with parallel-projection cameras.

Written in numpy rather than on a graphics driver, so that it needs no display and gives the same bytes
everywhere.
"""

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from idif.datasets.scans.point_cloud import JUMP, Bools, Floats, grid_step

SUPERSAMPLING = 3
"""Samples per pixel along each axis; their mean gives smooth edges."""


@dataclass(frozen=True)
class Mesh:
    """Triangles over the grid of an organized cloud."""

    points: Floats
    """[H,W,3]; NaN where there is no vertex."""
    triangles: npt.NDArray[np.int64]
    """[T,3]: flat indices into the grid."""


@dataclass(frozen=True)
class Fragments:
    """Grid position that is visible at each sample of a square raster."""

    column: npt.NDArray[np.float32]
    """[S,S]: fractional grid column; NaN where nothing is visible."""
    row: npt.NDArray[np.float32]
    """[S,S]: fractional grid row."""
    depth: npt.NDArray[np.float32]
    """[S,S]: coordinate towards the viewer, meters."""


def triangulate(points: Floats, stride: int = 1) -> Mesh:
    """Join neighboring points into triangles, two per grid cell, and none across a depth jump.

    Cells are split along their shorter diagonal; a cell with one point missing gives one triangle.

    Args:
        points: [H,W,3], NaN where there is none.
        stride: use every ``stride``-th row and column; colors are still read from the whole grid.
    """
    H, W = points.shape[:2]
    grid = np.arange(H * W).reshape(H, W)[::stride, ::stride]
    a, b, c, d = (g.ravel() for g in (grid[:-1, :-1], grid[:-1, 1:], grid[1:, :-1], grid[1:, 1:]))
    flat = points.reshape(-1, 3)
    ad, bc = (np.linalg.norm(flat[p] - flat[q], axis=1) for p, q in ((a, d), (b, c)))
    along_bc = np.isnan(ad) | (bc <= ad)
    first = np.where(along_bc[:, None], np.stack([a, c, b], 1), np.stack([a, c, d], 1))
    second = np.where(along_bc[:, None], np.stack([b, c, d], 1), np.stack([a, d, b], 1))
    triangles = np.concatenate([first, second])
    corners = flat[triangles]
    longest = np.linalg.norm(corners - np.roll(corners, 1, axis=1), axis=2).max(1)
    # NaN compares false, so that triangles with a missing corner are dropped as well
    return Mesh(points, triangles[longest < JUMP * stride * grid_step(points)])


def tilted_camera(tilt: float, azimuth: float) -> Floats:
    """[3,3]: right, up and towards-the-viewer axes of a camera tilted from above towards a side.

    Args:
        tilt: radians away from the vertical.
        azimuth: radians from x towards y: the side it is tilted to.
    """
    lean = np.array([[np.cos(tilt), 0, np.sin(tilt)], [0, 1, 0], [-np.sin(tilt), 0, np.cos(tilt)]])
    turn = rotation_about_z(azimuth)
    rows: Floats = (turn @ lean @ turn.T).T
    return rows


def rotation_about_z(angle: float) -> Floats:
    """[3,3]: rotation from x towards y by ``angle`` radians."""
    cos, sin = np.cos(angle), np.sin(angle)
    return np.array([[cos, -sin, 0], [sin, cos, 0], [0, 0, 1.0]])


def rasterize(mesh: Mesh, camera: Floats, center: Floats, extent: float, samples: int) -> Fragments:
    """Project a mesh with a parallel-projection camera.

    Args:
        mesh: points in the frame of ``camera`` and ``center``.
        camera: [3,3], see `turned_towards`.
        center: [3]: the point that appears in the middle.
        extent: side of the visible square, meters.
        samples: samples along each side of the raster; row 0 is up, column 0 is left.
    """
    H, W = mesh.points.shape[:2]
    seen = (mesh.points.reshape(-1, 3) - center) @ camera.T
    scale = samples / extent
    # the center of sample k lies at k
    x = seen[:, 0] * scale + (samples - 1) / 2
    y = (samples - 1) / 2 - seen[:, 1] * scale
    corners = mesh.triangles
    # far to near: where two triangles cover a sample, the nearer is written last
    corners = corners[np.argsort(seen[corners, 2].sum(1), kind="stable")]
    tx, ty = x[corners], y[corners]
    area = (tx[:, 1] - tx[:, 0]) * (ty[:, 2] - ty[:, 0]) - (tx[:, 2] - tx[:, 0]) * (ty[:, 1] - ty[:, 0])
    low_x, low_y = np.ceil(tx.min(1) - 1e-9).astype(np.int64), np.ceil(ty.min(1) - 1e-9).astype(np.int64)
    wide = np.floor(tx.max(1) + 1e-9).astype(np.int64) - low_x + 1
    tall = np.floor(ty.max(1) + 1e-9).astype(np.int64) - low_y + 1
    covers = (np.abs(area) > 1e-12) & (wide > 0) & (tall > 0)
    corners, tx, ty, area = corners[covers], tx[covers], ty[covers], area[covers]
    low_x, low_y, wide, tall = low_x[covers], low_y[covers], wide[covers], tall[covers]

    # every sample of every triangle's box, one entry each, still far to near
    count = wide * tall
    owner = np.repeat(np.arange(len(count)), count)
    nth = np.arange(len(owner)) - np.repeat(np.cumsum(count) - count, count)
    px, py = low_x[owner] + nth % wide[owner], low_y[owner] + nth // wide[owner]
    w1 = (
        (px - tx[owner, 0]) * (ty[owner, 2] - ty[owner, 0])
        - (tx[owner, 2] - tx[owner, 0]) * (py - ty[owner, 0])
    ) / area[owner]
    w2 = (
        (tx[owner, 1] - tx[owner, 0]) * (py - ty[owner, 0])
        - (px - tx[owner, 0]) * (ty[owner, 1] - ty[owner, 0])
    ) / area[owner]
    inside = (w1 >= -1e-6) & (w2 >= -1e-6) & (w1 + w2 <= 1 + 1e-6)
    inside &= (px >= 0) & (px < samples) & (py >= 0) & (py < samples)
    owner, w1, w2, pixel = owner[inside], w1[inside], w2[inside], (py * samples + px)[inside]

    winner = np.full(samples * samples, -1)
    winner[pixel] = np.arange(len(pixel))  # numpy lets the last of equal indices win
    hit = winner >= 0
    chosen = winner[hit]
    triangle, v, w = corners[owner[chosen]], w1[chosen], w2[chosen]
    weights = np.stack([1 - v - w, v, w], 1)

    def spread(values: Floats) -> npt.NDArray[np.float32]:
        raster = np.full(samples * samples, np.nan, np.float32)
        raster[hit] = (values[triangle] * weights).sum(1)
        return raster.reshape(samples, samples)

    index = np.arange(H * W)
    column, row = (index % W).astype(np.float64), (index // W).astype(np.float64)
    return Fragments(spread(column), spread(row), spread(seen[:, 2]))


FARTHEST = 55.0
"""Gray value of the farthest depth, so that no surface looks like the background."""


def paint(fragments: Fragments, image: npt.NDArray[np.float32], background: float) -> npt.NDArray[np.uint8]:
    """The color picture of a scan.

    Args:
        fragments: ``S`` samples a side, a multiple of `SUPERSAMPLING`.
        image: [H,W,3]: colors on the grid, 0..255.
        background: gray value where nothing is visible, 0..255.

    Returns:
        uint8 [S/SUPERSAMPLING, S/SUPERSAMPLING, 3].
    """
    seen = np.isfinite(fragments.column)
    column, row = (np.where(seen, f, -1).astype(np.float32) for f in (fragments.column, fragments.row))
    colors = cv2.remap(image, column, row, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return _reduce(np.where(seen[..., None], colors, np.float32(background)))


def paint_depth(fragments: Fragments, low: float, high: float) -> npt.NDArray[np.uint8]:
    """The depth picture of a scan: gray `FARTHEST` at ``low`` to 255 at ``high``, black beside the object.

    Args:
        fragments: as for `paint`.
        low, high: depths in meters, growing towards the camera; depths beyond are clipped.

    Returns:
        uint8 [S/SUPERSAMPLING, S/SUPERSAMPLING, 3], its channels equal.
    """
    share = np.clip((fragments.depth - low) / (high - low), 0, 1)
    gray = np.nan_to_num(FARTHEST + (255 - FARTHEST) * share, nan=0.0)
    return _reduce(np.repeat(gray[..., None], 3, axis=2))


def _reduce(colors: npt.NDArray[np.float32]) -> npt.NDArray[np.uint8]:
    """[S,S,3] samples, 0..255 -> uint8 pixels, each the mean of its samples."""
    size = len(colors) // SUPERSAMPLING
    mean = colors.reshape(size, SUPERSAMPLING, size, SUPERSAMPLING, 3).mean((1, 3))
    picture: npt.NDArray[np.uint8] = np.clip(np.rint(mean), 0, 255).astype(np.uint8)
    return picture


def paint_mask(fragments: Fragments, mask: Bools) -> Bools:
    """The defect mask of a view: true where most of a pixel's samples on the object lie on the defect.

    Args:
        fragments: as for `paint`.
        mask: bool [H,W] on the grid, sampled at the nearest point.
    """
    seen = np.isfinite(fragments.column)
    column, row = (np.rint(np.where(seen, f, 0)).astype(np.int64) for f in (fragments.column, fragments.row))
    defect = seen & mask[row, column]
    size = len(seen) // SUPERSAMPLING
    shape = (size, SUPERSAMPLING, size, SUPERSAMPLING)
    votes: Bools = 2 * defect.reshape(shape).sum((1, 3)) > seen.reshape(shape).sum((1, 3))
    return votes
