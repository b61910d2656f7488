"""One sample under the camera rig: the surface behind each pixel, and the noise-free colors."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import minimum_filter

from idif.datasets.synthetic.camera_rig import FIELD_OF_VIEW, Camera, place_camera
from idif.datasets.synthetic.part_model import TABLE
from idif.datasets.synthetic.ray_tracer import DepthRenderer, trace_rays
from idif.datasets.synthetic.sdf import Points, Values, unit
from idif.datasets.synthetic.shading import Scene, Surface, camera_response

Pixels = NDArray[np.int32]

_QUARTERS = ((0.375, 0.125), (0.875, 0.375), (0.125, 0.625), (0.625, 0.875))
"""Positions within a pixel of the four rays that smooth an edge: a rotated square suits horizontal and
vertical edges best."""
_CHUNK = 1 << 15
"""Points processed at once: few enough for the processor's cache, enough to amortize the cost of a call."""


def _chunks(count: int) -> Iterator[slice]:
    return (slice(low, min(low + _CHUNK, count)) for low in range(0, count, _CHUNK))


@dataclass(frozen=True)
class PlacedCameras:
    """The rig's cameras, placed for one sample in the part's frame; every array float32 [3, V]."""

    position: Points
    forward: Points
    right: Points
    up: Points
    gain: Points
    """Per color channel."""
    size: int
    """Pixels S along an image's side, numbered 0 .. V*S*S-1: by camera, then by row from the top."""

    @property
    def pixel_width(self) -> float:
        """Width of a pixel at unit depth."""
        return _pixel_width(self.size)

    def rays(self, pixels: Pixels, right: float = 0.5, down: float = 0.5) -> tuple[Points, Points]:
        """Origins and directions of unit depth, [3, n] each, through one position in each pixel [n]."""
        view, pixel = np.divmod(pixels, np.int32(self.size**2))
        row, column = np.divmod(pixel, np.int32(self.size))
        k = np.float32(np.tan(np.radians(FIELD_OF_VIEW / 2)))
        u = ((column + np.float32(right)) * np.float32(2 / self.size) - 1).astype(np.float32) * k
        v = (1 - (row + np.float32(down)) * np.float32(2 / self.size)).astype(np.float32) * k
        directions = self.forward.take(view, axis=1)
        directions += u * self.right.take(view, axis=1)
        directions += v * self.up.take(view, axis=1)
        return self.position.take(view, axis=1), directions


@dataclass(frozen=True)
class RayHits:
    """The surfaces that the rig sees; N = V * S * S pixels."""

    scene: Scene
    cameras: PlacedCameras
    start: Values
    """Depth [N] where the tracing of a pixel's rays starts: before the part, infinite where they miss it."""
    depth: Values
    """Depth at the pixel's center, [N]."""
    component: NDArray[np.int16]
    """[N], `TABLE` for the mat."""
    mark: NDArray[np.int16]
    """[N], number of the visible mark, 0 for none."""

    def points(self, pixels: Pixels) -> Points:
        """Surface points [3, n] at the centers of pixels [n], in the part's frame."""
        origins, rays = self.cameras.rays(pixels)
        return origins + rays * self.depth[pixels]

    def colors_at(self, pixels: Pixels) -> Points:
        """Noise-free RGB [3, n] in 0..1 of pixels [n], with smoothed edges."""
        edge = self._edges()[pixels]
        light = np.empty((3, len(pixels)), np.float32)
        plain, mixed = pixels[~edge], pixels[edge]
        light[:, ~edge] = self._light(*self.cameras.rays(plain), self.depth[plain], self.component[plain])
        if len(mixed):
            placed = [self.cameras.rays(mixed, *position) for position in _QUARTERS]
            origins, rays = (np.concatenate(part, axis=1) for part in zip(*placed, strict=True))
            depth, component = _surface(
                self.scene, origins, rays, np.tile(self.start[mixed], 4), self.cameras.size
            )
            four = np.minimum(self._light(origins, rays, depth, component), 2.0)
            light[:, edge] = four.reshape(3, 4, -1).mean(1)
        view = pixels // np.int32(self.cameras.size**2)
        return camera_response(light, self.cameras.gain.take(view, axis=1))

    def _light(self, origins: Points, rays: Points, depth: Values, component: NDArray[np.int16]) -> Points:
        p = origins + rays * depth
        toward_eye = -unit(rays)
        result = np.empty_like(p)
        for c in _chunks(len(depth)):
            result[:, c] = self.scene.shade(Surface(p[:, c], toward_eye[:, c], component[c]))
        return result

    def _edges(self) -> NDArray[np.bool_]:
        """Whether each pixel [N] has a neighbor that shows another surface."""
        shape = (-1, self.cameras.size, self.cameras.size)
        depth, kind = self.depth.reshape(shape), (self.component * 16 + self.mark).reshape(shape)
        slope = 2.5 * _pixel_width(self.cameras.size)
        result = np.zeros(depth.shape, bool)
        for first, second in ((np.s_[:, :-1], np.s_[:, 1:]), (np.s_[:, :, :-1], np.s_[:, :, 1:])):
            jump = np.abs(depth[first] - depth[second]) > slope * depth[first]
            change = jump | (kind[first] != kind[second])
            result[first] |= change
            result[second] |= change
        return result.ravel()


def _pixel_width(size: int) -> float:
    """Width of a pixel at unit depth."""
    return float(2 * np.tan(np.radians(FIELD_OF_VIEW / 2)) / size)


def _surface(
    scene: Scene, origins: Points, rays: Points, start: Values, size: int
) -> tuple[Values, NDArray[np.int16]]:
    """Depth and component [N] of the first surface that rays [3, N] meet; ``size`` is that of the image."""
    least = min(0.01, 2.0 * _pixel_width(size))  # about half a pixel at the part
    depth = np.empty(len(start), np.float32)
    component = np.full(len(depth), TABLE, np.int16)
    for c in _chunks(len(depth)):
        depth[c], hit = trace_rays(scene.part, origins[:, c], rays[:, c], start[c], least)
        on_part = np.flatnonzero(hit) + c.start
        component[on_part] = scene.part.component_at(origins[:, on_part] + rays[:, on_part] * depth[on_part])
    return depth, component


def trace_views(scene: Scene, depth_renderer: DepthRenderer, rig: Sequence[Camera]) -> RayHits:
    """Trace a ray through the center of each pixel of each camera of ``rig``."""
    placed = [place_camera(camera, scene.pose, scene.part.radius, scene.part.height) for camera in rig]
    cameras = PlacedCameras(
        position=np.concatenate([camera.position for camera in placed], axis=1),
        forward=np.concatenate([camera.forward for camera in placed], axis=1),
        right=np.concatenate([camera.right for camera in placed], axis=1),
        up=np.concatenate([camera.up for camera in placed], axis=1),
        gain=np.array([[c.exposure * (1 + k * c.warmth) for c in rig] for k in (1, 0, -1)], np.float32),
        size=depth_renderer.size,
    )
    # The minimum over neighboring pixels: a ray beside the center may meet the proxy a little earlier.
    depths = depth_renderer.depths(scene.volume.proxy(), placed)
    start = minimum_filter(depths, (1, 3, 3)).ravel()
    start *= np.float32(1 - _pixel_width(depth_renderer.size))
    pixels = np.arange(len(start), dtype=np.int32)
    origins, rays = cameras.rays(pixels)
    depth, component = _surface(scene, origins, rays, start, depth_renderer.size)
    mark = np.zeros(len(pixels), np.int16)
    if scene.part.marks:
        on_part = np.flatnonzero(component != TABLE)
        mark[on_part] = scene.marked(origins[:, on_part] + rays[:, on_part] * depth[on_part])
    return RayHits(scene, cameras, start, depth, component, mark)
