"""One photograph: what each pixel shows, the noise-free picture, and where two versions of a part differ visibly."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from idif.datasets.synthetic.fields import Points, Values, unit
from idif.datasets.synthetic.model import TABLE, Part
from idif.datasets.synthetic.raster import Raster, onto_surface
from idif.datasets.synthetic.rig import FIELD_OF_VIEW, Camera, Eye
from idif.datasets.synthetic.shading import Scene, Surface, developed

Pixels = NDArray[np.int64]


@dataclass(frozen=True)
class Sight:
    """What one camera sees of a scene, pixel by pixel (N = size * size, row by row from the top)."""

    scene: Scene
    camera: Camera
    eye: Eye
    size: int
    fine: NDArray[np.float32]
    """Depth of the four rays in each pixel, [4, N]; infinite on the table."""
    depth: Values
    """Depth at the pixel's middle, [N]."""
    component: NDArray[np.int16]
    """[N], `TABLE` for the mat."""
    mark: NDArray[np.int16]
    """[N], number of the mark that shows there, 0 for none."""

    def middle(self, pixels: Pixels) -> Points:
        """Ray directions [3, n] through the middles of pixels [n]."""
        return _rays(self.eye, self.size, pixels, 0.5, 0.5)

    def picture(self, pixels: Pixels) -> Points:
        """Noise-free RGB [3, n] in 0..1 of these pixels [n], edges smoothed."""
        rough = self._needs_four()[pixels]
        light = np.empty((3, len(pixels)), np.float32)
        plain, edge = pixels[~rough], pixels[rough]
        light[:, ~rough] = self._light(self.middle(plain), self.depth[plain], self.component[plain])
        if len(edge):
            rays, depths = [], []
            for number, (dx, dy) in enumerate(_QUARTERS):
                rays.append(_rays(self.eye, self.size, edge, dx, dy))
                depths.append(self.fine[number, edge])
            ray, depth = np.concatenate(rays, axis=1), np.concatenate(depths)
            depth, component = _hits(self.scene.part, self.eye, ray, depth)
            four = np.minimum(self._light(ray, depth, component), 2.0).reshape(3, 4, len(edge))
            light[:, rough] = four.mean(1)
        return developed(light, self.camera.exposure, self.camera.warmth)

    def _light(self, rays: Points, depth: Values, component: NDArray[np.int16]) -> Points:
        p = self.eye.position + rays * depth
        return self.scene.shade(Surface(p, -unit(rays), component))

    def _needs_four(self) -> NDArray[np.bool_]:
        """Pixels [N] that show more than one surface."""
        known = np.isfinite(self.fine)
        many = known.any(0) & ~known.all(0)
        filled = np.where(known, self.fine, 0.0)
        many |= known.all(0) & (filled.max(0) - filled.min(0) > 3.0 * _footprint(self.depth, self.size))
        kind = (self.component * 16 + self.mark).reshape(self.size, self.size)
        border = np.zeros(kind.shape, bool)
        for axis in (0, 1):
            change = np.diff(kind, axis=axis) != 0
            before, after = (slice(None), slice(None, -1)), (slice(None), slice(1, None))
            if axis == 0:
                before, after = before[::-1], after[::-1]
            border[before] |= change
            border[after] |= change
        return many | border.ravel()


_QUARTERS = ((0.25, 0.25), (0.75, 0.25), (0.25, 0.75), (0.75, 0.75))
"""Where a pixel's four rays pass, right and down; the order of `Sight.fine`."""


def _footprint(depth: Values, size: int) -> Values:
    """Width [N] of a pixel at that depth."""
    result: Values = depth * np.float32(2 * np.tan(np.radians(FIELD_OF_VIEW / 2)) / size)
    return result


def _rays(eye: Eye, size: int, pixels: Pixels, dx: float, dy: float) -> Points:
    u = ((pixels % size) + np.float32(dx)).astype(np.float32) * np.float32(2 / size) - 1
    v = 1 - ((pixels // size) + np.float32(dy)).astype(np.float32) * np.float32(2 / size)
    return eye.rays(u, v)


def _hits(part: Part, eye: Eye, rays: Points, depth: Values) -> tuple[Values, NDArray[np.int16]]:
    """Exact depth and component [N] of rays whose depth on the mesh is known."""
    part_hit = np.flatnonzero(np.isfinite(depth))
    component = np.full(len(depth), TABLE, np.int16)
    exact = -eye.position[2] / rays[2]
    on_part = onto_surface(part, eye, rays[:, part_hit], depth[part_hit])
    p = eye.position + rays[:, part_hit] * on_part
    component[part_hit] = part.component_at(p)
    exact[part_hit] = on_part
    return exact, component


def look(scene: Scene, raster: Raster, camera: Camera, eye: Eye, size: int) -> Sight:
    """What ``camera``, placed at ``eye``, sees of the scene whose mesh the raster (of 2 * size rays) holds."""
    depth = raster.depth(eye)
    fine = np.ascontiguousarray(depth.reshape(size, 2, size, 2).transpose(1, 3, 0, 2).reshape(4, -1))
    known = np.isfinite(fine)
    count = known.sum(0)
    mean = np.where(known, fine, 0).sum(0) / np.maximum(count, 1)
    middle = np.where(count >= 2, mean, np.inf).astype(np.float32)
    pixels = np.arange(size * size)
    rays = _rays(eye, size, pixels, 0.5, 0.5)
    exact, component = _hits(scene.part, eye, rays, middle)
    mark = np.zeros(len(pixels), np.int16)
    if scene.part.marks:
        on_part = np.flatnonzero(component != TABLE)
        mark[on_part] = scene.marked(eye.position + rays[:, on_part] * exact[on_part])
    return Sight(scene, camera, eye, size, fine, exact, component, mark)
