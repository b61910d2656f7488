"""The five stills of a finished synthetic weld: the bead, its parts, and the back of the plate."""

import cv2
import numpy as np
import numpy.typing as npt

from idif.datasets.weld.synthetic.plan import RunPlan

VIEWS = ("whole", "start", "middle", "end", "back")
"""The stills in order."""
_WINDOWS = {
    "whole": (0.0, 1.0),
    "start": (0.0, 0.4),
    "middle": (0.3, 0.7),
    "end": (0.6, 1.0),
    "back": (0.0, 1.0),
}
"""Still -> the part of the plate's length that it shows."""
_FIRST, _LAST = 0.08, 0.92
"""Beginning and end of the bead along the plate."""
_WIDTH = 0.2
"""Half the bead's width where half the plate's is 1."""

Grid = npt.NDArray[np.float64]


def render_stills(plan: RunPlan, size: int) -> list[npt.NDArray[np.uint8]]:
    """The stills of a run in the order of `VIEWS`, each uint8 [size,size,3], BGR."""
    return [_render(plan, view, size) for view in VIEWS]


def _render(plan: RunPlan, view: str, size: int) -> npt.NDArray[np.uint8]:
    kinds, severity = plan.kinds("stills"), plan.severity
    rng = plan.rng(f"still {view}")
    first, last = _WINDOWS[view]
    half = (last - first) * 0.9
    tilt, across_shift = rng.uniform(-0.02, 0.02), rng.uniform(-0.03, 0.03)
    v, u = (np.mgrid[0:size, 0:size] / (size - 1)).astype(np.float32)
    x = first + (last - first) * u
    y = half * (2 * v - 1) + across_shift + tilt * (u - 0.5)
    height, albedo = _surface(plan, kinds, x, y, back=view == "back")
    rise_y, rise_x = np.gradient(height, 2 * half / size, (last - first) / size)
    light = np.array([-0.45 + rng.uniform(-0.1, 0.1), -0.55 + rng.uniform(-0.1, 0.1), 0.7])
    light /= np.linalg.norm(light)
    facing = light[2] - light[0] * rise_x - light[1] * rise_y
    shade = np.clip(facing / np.sqrt(1 + rise_x**2 + rise_y**2), 0.05, 1)
    brush = cv2.blur(plan.rng(f"brush {view}").standard_normal((size, size)), (max(3, size // 6), 1))
    picture = albedo * (0.3 + 0.75 * shade)[..., None] * rng.uniform(0.92, 1.08)
    picture *= 1 + 0.1 * brush[..., None]
    picture += 0.01 * rng.standard_normal((size, size, 1))
    if "warping" in kinds:  # the plate no longer lies flat: its far end leaves the light
        picture *= (1 - 0.35 * severity * np.clip(x, 0, 1) ** 2)[..., None]
    pixels: npt.NDArray[np.uint8] = np.clip(picture * 255, 0, 255).astype(np.uint8)
    return pixels


def _surface(
    plan: RunPlan, kinds: frozenset[str], x: Grid, y: Grid, *, back: bool
) -> tuple[Grid, npt.NDArray[np.float64]]:
    """Height [S,S] and color [S,S,3] of plate and bead; ``x`` 0..1 along, ``y`` -1..1 across."""
    severity, (start, end) = plan.severity, plan.place
    start, end = _FIRST + start * (_LAST - _FIRST), _FIRST + end * (_LAST - _FIRST)
    if "warping" in kinds:
        y = y + 0.14 * severity * np.sin(np.pi * x / 2) ** 2
    if "lack_of_fusion" in kinds and not back:
        joint = np.exp(-((y / 0.02) ** 2))
        y = y - 0.09 * severity
    else:
        joint = np.zeros_like(y)
    width, tall = _WIDTH * (1 + 0.06 * _curve(plan, "width", x)), 0.09 * (1 + 0.08 * _curve(plan, "tall", x))
    if plan.setting.joint == "FILLET":
        width, tall = width * 1.15, tall * 0.9
    if "excessive_convexity" in kinds and not back:
        width, tall = width * (1 - 0.18 * severity), tall * (1 + 0.8 * severity)
    if "overlap" in kinds and not back:
        width = width * (1 + 0.35 * severity)
    if back:
        deep = 0.5 * severity if "excessive_penetration" in kinds else 0.0
        width, tall = width * (0.35 + 0.6 * deep), tall * (0.15 + 1.4 * deep)
    ends = np.clip((x - _FIRST) / 0.03, 0, 1) * np.clip((_LAST - x) / 0.03, 0, 1)
    inside = np.clip(1 - (y / width) ** 2, 0, 1) * ends
    ripples = 0.05 * np.sin(2 * np.pi * (55 * x + 1.6 * (y / width) ** 2))
    height = tall * np.sqrt(inside) * (1 + ripples)
    if not back:
        height -= 0.05 * np.exp(-(((x - _LAST + 0.04) / 0.025) ** 2) - (y / (0.6 * width)) ** 2)
    steel = np.array([0.52, 0.52, 0.5]) if plan.setting.steel == "FE410" else np.array([0.46, 0.5, 0.54])
    heat = np.exp(-(np.maximum(np.abs(y) - width, 0) / 0.12)) * ends * (0.6 if back else 1.0)
    albedo = steel * (1 - heat[..., None] * np.array([0.12, 0.3, 0.38])) + 0.1 * inside[..., None]
    dark = joint * ends

    if "undercut" in kinds and not back:
        along = np.clip(1 - np.abs(x - (start + end) / 2) / (end - start), 0, 1) ** 0.3
        height -= 0.05 * severity * along * ends * np.exp(-(((np.abs(y) - 1.08 * width) / 0.025) ** 2))
        dark = dark + 0.5 * severity * along * ends * np.exp(-(((np.abs(y) - 1.08 * width) / 0.02) ** 2))
    if "overlap" in kinds and not back:
        dark = dark + 0.8 * ends * np.exp(-(((np.abs(y) - width) / 0.012) ** 2))
    rng = plan.rng("spots")
    spots = rng.uniform(0, 1, (60, 3))
    if "porosity" in kinds and not back:
        for along_bead, across_bead, big in spots[:14]:
            at = start + along_bead * (end - start), (2 * across_bead - 1) * 0.7 * _WIDTH
            pit = np.exp(-((x - at[0]) ** 2 + (y - at[1]) ** 2) / (0.008 + 0.01 * big) ** 2)
            height -= 0.04 * severity * pit
            dark = dark + 0.9 * pit
    if "spatter" in kinds and not back:
        for along_plate, across_plate, big in spots:
            at = along_plate, (2 * across_plate - 1) * 0.85
            drop = np.exp(-((x - at[0]) ** 2 + (y - at[1]) ** 2) / (0.006 + 0.009 * big) ** 2)
            height += 0.03 * severity * drop
            dark = dark + 0.4 * drop
    if "burnthrough" in kinds:
        radius = 0.035 * severity + 0.02
        hole = ((x - start) ** 2 + (0.7 * y) ** 2) / radius**2
        dark = dark + 1.2 * np.exp(-(hole**3))
        height -= 0.06 * np.exp(-(hole**2))
    if "crater_cracks" in kinds and not back:
        for angle, reach, bend in spots[:5]:
            turn = 2 * np.pi * (angle + 0.2 * bend)
            along, across = x - (_LAST - 0.04), y
            distance = along * np.cos(turn) + across * np.sin(turn)
            beside = -along * np.sin(turn) + across * np.cos(turn) - 0.01 * np.sin(60 * distance)
            length = (0.04 + 0.05 * reach) * severity
            dark = dark + 0.9 * ((distance > 0) & (distance < length)) * np.exp(-((beside / 0.004) ** 2))
    return height, albedo * (1 - 0.85 * np.clip(dark, 0, 1))[..., None]


def _curve(plan: RunPlan, name: str, x: Grid) -> Grid:
    """A slow random curve along the bead, of about unit size."""
    knots = plan.rng(f"curve {name}").standard_normal(8)
    return np.interp(x.ravel(), np.linspace(0, 1, 8), knots).reshape(x.shape)
