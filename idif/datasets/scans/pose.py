"""Turn scans of one kind of object to one pose on the table, head to head and tail to tail.

No label is used: the poses come from the objects' heights above the table alone.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from idif.datasets.scans.point_cloud import Floats
from idif.datasets.scans.rasterizer import Mesh, rasterise, rotation_about_z

CELLS = 64
"""Cells along each side of a height map."""
TEMPLATE_SCANS = 40
"""Scans that make the template, at most."""
ROUNDS = 4
"""Times that the template is made anew from the scans aligned to it."""

Heights = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Pose:
    """Where an object lies on its table: `place` brings it to the origin and turns it to the common pose."""

    x: float
    """Table coordinate of the object's reference point, metres."""
    y: float
    angle: float
    """Radians to turn it by, from x towards y."""

    def place(self, points: Floats) -> Floats:
        """[...,3] table axes -> [...,3] object axes: x along the object, z the height, metres."""
        placed: Floats = (points - np.array([self.x, self.y, 0.0])) @ rotation_about_z(self.angle).T
        return placed

    @property
    def rotation(self) -> Floats:
        """[3,3]: turns directions in table axes into object axes."""
        return rotation_about_z(self.angle)

    def place_direction(self, direction: Floats) -> Floats:
        """[3] direction in table axes -> [3] in object axes."""
        turned: Floats = self.rotation @ direction
        return turned


def middle(mesh: Mesh) -> tuple[float, float]:
    """Table coordinates of the middle of the mesh's bounding box."""
    low, high = np.nanmin(mesh.points, axis=(0, 1)), np.nanmax(mesh.points, axis=(0, 1))
    return float(low[0] + high[0]) / 2, float(low[1] + high[1]) / 2


def radius(mesh: Mesh) -> float:
    """Distance in metres from `middle` to the farthest point, along the table."""
    offset = mesh.points[..., :2] - np.array(middle(mesh))
    return float(np.sqrt(np.nanmax((offset**2).sum(-1))))


def height_map(mesh: Mesh, extent: float) -> Heights:
    """float32 [CELLS,CELLS]: heights seen from above around `middle`, metres, small gaps closed, else 0."""
    centre = np.array([*middle(mesh), 0.0])
    depth = rasterise(mesh, np.eye(3), centre, extent, CELLS).depth
    heights: Heights = np.where(np.isfinite(depth), depth, 0).astype(np.float32)
    return np.asarray(cv2.morphologyEx(heights, cv2.MORPH_CLOSE, np.ones((3, 3), np.uint8)), np.float32)


def _turned(heights: Heights, angle: float) -> Heights:
    """The map turned by ``angle`` radians from x (right) towards y (up) about its middle."""
    middle_cell = ((CELLS - 1) / 2, (CELLS - 1) / 2)
    matrix = cv2.getRotationMatrix2D(middle_cell, np.degrees(angle), 1.0)
    turned = cv2.warpAffine(heights, matrix, (CELLS, CELLS), flags=cv2.INTER_LINEAR)
    return np.asarray(turned, np.float32)


def register(heights: Heights, template: Heights) -> tuple[float, float, float]:
    """The turn and shift that bring a height map onto a template best (largest correlation).

    All turns are tried, coarse to fine; all shifts of whole cells are tried at once by FFT, and the best is
    refined by the parabola through its neighbours.

    Returns:
        Angle in radians, then the shift in cells to the right and upwards, applied after the turn.
    """
    padded = (2 * CELLS, 2 * CELLS)
    spectrum = np.conj(np.fft.rfft2(template, padded))

    def scores(angle: float) -> Floats:
        product = np.fft.rfft2(_turned(heights, angle), padded) * spectrum
        found: Floats = np.fft.irfft2(product, padded)
        return found

    angle = 0.0
    for span, step in ((180.0, 5.0), (4.0, 1.0), (0.75, 0.25)):
        trials = angle + np.radians(np.arange(-span, span + step / 2, step))
        angle = float(trials[int(np.argmax([scores(trial).max() for trial in trials]))])
    score = scores(angle)
    row, column = np.unravel_index(int(score.argmax()), score.shape)
    # the map lies this far right of and below the template: it goes back left and up
    return angle, -_peak(score[row], int(column)), _peak(score[:, column], int(row))


def _peak(line: Floats, at: int) -> float:
    """Position of a periodic line's maximum near ``at``, between cells, in -len/2..len/2."""
    before, here, after = line[at - 1], line[at], line[(at + 1) % len(line)]
    bend = before - 2 * here + after
    place = at + (0.0 if bend == 0 else 0.5 * (before - after) / bend)
    return float(place if place <= len(line) / 2 else place - len(line))


def _moved(heights: Heights, angle: float, right: float, up: float) -> Heights:
    """The map turned about its middle, then shifted by cells."""
    shift = np.array([[1, 0, right], [0, 1, -up]], np.float32)
    moved = cv2.warpAffine(_turned(heights, angle), shift, (CELLS, CELLS), flags=cv2.INTER_LINEAR)
    return np.asarray(moved, np.float32)


def make_template(maps: Sequence[Heights]) -> Heights:
    """The mean height map of scans that are aligned to it, its long axis along x, the heavier end left.

    Starts from the first map and is made anew `ROUNDS` times; at most `TEMPLATE_SCANS` maps, evenly chosen.
    """
    few = [maps[k] for k in np.unique(np.linspace(0, len(maps) - 1, TEMPLATE_SCANS).astype(int))]
    template = _upright(few[0])
    for _ in range(ROUNDS):
        mean = np.mean([_moved(one, *register(one, template)) for one in few], axis=0)
        template = _upright(mean.astype(np.float32))
    return template


def _upright(heights: Heights) -> Heights:
    """The map with its mean place in the middle and its long axis along x, the longer tail to the right."""
    rows, columns = np.indices(heights.shape)
    x, y = columns - (CELLS - 1) / 2, (CELLS - 1) / 2 - rows
    weight = heights / heights.sum()
    x, y = x - (weight * x).sum(), y - (weight * y).sum()
    spread = np.array([[(weight * a * b).sum() for a in (x, y)] for b in (x, y)])
    _, vectors = np.linalg.eigh(spread)
    along = vectors[:, 1]
    tail = (weight * (along[0] * x + along[1] * y) ** 3).sum()
    angle = -float(np.arctan2(along[1], along[0])) + (np.pi if tail < 0 else 0.0)
    turned = _turned(heights, angle)
    weight = turned / turned.sum()
    x, y = columns - (CELLS - 1) / 2, (CELLS - 1) / 2 - rows
    return _moved(turned, 0.0, -float((weight * x).sum()), -float((weight * y).sum()))


def find_pose(mesh: Mesh, extent: float, template: Heights) -> Pose:
    """The pose that brings a scan onto a template of height maps with side ``extent`` (metres)."""
    angle, right, up = register(height_map(mesh, extent), template)
    shift = np.array([right, up, 0.0]) * extent / CELLS
    x, y, _ = np.array([*middle(mesh), 0.0]) - shift @ rotation_about_z(angle)
    return Pose(float(x), float(y), angle)
