"""Anomaly maps as pictures: one color scale, over the photograph in grey."""

import cv2
import numpy as np
import numpy.typing as npt

Pixels = npt.NDArray[np.uint8]

COLORS = cv2.COLORMAP_INFERNO
STOPS = 12
"""Colors of the color bar."""
OPACITY = 0.62
"""Share of the colors where they lie over a photograph."""


def color_bar() -> str:
    """The heat map's colors as a CSS gradient, low to high."""
    stops = np.linspace(0, 255, STOPS).astype(np.uint8)[None]
    colors = cv2.applyColorMap(stops, COLORS)[0, :, ::-1]
    return "linear-gradient(to right, " + ", ".join(f"rgb({r} {g} {b})" for r, g, b in colors) + ")"


def color_limits(seen: npt.NDArray[np.float32]) -> tuple[float, float]:
    """(low, high) of a color scale for map pixels of any shape: their median and 99.8 % quantile.

    The few brightest pixels would leave everything else black. Without pixels (0, 1); high > low always.
    """
    low, high = (float(np.quantile(seen, q)) for q in (0.5, 0.998)) if seen.size else (0.0, 1.0)
    return low, high if high > low else low + 1e-6


def heatmap_image(heat: npt.NDArray[np.float32], photo: Pixels | None, opacity: float = OPACITY) -> Pixels:
    """Heat float32 [H,W], 0 at the scale's low end and 1 at its high, as colors uint8 [H,W,3], RGB.

    Over the photograph uint8 [H,W,3] in grey where there is one; ``opacity`` 0..1 is the colors' share.
    """
    scaled = (heat.clip(0, 1) * 255).astype(np.uint8)
    colors: Pixels = np.ascontiguousarray(cv2.applyColorMap(scaled, COLORS)[:, :, ::-1])
    if photo is None:
        return colors
    grey = cv2.cvtColor(photo, cv2.COLOR_RGB2GRAY).astype(np.float32)[:, :, None]
    mixed: Pixels = (opacity * colors.astype(np.float32) + (1 - opacity) * grey).astype(np.uint8)
    return mixed
