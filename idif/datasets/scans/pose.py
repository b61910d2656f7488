"""Aligns scans of one kind of object to one pose on the table.

No label is used: poses are estimated from the objects' heights above the table.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from idif.datasets.scans.point_cloud import Floats
from idif.datasets.scans.rasterizer import Mesh, rasterize, rotation_about_z

CELLS = 64
"""Cells along each side of a height map."""
TEMPLATE_SCANS = 40
"""Largest number of scans that the template is made from."""
ROUNDS = 4
"""Number of times that the template is rebuilt from the scans aligned to it."""

Heights = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Pose:
    """Position and rotation of an object on its table; `place` moves it to the common pose at the origin."""

    x: float
    """Table coordinate of the object's reference point, meters."""
    y: float
    angle: float
    """Radians to rotate it by, from x towards y."""

    def place(self, points: Floats) -> Floats:
        """[...,3] table axes -> [...,3] object axes: x along the object, z the height, meters."""
        placed: Floats = (points - np.array([self.x, self.y, 0.0])) @ rotation_about_z(self.angle).T
        return placed

    @property
    def rotation(self) -> Floats:
        """[3,3]: rotates directions in table axes to object axes."""
        return rotation_about_z(self.angle)

    def rotate_direction(self, direction: Floats) -> Floats:
        """[3] direction in table axes -> [3] in object axes."""
        rotated: Floats = self.rotation @ direction
        return rotated


def middle(mesh: Mesh) -> tuple[float, float]:
    """Table coordinates of the center of the mesh's bounding box."""
    low, high = np.nanmin(mesh.points, axis=(0, 1)), np.nanmax(mesh.points, axis=(0, 1))
    return float(low[0] + high[0]) / 2, float(low[1] + high[1]) / 2


def radius(mesh: Mesh) -> float:
    """Distance in meters from `middle` to the farthest point, along the table."""
    offset = mesh.points[..., :2] - np.array(middle(mesh))
    return float(np.sqrt(np.nanmax((offset**2).sum(-1))))


def height_map(mesh: Mesh, extent: float) -> Heights:
    """float32 [CELLS,CELLS]: heights above the table around `middle`, meters, small gaps closed, else 0."""
    center = np.array([*middle(mesh), 0.0])
    depth = rasterize(mesh, np.eye(3), center, extent, CELLS).depth
    heights: Heights = np.where(np.isfinite(depth), depth, 0).astype(np.float32)
    return np.asarray(cv2.morphologyEx(heights, cv2.MORPH_CLOSE, np.ones((3, 3), np.uint8)), np.float32)


def _rotated(heights: Heights, angle: float) -> Heights:
    """The map rotated by ``angle`` radians from x (right) towards y (up) about its center."""
    middle_cell = ((CELLS - 1) / 2, (CELLS - 1) / 2)
    matrix = cv2.getRotationMatrix2D(middle_cell, np.degrees(angle), 1.0)
    rotated = cv2.warpAffine(heights, matrix, (CELLS, CELLS), flags=cv2.INTER_LINEAR)
    return np.asarray(rotated, np.float32)


def register(heights: Heights, template: Heights) -> tuple[float, float, float]:
    """The rotation and shift that align a height map to a template with the largest correlation.

    All rotations are tried, coarse to fine; all shifts by whole cells are tried at once by FFT, and the best
    is refined by the parabola through its neighbors.

    Returns:
        Angle in radians, then the shift in cells to the right and upwards, applied after the rotation.
    """
    padded = (2 * CELLS, 2 * CELLS)
    spectrum = np.conj(np.fft.rfft2(template, padded))

    def scores(angle: float) -> Floats:
        product = np.fft.rfft2(_rotated(heights, angle), padded) * spectrum
        correlation: Floats = np.fft.irfft2(product, padded)
        return correlation

    angle = 0.0
    for span, step in ((180.0, 5.0), (4.0, 1.0), (0.75, 0.25)):
        trials = angle + np.radians(np.arange(-span, span + step / 2, step))
        angle = float(trials[int(np.argmax([scores(trial).max() for trial in trials]))])
    score = scores(angle)
    row, column = np.unravel_index(int(score.argmax()), score.shape)
    # the map lies this far right of and below the template: shift it back left and up
    return angle, -_peak(score[row], int(column)), _peak(score[:, column], int(row))


def _peak(line: Floats, index: int) -> float:
    """Subcell position of a periodic line's maximum near ``index``, in -len/2..len/2."""
    before, value, after = line[index - 1], line[index], line[(index + 1) % len(line)]
    bend = before - 2 * value + after
    position = index + (0.0 if bend == 0 else 0.5 * (before - after) / bend)
    return float(position if position <= len(line) / 2 else position - len(line))


def _shifted(heights: Heights, angle: float, right: float, up: float) -> Heights:
    """The map rotated about its center, then shifted by cells."""
    shift = np.array([[1, 0, right], [0, 1, -up]], np.float32)
    moved = cv2.warpAffine(_rotated(heights, angle), shift, (CELLS, CELLS), flags=cv2.INTER_LINEAR)
    return np.asarray(moved, np.float32)


def make_template(maps: Sequence[Heights]) -> Heights:
    """The mean height map of the scans aligned to it, its long axis along x, the heavier end on the left.

    Starts from the first map and is rebuilt `ROUNDS` times from at most `TEMPLATE_SCANS` evenly chosen maps.
    """
    chosen = [maps[k] for k in np.unique(np.linspace(0, len(maps) - 1, TEMPLATE_SCANS).astype(int))]
    template = _upright(chosen[0])
    for _ in range(ROUNDS):
        mean = np.mean([_shifted(one, *register(one, template)) for one in chosen], axis=0)
        template = _upright(mean.astype(np.float32))
    return template


def _upright(heights: Heights) -> Heights:
    """The map with its centroid in the middle and its long axis along x, the longer tail to the right."""
    rows, columns = np.indices(heights.shape)
    x, y = columns - (CELLS - 1) / 2, (CELLS - 1) / 2 - rows
    weight = heights / heights.sum()
    x, y = x - (weight * x).sum(), y - (weight * y).sum()
    spread = np.array([[(weight * a * b).sum() for a in (x, y)] for b in (x, y)])
    _, vectors = np.linalg.eigh(spread)
    along = vectors[:, 1]
    tail = (weight * (along[0] * x + along[1] * y) ** 3).sum()
    angle = -float(np.arctan2(along[1], along[0])) + (np.pi if tail < 0 else 0.0)
    rotated = _rotated(heights, angle)
    weight = rotated / rotated.sum()
    x, y = columns - (CELLS - 1) / 2, (CELLS - 1) / 2 - rows
    return _shifted(rotated, 0.0, -float((weight * x).sum()), -float((weight * y).sum()))


def find_pose(mesh: Mesh, extent: float, template: Heights) -> Pose:
    """The pose that aligns a scan to a template of height maps with side ``extent`` (meters)."""
    angle, right, up = register(height_map(mesh, extent), template)
    shift = np.array([right, up, 0.0]) * extent / CELLS
    x, y, _ = np.array([*middle(mesh), 0.0]) - shift @ rotation_about_z(angle)
    return Pose(float(x), float(y), angle)
