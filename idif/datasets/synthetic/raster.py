"""Where each ray first meets a part: pyvista polygonises the part and rasterises it off-screen, the exact field corrects it."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Self

import numpy as np
import pyvista as pv
from numpy.typing import NDArray
from vtkmodules.util.numpy_support import vtk_to_numpy
from vtkmodules.vtkCommonCore import vtkFloatArray

from idif.datasets.synthetic.fields import Points, Values, length
from idif.datasets.synthetic.model import Component, Part
from idif.datasets.synthetic.rig import FIELD_OF_VIEW, Eye
from idif.errors import CannotFinish

_NO_OPENGL = (
    "cannot render: VTK finds no off-screen OpenGL on this machine; on Debian or Ubuntu install the packages "
    "libegl1 and libgl1-mesa-dri, or libosmesa6"
)
_NEAR, _FAR = 1.0, 14.0


def _pieces(component: Component, part: Part) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """One component's surface with the part's edits made: vertices [P, 3] and triangles [T, 3]."""
    low = np.array(component.low) - component.cell
    count = np.ceil((np.array(component.high) - low) / component.cell).astype(int) + 2
    grid = pv.ImageData(dimensions=tuple(count), spacing=(component.cell,) * 3, origin=tuple(low))
    p = np.ascontiguousarray(np.asarray(grid.points, np.float32).T)
    grid["distance"] = part.edited(p, component.solid(p))
    surface = grid.contour([0.0], "distance", method="flying_edges", compute_normals=False)
    return np.asarray(surface.points, np.float32), np.asarray(surface.regular_faces, np.int64)


def polygonise(part: Part) -> pv.PolyData:
    """The part's surface as triangles."""
    points, faces, used = [], [], 0
    for component in part.components:
        vertices, triangles = _pieces(component, part)
        points.append(vertices)
        faces.append(triangles + used)
        used += len(vertices)
    return pv.PolyData.from_regular_faces(np.concatenate(points), np.concatenate(faces))


@contextmanager
def _no_x_without_display() -> Iterator[None]:
    """Where there is no X server let VTK open its EGL window at once, not try X first and print a warning."""
    name = "VTK_DEFAULT_OPENGL_WINDOW"
    if not sys.platform.startswith("linux") or os.environ.get("DISPLAY") or name in os.environ:
        yield
        return
    os.environ[name] = "vtkEGLRenderWindow"
    try:
        yield
    finally:
        del os.environ[name]


class Raster:
    """An off-screen window that tells depths; use it as a context manager, from one thread.

    Raises `CannotFinish` on entering where VTK has no off-screen OpenGL.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        """Rays along an image's side."""

    def __enter__(self) -> Self:
        with _no_x_without_display():
            self._plotter: Any = pv.Plotter(off_screen=True, window_size=(self._size, self._size))
        window = self._plotter.render_window
        window.SetMultiSamples(0)  # averaged depths would lie on no surface
        window.Initialize()
        if not window.GetInitialized():
            self._plotter.close()
            raise CannotFinish(_NO_OPENGL)
        return self

    def __exit__(self, *_: object) -> None:
        self._plotter.close()

    def load(self, mesh: pv.PolyData) -> None:
        """Look at this mesh from now on."""
        self._plotter.add_mesh(mesh, name="part", lighting=False, reset_camera=False, render=False)

    def depth(self, eye: Eye) -> NDArray[np.float32]:
        """Depth [S, S] along the eye's forward axis, first row at the top; infinite where nothing is hit."""
        camera = self._plotter.camera
        camera.position = tuple(eye.position[:, 0].tolist())
        camera.focal_point = tuple((eye.position + eye.forward)[:, 0].tolist())
        camera.up = tuple(eye.up[:, 0].tolist())
        camera.view_angle = FIELD_OF_VIEW
        camera.clipping_range = (_NEAR, _FAR)
        window = self._plotter.render_window
        window.Render()
        buffer = vtkFloatArray()
        window.GetZbufferData(0, 0, self._size - 1, self._size - 1, buffer)
        z = vtk_to_numpy(buffer).reshape(self._size, self._size)[::-1]
        with np.errstate(divide="ignore"):
            depth = _NEAR * _FAR / (_FAR - z.astype(np.float64) * (_FAR - _NEAR))
        return np.where(z < 1.0, depth, np.inf).astype(np.float32)


def onto_surface(part: Part, eye: Eye, rays: Points, depth: Values) -> Values:
    """Depths [N] of hits on the mesh moved along their rays [3, N] onto the exact surface, by at most two grid cells."""
    reach = 2 * max(component.cell for component in part.components)
    stride = 1.0 / length(rays)
    moved = np.zeros_like(depth)
    for _ in range(3):
        distance = part.distance(eye.position + rays * (depth + moved))
        moved = np.clip(moved + distance * stride, -reach, reach)
    return depth + moved
