"""Where each ray first meets a part: pyvista rasterises the part's proxy mesh off-screen, sphere tracing goes on from there."""

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
from idif.datasets.synthetic.model import Part
from idif.datasets.synthetic.rig import FIELD_OF_VIEW, Eye
from idif.errors import CannotFinish

_NO_OPENGL = (
    "cannot render: VTK finds no off-screen OpenGL on this machine; on Debian or Ubuntu install the packages "
    "libegl1 and libgl1-mesa-dri, or libosmesa6"
)
_NEAR, _FAR = 1.0, 14.0


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
        self.size = size
        """Pixels along an image's side."""
        self._shown: pv.PolyData | None = None

    def __enter__(self) -> Self:
        with _no_x_without_display():
            self._plotter: Any = pv.Plotter(off_screen=True, window_size=(self.size, self.size))
        window = self._plotter.render_window
        window.SetMultiSamples(0)  # averaged depths would lie on no surface
        window.Initialize()
        if not window.GetInitialized():  # rendering regardless would end the process
            self._plotter.close()
            raise CannotFinish(_NO_OPENGL)
        return self

    def __exit__(self, *_: object) -> None:
        self._plotter.close()

    def depth(self, mesh: pv.PolyData, eye: Eye) -> NDArray[np.float32]:
        """Depth [S, S] of the mesh along the eye's forward axis, first row at the top; infinite where it is not hit."""
        if mesh is not self._shown:
            self._plotter.add_mesh(mesh, name="part", lighting=False, reset_camera=False, render=False)
            self._shown = mesh
        camera = self._plotter.camera
        camera.position = tuple(eye.position[:, 0].tolist())
        camera.focal_point = tuple((eye.position + eye.forward)[:, 0].tolist())
        camera.up = tuple(eye.up[:, 0].tolist())
        camera.view_angle = FIELD_OF_VIEW
        camera.clipping_range = (_NEAR, _FAR)
        window = self._plotter.render_window
        window.Render()
        buffer = vtkFloatArray()
        window.GetZbufferData(0, 0, self.size - 1, self.size - 1, buffer)
        z = vtk_to_numpy(buffer).reshape(self.size, self.size)[::-1]
        depth = _NEAR * _FAR / (_FAR - z.astype(np.float64) * (_FAR - _NEAR))
        return np.where(z < 1.0, depth, np.inf).astype(np.float32)


_CLOSE = 0.0012
"""A ray this near to a surface has hit it."""
_STEPS = 32


def trace(part: Part, origins: Points, rays: Points, start: Values) -> tuple[Values, NDArray[np.bool_]]:
    """Follow rays that look down, from ``origins`` along ``rays`` (both [3, N]), to the first surface.

    ``start`` [N] is a depth before the part, in lengths of the ray's vector; infinite where the ray never comes near.
    Returns depths [N], and whether the rays end on the part rather than on the table z = 0.
    """
    depth: Values = -origins[2] / rays[2]
    hit = np.zeros(len(start), bool)
    active = np.flatnonzero(start < depth)
    t, floor, origin, ray = start[active], depth[active], origins[:, active], rays[:, active]
    stride = 0.95 / length(ray)
    for _ in range(_STEPS):
        distance = part.distance(origin + ray * t)
        t = t + np.maximum(distance, 0.5 * _CLOSE) * stride
        near, below = distance < _CLOSE, t >= floor
        ended = near & ~below
        depth[active[ended]] = t[ended]
        hit[active[ended]] = True
        keep = np.flatnonzero(~near & ~below)
        active, t, floor, stride = active[keep], t[keep], floor[keep], stride[keep]
        origin, ray = origin.take(keep, axis=1), ray.take(keep, axis=1)
        if not len(active):
            break
    # What still crawls along a surface after so many steps is taken to have reached it.
    depth[active], hit[active] = t, True
    return depth, hit
