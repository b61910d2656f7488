"""Renders anomaly maps as heat maps, over the gray photograph where there is one."""

import cv2
import numpy as np
import numpy.typing as npt

Pixels = npt.NDArray[np.uint8]

COLORMAP = cv2.COLORMAP_INFERNO
STOPS = 12
"""Colors of the color bar."""
OPACITY = 0.62
"""Opacity of the colors over a photograph."""


def color_bar_css() -> str:
    """The heat map's colors as a CSS gradient, low to high."""
    stops = np.linspace(0, 255, STOPS).astype(np.uint8)[None]
    colors = cv2.applyColorMap(stops, COLORMAP)[0, :, ::-1]
    return "linear-gradient(to right, " + ", ".join(f"rgb({r} {g} {b})" for r, g, b in colors) + ")"


def color_limits(pixels: npt.NDArray[np.float32]) -> tuple[float, float]:
    """(low, high) of the color scale for map pixels of any shape: their median and 99.8 % quantile.

    The maximum would leave everything else black. (0, 1) where there are no pixels; high > low always.
    """
    low, high = (float(np.quantile(pixels, q)) for q in (0.5, 0.998)) if pixels.size else (0.0, 1.0)
    return low, high if high > low else low + 1e-6


def heatmap_image(heat: npt.NDArray[np.float32], photo: Pixels | None, opacity: float = OPACITY) -> Pixels:
    """Colors uint8 [H,W,3], RGB, of a heat map.

    Args:
        heat: float32 [H,W], 0 at the low end of the scale and 1 at the high end.
        photo: uint8 [H,W,3], drawn in gray below the colors; None for the colors alone.
        opacity: of the colors over the photograph, 0..1.
    """
    scaled = (heat.clip(0, 1) * 255).astype(np.uint8)
    colors: Pixels = np.ascontiguousarray(cv2.applyColorMap(scaled, COLORMAP)[:, :, ::-1])
    if photo is None:
        return colors
    gray = cv2.cvtColor(photo, cv2.COLOR_RGB2GRAY).astype(np.float32)[:, :, None]
    mixed: Pixels = (opacity * colors.astype(np.float32) + (1 - opacity) * gray).astype(np.uint8)
    return mixed
