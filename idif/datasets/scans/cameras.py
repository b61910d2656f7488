"""From organised clouds of one kind of object to the same views of each: one pose, one scale, one rig."""

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
    rasterise,
    triangulate,
    turned_towards,
)

TILT = np.radians(25.0)
"""How far the cameras around the first one lean away from it."""
FILL = 0.9
"""Share of the picture's side that the objects take."""
BACKGROUND = 0.0
"""Grey value where nothing is seen: scans are taken on dark cloth, so that gaps look like its shadows."""

Kind = Literal["rgb", "depth", "normals"]

DEPTH_MARGIN = 0.1
"""Share of the range of depths that is kept free at either end, for defects that stick out."""
LEAST_RANGE = 0.1
"""Least range of depths as a share of the picture's side, lest a flat object's noise fill all grey values."""

MESH_CELLS = 300
"""Scans are thinned by whole strides until a mesh has fewer than twice this many cells a side."""


@dataclass(frozen=True)
class Scan:
    """One scan, ready to be posed: the box of the sensor's grid that is to be seen."""

    mesh: Mesh
    """What is to be seen, over the box; points in table axes, metres."""
    body: Mesh
    """The object alone, over the same box, from which pose and scale are told."""
    colours: npt.NDArray[np.float32]
    """[H,W,3]: RGB on the box, 0..255."""
    defect: Bools
    """[H,W]: true on defective grid points."""
    sensor: Floats
    """[3]: unit vector from the object towards the sensor, table axes."""
    normals: npt.NDArray[np.float32] | None = None
    """[H,W,3]: unit normals of the surface on the box, table axes; None where the source has none."""


class NoObject(ValueError):
    """No table under the object, or nothing on it. The message goes on after the file's name."""


def prepare(
    points: Floats,
    colours: npt.NDArray[np.uint8],
    defect: Bools,
    *,
    remove_background: bool,
    normals: Floats | None = None,
) -> Scan:
    """Clean an organised cloud and make it a mesh.

    Args:
        points: [H,W,3], camera axes, metres, NaN where nothing was measured.
        colours: uint8 [H,W,3], RGB.
        defect: [H,W].
        remove_background: keep only what rises above the table.
        normals: [H,W,3], camera axes, unit length.

    Raises:
        NoObject: no plane holds a tenth of the points, or nothing rises above it.
    """
    table = find_table(points)
    if table is None:
        raise NoObject("expected a table (a plane that holds a tenth of the points), found none")
    cut = keep_object(points, table)
    known = np.isfinite(cut[..., 2])
    if known.sum() < 100:
        raise NoObject(f"expected an object on the table, found {int(known.sum())} points above it")
    towards = -np.nanmean(cut, axis=(0, 1))
    sensor = table.axes @ (towards / np.linalg.norm(towards))
    rows, columns = np.nonzero(known if remove_background else np.isfinite(points[..., 2]))
    box = np.s_[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]

    def join(cloud: Floats) -> Mesh:
        return triangulate(table.to_table(close_holes(cloud)), max(1, max(cloud.shape) // MESH_CELLS))

    body = join(cut[box])
    mesh = body if remove_background else join(points[box])
    turned = None if normals is None else (normals[box] @ table.axes.T).astype(np.float32)
    return Scan(mesh, body, colours[box].astype(np.float32), defect[box], sensor, turned)


@dataclass(frozen=True)
class CategoryCameras:
    """What all scans of a category share, learnt from training scans: pose, scale and the rig of cameras."""

    template: Heights | None
    """Height map that scans are aligned to; None leaves them turned as they lie."""
    map_extent: float
    """Side of the template, metres."""
    centre: Floats
    """[3]: the point that the cameras turn about, object axes, metres."""
    offsets: Floats
    """[V,2]: what lies in the middle of each camera's picture, metres right of and above the centre."""
    extent: float
    """Side of the square that a view shows, metres."""
    size: int
    """Side of a view in pixels."""
    depths: Floats
    """[V,2]: depths, metres towards each camera from the centre, that are painted darkest and brightest."""
    kinds: tuple[Kind, ...] = ("rgb",)
    """What every camera takes, in order: all pictures of the first kind, then all of the next."""

    @property
    def views(self) -> int:
        """How many cameras there are."""
        return len(self.offsets)


def pose_of(scan: Scan, template: Heights | None, map_extent: float) -> Pose:
    """How to bring a scan to the common pose; without a template it is only moved to the middle."""
    if template is None:
        return Pose(*middle(scan.body), 0.0)
    return find_pose(scan.body, map_extent, template)


def rig(sensor: Floats, views: int) -> list[Floats]:
    """The cameras: the first looks along the sensor, the others lean `TILT` away from it, evenly around.

    The second leans towards the object's +x, then counter-clockwise. The rig stands about the sensor's
    direction, not the vertical, because a scan has no points on the sides that the sensor did not see.

    Args:
        sensor: [3]: unit vector towards the sensor, object axes.
    """
    first = turned_towards(float(np.arccos(sensor[2])), float(np.arctan2(sensor[1], sensor[0])))
    around = [turned_towards(float(TILT), 2 * np.pi * k / (views - 1)) @ first for k in range(views - 1)]
    return [first, *around]


def open_studio(
    scans: Sequence[Scan], *, size: int, align: bool, views: int, kinds: tuple[Kind, ...] = ("rgb",)
) -> CategoryCameras:
    """Learn pose, centre, scale and range of depths from some training scans.

    Scale and depths are those of the whole category, so that samples can be compared.
    """
    map_extent = 2.4 * float(np.median([radius(scan.body) for scan in scans]))
    template = make_template([height_map(scan.body, map_extent) for scan in scans]) if align else None
    poses = [pose_of(scan, template, map_extent) for scan in scans]
    clouds = [
        pose.place(scan.body.points[np.isfinite(scan.body.points[..., 2])])
        for pose, scan in zip(poses, scans, strict=True)
    ]
    centre = np.median([_bounds(cloud).mean(0) for cloud in clouds], axis=0)
    bounds = np.empty((len(scans), views, 2, 3))
    for nth, (scan, pose, cloud) in enumerate(zip(scans, poses, clouds, strict=True)):
        for view, camera in enumerate(rig(pose.place_direction(scan.sensor), views)):
            bounds[nth, view] = _bounds((cloud - centre) @ camera.T)
    # a scan in fifty may touch the picture's edge, lest an odd one makes all others small
    low, high = np.percentile(bounds[:, :, 0], 2, axis=0), np.percentile(bounds[:, :, 1], 98, axis=0)
    extent = float((high - low)[:, :2].max()) / FILL
    nearest, farthest = high[:, 2], low[:, 2]
    reach = np.maximum((0.5 + DEPTH_MARGIN) * (nearest - farthest), LEAST_RANGE / 2 * extent)
    between = (nearest + farthest) / 2
    return CategoryCameras(
        template,
        map_extent,
        centre,
        offsets=((low + high) / 2)[:, :2],
        extent=extent,
        size=size,
        depths=np.stack([between - reach, between + reach], axis=1),
        kinds=kinds,
    )


def _bounds(points: Floats) -> Floats:
    """[N,k] -> [2,k]: lowest and highest coordinates, a few stray points aside."""
    bounds: Floats = np.percentile(points, [0.5, 99.5], axis=0)
    return bounds


def photograph(scan: Scan, studio: CategoryCameras) -> list[tuple[npt.NDArray[np.uint8], Bools]]:
    """The views of a scan, kind by kind, each in the rig's order: uint8 [size,size,3] and its defect mask
    [size,size]."""
    pose = pose_of(scan, studio.template, studio.map_extent)
    mesh = Mesh(pose.place(scan.mesh.points), scan.mesh.triangles)
    pictures: dict[Kind, list[tuple[npt.NDArray[np.uint8], Bools]]] = {kind: [] for kind in studio.kinds}
    cameras = rig(pose.place_direction(scan.sensor), studio.views)
    for camera, offset, (low, high) in zip(cameras, studio.offsets, studio.depths, strict=True):
        # a point of the picture's middle plane: depths count from the centre's own
        centre = studio.centre + offset @ camera[:2]
        fragments = rasterise(mesh, camera, centre, studio.extent, studio.size * SUPERSAMPLING)
        mask = paint_mask(fragments, scan.defect)
        for kind, taken in pictures.items():
            if kind == "rgb":
                taken.append((paint(fragments, scan.colours, BACKGROUND), mask))
            elif kind == "depth":
                taken.append((paint_depth(fragments, low, high), mask))
            else:
                assert scan.normals is not None
                # the surface's directions as this camera sees them: right, up, towards it -> red, green, blue
                to_camera = camera @ pose.rotation
                colours = 127.5 * (scan.normals @ to_camera.T.astype(np.float32) + 1)
                taken.append((paint(fragments, colours, BACKGROUND), mask))
    return [picture for taken in pictures.values() for picture in taken]
