"""The five cameras of the rig, and the pose of a sample under them."""

from dataclasses import dataclass

import numpy as np

from idif.datasets.synthetic.sdf import Points


@dataclass(frozen=True)
class Camera:
    """One camera, looking at the part's axis; angles in degrees, the rest in units of the part's radius."""

    number: int
    azimuth: float
    """Counter-clockwise from +x, seen from above. C1 looks straight down with +y at the top of its image."""
    elevation: float
    distance: float
    roll: float
    offset: tuple[float, float]
    """Framing error to the right and upwards."""
    exposure: float
    warmth: float
    """Red gained and blue lost, as a fraction."""


RIG = (
    Camera(1, 0.0, 90.0, 5.15, 0.4, (0.015, -0.010), 1.00, 0.000),
    Camera(2, 0.0, 40.0, 5.00, -0.5, (-0.020, 0.010), 1.03, 0.012),
    Camera(3, 90.0, 38.5, 5.05, 0.3, (0.010, 0.018), 0.97, -0.010),
    Camera(4, 180.0, 41.0, 4.95, 0.6, (0.022, -0.012), 1.05, 0.006),
    Camera(5, 270.0, 39.5, 5.08, -0.3, (-0.012, -0.016), 0.95, -0.014),
)
"""C1 from above, C2 to C5 around the part."""

FIELD_OF_VIEW = 30.0
"""Vertical and horizontal, degrees."""


@dataclass(frozen=True)
class TablePose:
    """Pose of a sample on the table: turned by ``degrees`` about z, then moved by ``shift``."""

    degrees: float
    shift: tuple[float, float]

    def to_world(self, v: Points) -> Points:
        """Directions [3, N] from the part's frame to the rig's."""
        c, s = float(np.cos(np.radians(self.degrees))), float(np.sin(np.radians(self.degrees)))
        return np.stack([c * v[0] - s * v[1], s * v[0] + c * v[1], v[2]])

    def to_part(self, v: Points) -> Points:
        """Directions [3, N] from the rig's frame to the part's."""
        return TablePose(-self.degrees, (0.0, 0.0)).to_world(v)


@dataclass(frozen=True)
class PlacedCamera:
    """A camera placed for one sample, in the part's frame: position and unit axes, each float32 [3, 1]."""

    position: Points
    forward: Points
    right: Points
    up: Points


def place_camera(camera: Camera, pose: TablePose, radius: float, height: float) -> PlacedCamera:
    """The camera in the frame of a part with this radius, height and pose."""
    a, e, r = (float(np.radians(x)) for x in (camera.azimuth, camera.elevation, camera.roll))
    forward = -np.array([np.cos(a) * np.cos(e), np.sin(a) * np.cos(e), np.sin(e)])
    # For a camera straight above, elevation does not define "up": +y, as on a map.
    up = np.array([0.0, 1.0, 0.0]) if camera.elevation >= 89.999 else np.array([0.0, 0.0, 1.0])
    right = np.cross(forward, up)
    right /= np.linalg.norm(right)
    up = np.cross(right, forward)
    right, up = np.cos(r) * right + np.sin(r) * up, np.cos(r) * up - np.sin(r) * right
    target = np.array([0.0, 0.0, 0.42 * height]) - radius * (camera.offset[0] * right + camera.offset[1] * up)
    position = target - camera.distance * radius * forward
    shift = np.array([*pose.shift, 0.0])

    def in_part(vector: np.ndarray) -> Points:
        return pose.to_part(vector.astype(np.float32)[:, None]).astype(np.float32)

    return PlacedCamera(in_part(position - shift), in_part(forward), in_part(right), in_part(up))
