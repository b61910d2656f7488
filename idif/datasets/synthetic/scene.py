"""One sample under the rig: what each camera's pixels show, and the noise-free pictures."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import minimum_filter

from idif.datasets.synthetic.camera_rig import FIELD_OF_VIEW, Camera, place
from idif.datasets.synthetic.part_model import TABLE
from idif.datasets.synthetic.ray_tracer import Raster, trace
from idif.datasets.synthetic.sdf import Points, Values, unit
from idif.datasets.synthetic.shading import Scene, Surface, developed

Pixels = NDArray[np.int32]

_QUARTERS = ((0.375, 0.125), (0.875, 0.375), (0.125, 0.625), (0.625, 0.875))
"""Where the four rays of a pixel that shows an edge pass: a turned square smooths level and upright edges
best."""
_CHUNK = 1 << 15
"""Points worked on at once: few enough for the processor's cache, enough to hide the cost of a call."""


def _chunks(count: int) -> Iterator[slice]:
    return (slice(low, min(low + _CHUNK, count)) for low in range(0, count, _CHUNK))


@dataclass(frozen=True)
class PlacedCameras:
    """The rig's cameras placed for one sample, in the part's frame; every array float32 [3, V]."""

    position: Points
    forward: Points
    right: Points
    up: Points
    gain: Points
    """Per colour channel."""
    size: int
    """Pixels S along an image's side, numbered 0 .. V*S*S-1: camera by camera, row by row from the top."""

    @property
    def pixel_width(self) -> float:
        """Width of a pixel at unit depth."""
        return _pixel_width(self.size)

    def rays(self, pixels: Pixels, right: float = 0.5, down: float = 0.5) -> tuple[Points, Points]:
        """Origins and directions of unit depth, [3, n] each, through a place in each of the pixels [n]."""
        view, at = np.divmod(pixels, np.int32(self.size**2))
        row, column = np.divmod(at, np.int32(self.size))
        k = np.float32(np.tan(np.radians(FIELD_OF_VIEW / 2)))
        u = ((column + np.float32(right)) * np.float32(2 / self.size) - 1).astype(np.float32) * k
        v = (1 - (row + np.float32(down)) * np.float32(2 / self.size)).astype(np.float32) * k
        directions = self.forward.take(view, axis=1)
        directions += u * self.right.take(view, axis=1)
        directions += v * self.up.take(view, axis=1)
        return self.position.take(view, axis=1), directions


@dataclass(frozen=True)
class RayHits:
    """What the rig sees of a scene; N = V * S * S pixels."""

    scene: Scene
    eyes: PlacedCameras
    start: Values
    """Depth [N] from which rays through a pixel may be traced: before the part, infinite where it is not."""
    depth: Values
    """Depth at the pixel's middle, [N]."""
    component: NDArray[np.int16]
    """[N], `TABLE` for the mat."""
    mark: NDArray[np.int16]
    """[N], number of the mark that shows there, 0 for none."""

    def points(self, pixels: Pixels) -> Points:
        """Surface points [3, n] at the middles of pixels [n], in the part's frame."""
        origins, rays = self.eyes.rays(pixels)
        return origins + rays * self.depth[pixels]

    def pictures(self, pixels: Pixels) -> Points:
        """Noise-free RGB [3, n] in 0..1 of these pixels [n], edges smoothed."""
        edge = self._edges()[pixels]
        light = np.empty((3, len(pixels)), np.float32)
        plain, mixed = pixels[~edge], pixels[edge]
        light[:, ~edge] = self._light(*self.eyes.rays(plain), self.depth[plain], self.component[plain])
        if len(mixed):
            placed = [self.eyes.rays(mixed, *at) for at in _QUARTERS]
            origins, rays = (np.concatenate(part, axis=1) for part in zip(*placed, strict=True))
            depth, component = _surface(
                self.scene, origins, rays, np.tile(self.start[mixed], 4), self.eyes.size
            )
            four = np.minimum(self._light(origins, rays, depth, component), 2.0)
            light[:, edge] = four.reshape(3, 4, -1).mean(1)
        view = pixels // np.int32(self.eyes.size**2)
        return developed(light, self.eyes.gain.take(view, axis=1))

    def _light(self, origins: Points, rays: Points, depth: Values, component: NDArray[np.int16]) -> Points:
        p = origins + rays * depth
        toward_eye = -unit(rays)
        result = np.empty_like(p)
        for c in _chunks(len(depth)):
            result[:, c] = self.scene.shade(Surface(p[:, c], toward_eye[:, c], component[c]))
        return result

    def _edges(self) -> NDArray[np.bool_]:
        """Pixels [N] beside which, in either direction, another surface begins."""
        shape = (-1, self.eyes.size, self.eyes.size)
        depth, kind = self.depth.reshape(shape), (self.component * 16 + self.mark).reshape(shape)
        slope = 2.5 * _pixel_width(self.eyes.size)
        result = np.zeros(depth.shape, bool)
        for here, there in ((np.s_[:, :-1], np.s_[:, 1:]), (np.s_[:, :, :-1], np.s_[:, :, 1:])):
            jump = np.abs(depth[here] - depth[there]) > slope * depth[here]
            change = jump | (kind[here] != kind[there])
            result[here] |= change
            result[there] |= change
        return result.ravel()


def _pixel_width(size: int) -> float:
    """Width of a pixel at unit depth."""
    return float(2 * np.tan(np.radians(FIELD_OF_VIEW / 2)) / size)


def _surface(
    scene: Scene, origins: Points, rays: Points, start: Values, size: int
) -> tuple[Values, NDArray[np.int16]]:
    """Depth and component [N] that rays [3, N], through pixels of an image of this size, meet first."""
    least = min(0.01, 2.0 * _pixel_width(size))  # about half a pixel at the part
    depth = np.empty(len(start), np.float32)
    component = np.full(len(depth), TABLE, np.int16)
    for c in _chunks(len(depth)):
        depth[c], hit = trace(scene.part, origins[:, c], rays[:, c], start[c], least)
        on_part = np.flatnonzero(hit) + c.start
        component[on_part] = scene.part.component_at(origins[:, on_part] + rays[:, on_part] * depth[on_part])
    return depth, component


def look(scene: Scene, raster: Raster, rig: Sequence[Camera]) -> RayHits:
    """What the cameras of ``rig`` see of the scene."""
    placed = [place(camera, scene.pose, scene.part.radius, scene.part.height) for camera in rig]
    eyes = PlacedCameras(
        position=np.concatenate([eye.position for eye in placed], axis=1),
        forward=np.concatenate([eye.forward for eye in placed], axis=1),
        right=np.concatenate([eye.right for eye in placed], axis=1),
        up=np.concatenate([eye.up for eye in placed], axis=1),
        gain=np.array([[c.exposure * (1 + k * c.warmth) for c in rig] for k in (1, 0, -1)], np.float32),
        size=raster.size,
    )
    # The least of the neighbours' depths: a ray beside the pixel's middle may meet the proxy a little
    # earlier.
    depths = raster.depths(scene.volume.proxy(), placed)
    start = minimum_filter(depths, (1, 3, 3)).ravel()
    start *= np.float32(1 - _pixel_width(raster.size))
    pixels = np.arange(len(start), dtype=np.int32)
    origins, rays = eyes.rays(pixels)
    depth, component = _surface(scene, origins, rays, start, raster.size)
    mark = np.zeros(len(pixels), np.int16)
    if scene.part.marks:
        on_part = np.flatnonzero(component != TABLE)
        mark[on_part] = scene.marked(origins[:, on_part] + rays[:, on_part] * depth[on_part])
    return RayHits(scene, eyes, start, depth, component, mark)
