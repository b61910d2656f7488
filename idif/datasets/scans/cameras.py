"""Renders the organized clouds of a category from the same views: one pose, one scale, one camera rig."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from idif.datasets.scans.point_cloud import Bools, Floats, close_holes, find_table, keep_object
from idif.datasets.scans.pose import Heights, Pose, find_pose, height_map, make_template, middle, radius
from idif.datasets.scans.rasterizer import (
    SUPERSAMPLING,
    Mesh,
    paint,
    paint_depth,
    paint_mask,
    rasterize,
    tilted_camera,
    triangulate,
)

TILT = np.radians(25.0)
"""Angle between the first camera and those around it, radians."""
FILL = 0.9
"""Share of the picture's side that the objects fill."""
BACKGROUND = 0.0
"""Gray value where there is no surface: scans are rendered on dark cloth, so that gaps look like shadows."""

PictureKind = Literal["rgb", "depth", "normals"]

DEPTH_MARGIN = 0.1
"""Share of the range of depths that stays free at either end, for protruding defects."""
MIN_DEPTH_RANGE = 0.1
"""Smallest range of depths as a share of the picture's side, so that noise of a flat object does not fill all
gray values."""

MESH_CELLS = 300
"""Scans are subsampled by integer strides until a mesh has fewer than twice this many cells a side."""


@dataclass(frozen=True)
class Scan:
    """One scan, ready to be rendered: the visible box of the sensor's grid."""

    mesh: Mesh
    """Visible surface over the box; points in table axes, meters."""
    body: Mesh
    """The object alone, over the same box; determines pose and scale."""
    colors: npt.NDArray[np.float32]
    """[H,W,3]: RGB on the box, 0..255."""
    defect: Bools
    """[H,W]: true on defective grid points."""
    sensor: Floats
    """[3]: unit vector from the object towards the sensor, table axes."""
    normals: npt.NDArray[np.float32] | None = None
    """[H,W,3]: unit normals of the surface on the box, table axes; None where the source has none."""


class NoObjectError(ValueError):
    """There is no table under the object, or nothing on it. The message continues after the file's name."""


def prepare_scan(
    points: Floats,
    colors: npt.NDArray[np.uint8],
    defect: Bools,
    *,
    remove_background: bool,
    normals: Floats | None = None,
) -> Scan:
    """Clean an organized cloud and triangulate it.

    Args:
        points: [H,W,3], camera axes, meters, NaN where nothing was measured.
        colours: uint8 [H,W,3], RGB.
        defect: [H,W].
        remove_background: keep only points above the table.
        normals: [H,W,3], camera axes, unit length.

    Raises:
        NoObjectError: no plane holds a tenth of the points, or nothing rises above it.
    """
    table = find_table(points)
    if table is None:
        raise NoObjectError("expected a table (a plane that holds a tenth of the points), found none")
    object_points = keep_object(points, table)
    measured = np.isfinite(object_points[..., 2])
    if measured.sum() < 100:
        raise NoObjectError(f"expected an object on the table, found {int(measured.sum())} points above it")
    towards = -np.nanmean(object_points, axis=(0, 1))
    sensor = table.axes @ (towards / np.linalg.norm(towards))
    rows, columns = np.nonzero(measured if remove_background else np.isfinite(points[..., 2]))
    box = np.s_[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]

    def to_mesh(cloud: Floats) -> Mesh:
        return triangulate(table.to_table(close_holes(cloud)), max(1, max(cloud.shape) // MESH_CELLS))

    body = to_mesh(object_points[box])
    mesh = body if remove_background else to_mesh(points[box])
    table_normals = None if normals is None else (normals[box] @ table.axes.T).astype(np.float32)
    return Scan(mesh, body, colors[box].astype(np.float32), defect[box], sensor, table_normals)


@dataclass(frozen=True)
class CategoryCameras:
    """The cameras of a category, fitted to training scans: pose, scale and rig that all its scans share."""

    template: Heights | None
    """Height map that scans are aligned to; None where they are not aligned."""
    map_extent: float
    """Side of the template, meters."""
    center: Floats
    """[3]: the point that the cameras are arranged around, object axes, meters."""
    offsets: Floats
    """[V,2]: point in the middle of each camera's picture, meters right of and above the center."""
    extent: float
    """Side of the square that a view shows, meters."""
    size: int
    """Side of a view in pixels."""
    depths: Floats
    """[V,2]: depths, meters from the center towards each camera, that appear darkest and brightest."""
    kinds: tuple[PictureKind, ...] = ("rgb",)
    """Kinds of picture, in order: all pictures of the first kind, then all of the next."""

    @property
    def views(self) -> int:
        """Number of cameras."""
        return len(self.offsets)


def find_scan_pose(scan: Scan, template: Heights | None, map_extent: float) -> Pose:
    """The pose that aligns a scan to the template; without a template it is only centered."""
    if template is None:
        return Pose(*middle(scan.body), 0.0)
    return find_pose(scan.body, map_extent, template)


def place_cameras(sensor: Floats, views: int) -> list[Floats]:
    """Axes [3,3] of each camera: the first looks along the sensor, the others lean `TILT` away from it.

    The second leans towards the object's +x, the others follow evenly, counter-clockwise. The rig is centered
    on the sensor's direction, not the vertical, because a scan has no points on the sides that the sensor did
    not see.

    Args:
        sensor: [3]: unit vector towards the sensor, object axes.
    """
    first = tilted_camera(float(np.arccos(sensor[2])), float(np.arctan2(sensor[1], sensor[0])))
    around = [tilted_camera(float(TILT), 2 * np.pi * k / (views - 1)) @ first for k in range(views - 1)]
    return [first, *around]


def fit_cameras(
    scans: Sequence[Scan], *, size: int, align: bool, views: int, kinds: tuple[PictureKind, ...] = ("rgb",)
) -> CategoryCameras:
    """Fit pose, center, scale and range of depths to some training scans.

    Scale and depths are those of the whole category, so that samples can be compared.
    """
    map_extent = 2.4 * float(np.median([radius(scan.body) for scan in scans]))
    template = make_template([height_map(scan.body, map_extent) for scan in scans]) if align else None
    poses = [find_scan_pose(scan, template, map_extent) for scan in scans]
    clouds = [
        pose.place(scan.body.points[np.isfinite(scan.body.points[..., 2])])
        for pose, scan in zip(poses, scans, strict=True)
    ]
    center = np.median([_bounds(cloud).mean(0) for cloud in clouds], axis=0)
    bounds = np.empty((len(scans), views, 2, 3))
    for nth, (scan, pose, cloud) in enumerate(zip(scans, poses, clouds, strict=True)):
        for view, camera in enumerate(place_cameras(pose.rotate_direction(scan.sensor), views)):
            bounds[nth, view] = _bounds((cloud - center) @ camera.T)
    # one scan in fifty may touch the picture's edge, so that an outlier does not make all others small
    low, high = np.percentile(bounds[:, :, 0], 2, axis=0), np.percentile(bounds[:, :, 1], 98, axis=0)
    extent = float((high - low)[:, :2].max()) / FILL
    nearest, farthest = high[:, 2], low[:, 2]
    reach = np.maximum((0.5 + DEPTH_MARGIN) * (nearest - farthest), MIN_DEPTH_RANGE / 2 * extent)
    mid_depth = (nearest + farthest) / 2
    return CategoryCameras(
        template,
        map_extent,
        center,
        offsets=((low + high) / 2)[:, :2],
        extent=extent,
        size=size,
        depths=np.stack([mid_depth - reach, mid_depth + reach], axis=1),
        kinds=kinds,
    )


def _bounds(points: Floats) -> Floats:
    """[N,k] -> [2,k]: lowest and highest coordinates, without a few outliers."""
    bounds: Floats = np.percentile(points, [0.5, 99.5], axis=0)
    return bounds


def render_views(scan: Scan, cameras: CategoryCameras) -> list[tuple[npt.NDArray[np.uint8], Bools]]:
    """Render the views of a scan, by kind, then by camera.

    Returns:
        Pictures uint8 [size,size,3], each with its defect mask [size,size].
    """
    pose = find_scan_pose(scan, cameras.template, cameras.map_extent)
    mesh = Mesh(pose.place(scan.mesh.points), scan.mesh.triangles)
    pictures: dict[PictureKind, list[tuple[npt.NDArray[np.uint8], Bools]]] = {
        kind: [] for kind in cameras.kinds
    }
    rotations = place_cameras(pose.rotate_direction(scan.sensor), cameras.views)
    for camera, offset, (low, high) in zip(rotations, cameras.offsets, cameras.depths, strict=True):
        # a point in the plane of the picture through the center, so that depths count from the center
        center = cameras.center + offset @ camera[:2]
        fragments = rasterize(mesh, camera, center, cameras.extent, cameras.size * SUPERSAMPLING)
        mask = paint_mask(fragments, scan.defect)
        for kind, rendered in pictures.items():
            if kind == "rgb":
                rendered.append((paint(fragments, scan.colors, BACKGROUND), mask))
            elif kind == "depth":
                rendered.append((paint_depth(fragments, low, high), mask))
            else:
                assert scan.normals is not None
                # normals in this camera's axes: right, up, towards it -> red, green, blue
                to_camera = camera @ pose.rotation
                colors = 127.5 * (scan.normals @ to_camera.T.astype(np.float32) + 1)
                rendered.append((paint(fragments, colors, BACKGROUND), mask))
    return [picture for rendered in pictures.values() for picture in rendered]
