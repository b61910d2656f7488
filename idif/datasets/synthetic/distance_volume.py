"""A part's distance field sampled on a coarse grid, for its proxy mesh and for fast soft shadows."""

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from idif.datasets.synthetic.part_model import Part
from idif.datasets.synthetic.sdf import Points, Values

if TYPE_CHECKING:
    import pyvista as pv

CELL = 0.045
"""Edge of a grid cell; thinner features may be lost."""
_MARGIN = 0.30
_SKIN = 0.75 * CELL
"""Distance of the proxy mesh from the part: more than the error of linear interpolation between cells."""


class DistanceVolume:
    """Distances to one part at the corners of a grid around it."""

    def __init__(self, part: Part) -> None:
        half = part.radius + _MARGIN
        self._low = np.array([-half, -half, -1.5 * CELL], np.float32)[:, None]
        high = np.array([half, half, part.height + _MARGIN])
        count = [int(n) for n in np.ceil((high - self._low[:, 0]) / CELL) + 1]
        axes = [self._low[i, 0] + CELL * np.arange(n, dtype=np.float32) for i, n in enumerate(count)]
        z, y, x = np.meshgrid(*reversed(axes), indexing="ij")
        self._values = part.distance(np.stack([x.ravel(), y.ravel(), z.ravel()]).astype(np.float32))
        self._count = count
        self._last = np.array(count, np.float32)[:, None] - 1.001

    def proxy(self) -> "pv.PolyData":
        """Triangles that enclose the part closely; triangles inside the part's solid may be missing."""
        import pyvista as pv

        grid = pv.ImageData(dimensions=tuple(self._count), spacing=(CELL,) * 3, origin=tuple(self._low[:, 0]))
        grid["distance"] = self._values
        result: pv.PolyData = grid.contour([_SKIN], "distance", method="flying_edges", compute_normals=False)
        return result

    def cells_near_surface(self, reach: float) -> Points:
        """Centers [3, K] of the cubes of edge `CELL` that hold all points within ``reach`` of the surface."""
        half_diagonal = 0.5 * 3**0.5 * CELL
        flat = np.flatnonzero(np.abs(self._values) < reach + half_diagonal)
        z, y, x = np.unravel_index(flat, self._count[::-1])
        return self._low + np.float32(CELL) * np.stack([x, y, z]).astype(np.float32)

    def distance(self, p: Points) -> Values:
        """Interpolated distance [N] to the part at points [3, N]; outside the grid, that at its border."""
        q = p - self._low
        q *= np.float32(1 / CELL)
        np.maximum(q, 0.0, out=q)
        np.minimum(q, self._last, out=q)
        base = q.astype(np.int32)
        q -= base
        row, layer = self._count[0], self._count[0] * self._count[1]
        at = base[0] + base[1] * row + base[2] * layer
        fx, fy, fz = q
        low = self._plane(at, row, fx, fy)
        result: Values = low + (self._plane(at + layer, row, fx, fy) - low) * fz
        return result

    def _plane(self, at: NDArray[np.int32], row: int, fx: Values, fy: Values) -> Values:
        v = self._values
        near = v.take(at)
        near += (v.take(at + 1) - near) * fx
        at = at + row
        far = v.take(at)
        far += (v.take(at + 1) - far) * fx
        far -= near
        far *= fy
        far += near
        return far
