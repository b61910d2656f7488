"""First intersection of rays with a part: pyvista renders the depth of the proxy mesh off-screen, and sphere
tracing continues from there."""

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from importlib import import_module
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray

from idif.datasets.synthetic.camera_rig import FIELD_OF_VIEW, PlacedCamera
from idif.datasets.synthetic.part_model import Part
from idif.datasets.synthetic.sdf import Points, Values, length
from idif.errors import CannotFinish, ConfigError

if TYPE_CHECKING:
    import pyvista as pv

_NO_OPENGL = (
    "cannot render: VTK finds no off-screen OpenGL on this machine; on Debian or Ubuntu install the packages "
    "libegl1 and libgl1-mesa-dri, or libosmesa6"
)
_NEAR, _FAR = 1.0, 14.0


def require_pyvista() -> None:
    """Raise `ConfigError` where pyvista or VTK, which the extra ``synthetic`` installs, is missing."""
    try:
        import pyvista  # noqa: F401
    except ModuleNotFoundError as error:
        raise ConfigError(
            f'rendering needs {error.name}, which is not installed; run `pip install "idif[synthetic]"`'
        ) from None


@contextmanager
def _no_x_without_display() -> Iterator[None]:
    """Let VTK open an EGL window directly where there is no X server: trying X first prints a warning."""
    name = "VTK_DEFAULT_OPENGL_WINDOW"
    if not sys.platform.startswith("linux") or os.environ.get("DISPLAY") or name in os.environ:
        yield
        return
    os.environ[name] = "vtkEGLRenderWindow"
    try:
        yield
    finally:
        del os.environ[name]


def _load_triton_first() -> None:
    """Load triton, which CUDA builds of torch bring, before OpenGL.

    Both carry an LLVM, and loading triton after Mesa ends the process with a segmentation fault, e.g. where a
    script renders parts and then trains.
    """
    with suppress(ImportError):
        import_module("triton")


class DepthRenderer:
    """Renders depth maps off-screen, one viewport per camera; a context manager for one thread.

    Raises:
        ConfigError: on entering, where the extra ``synthetic`` is not installed.
        CannotFinish: on entering, where VTK has no off-screen OpenGL.
    """

    def __init__(self, views: int, size: int) -> None:
        self.size = size
        """Pixels S along an image's side."""
        self._views = views

    def __enter__(self) -> Self:
        require_pyvista()
        _load_triton_first()
        import pyvista as pv

        with _no_x_without_display():
            self._plotter = pv.Plotter(
                off_screen=True,
                shape=(1, self._views),
                window_size=[self._views * self.size, self.size],
                border=False,
            )
        window: Any = self._plotter.render_window
        self._window = window
        window.SetMultiSamples(0)  # averaged depths would lie on no surface
        window.Initialize()
        if not window.GetInitialized():  # rendering regardless would end the process
            self._plotter.close()
            raise CannotFinish(_NO_OPENGL)
        # One actor in every viewport: calling add_mesh for every sample would cost more than the rendering.
        self._mapper = pv.DataSetMapper()
        actor = pv.Actor(mapper=self._mapper)
        actor.prop.lighting = False
        for view in range(self._views):
            self._plotter.subplot(0, view)
            self._plotter.add_actor(actor, reset_camera=False, render=False)
        return self

    def __exit__(self, *_: object) -> None:
        self._plotter.close()

    def depths(self, mesh: "pv.PolyData", cameras: Sequence[PlacedCamera]) -> NDArray[np.float32]:
        """Depth [V, S, S] of the mesh along each camera's forward axis, top row first, infinite beside it."""
        import pyvista as pv
        from vtkmodules.vtkCommonCore import vtkFloatArray

        self._mapper.SetInputData(mesh)
        for view, camera in enumerate(cameras):
            vtk_camera = self._plotter.renderers[view].camera
            vtk_camera.position = tuple(camera.position[:, 0].tolist())
            vtk_camera.focal_point = tuple((camera.position + camera.forward)[:, 0].tolist())
            vtk_camera.up = tuple(camera.up[:, 0].tolist())
            vtk_camera.view_angle = FIELD_OF_VIEW
            vtk_camera.clipping_range = (_NEAR, _FAR)
        self._window.Render()
        buffer = vtkFloatArray()
        self._window.GetZbufferData(0, 0, self._views * self.size - 1, self.size - 1, buffer)
        rows = np.asarray(pv.convert_array(buffer)).reshape(self.size, self._views, self.size)[::-1]
        z = rows.transpose(1, 0, 2)
        depth = _NEAR * _FAR / (_FAR - z.astype(np.float64) * (_FAR - _NEAR))
        return np.where(z < 1.0, depth, np.inf).astype(np.float32)


_CLOSE = 0.0015
"""A ray within this distance of a surface, in part radii, has hit it."""
_STEPS = 48
_GRAZING = 0.008
"""Distance to a surface within which a ray that ran out of steps counts as a hit."""


def trace_rays(
    part: Part, origins: Points, rays: Points, start: Values, min_step: float
) -> tuple[Values, NDArray[np.bool_]]:
    """Trace downward rays, from ``origins`` along ``rays`` (both [3, N]), to the first surface.

    Args:
        start: [N], depth in front of the part, in lengths of the ray's vector; infinite where the ray misses.
        min_step: shortest step along a ray.

    Returns:
        Depths [N], and whether each ray ends on the part rather than on the table z = 0.
    """
    depth: Values = -origins[2] / rays[2]
    hit = np.zeros(len(start), bool)
    active = np.flatnonzero(start < depth)
    t, floor = start[active], depth[active]
    origin, ray = origins.take(active, axis=1), rays.take(active, axis=1)
    stride = 1.0 / length(ray)
    for _ in range(_STEPS):
        distance = part.distance(origin + ray * t)
        near = distance < _CLOSE
        ended = np.flatnonzero(near & (t < floor))
        depth[active[ended]] = t[ended] + distance[ended] * stride[ended]
        hit[active[ended]] = True
        t += np.maximum(distance, min_step) * stride
        keep = np.flatnonzero(~near & (t < floor))
        if not len(keep):
            break
        active, t, floor, stride = active[keep], t[keep], floor[keep], stride[keep]
        origin, ray = origin.take(keep, axis=1), ray.take(keep, axis=1)
    else:
        # A ray that still grazes a surface after the last step hits it; any other goes on to the table.
        grazing = np.flatnonzero(part.distance(origin + ray * t) < _GRAZING)
        depth[active[grazing]], hit[active[grazing]] = t[grazing], True
    return depth, hit
