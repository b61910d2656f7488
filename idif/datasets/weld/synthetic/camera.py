"""The video of a synthetic run: a camera that travels with the torch and sees arc, pool and bead."""

import cv2
import numpy as np
import numpy.typing as npt

from idif.datasets.weld.synthetic.plan import RunPlan
from idif.datasets.weld.synthetic.process import RATE, simulate

FRAMES_PER_SECOND = 12
_POOL, _TORCH = (0.45, 0.5), (0.56, 0.5)
"""Positions (x, y) as shares of the picture; the bead lies to the left."""
_COLORS = (255 * np.linspace(0, 1, 1024)[:, None] ** np.array([1.6, 1.15, 1.0])).astype(np.uint8)
"""Colors, BGR, of 1,024 levels of light: hot metal is first red, then yellow, then white."""


def render_video(plan: RunPlan, seconds: float, size: int) -> npt.NDArray[np.uint8]:
    """The frames of a run, uint8 [T,size,size,3], BGR."""
    kinds, severity = plan.kinds("video"), plan.severity
    process = simulate(plan, kinds, seconds)
    count = max(2, round(seconds * FRAMES_PER_SECOND))
    arc, heat = process.mean(process.arc, count), process.mean(process.heat, count)
    flicker = process.mean(np.isin(np.arange(len(process.arc)), process.shorts).astype(float), count) * RATE
    brightness = arc * (1.15 - flicker / 400)
    y, x = (np.mgrid[0:size, 0:size] / size).astype(np.float32)
    plate = _plate(plan, size)
    rng = plan.rng("sparks")
    start, end = plan.place
    frames = np.empty((count, size, size, 3), np.uint8)
    for number in range(count):
        moment = (number + 0.5) / count
        inside = start <= moment <= end
        width, length, shift, hole = 1.0, 1.0, 0.0, 0.0
        if "excessive_penetration" in kinds:
            width, length = 1 + 0.2 * severity, 1 + 0.2 * severity
        if "overlap" in kinds:
            width = 1 + 0.28 * severity
        if "excessive_convexity" in kinds:
            width = 1 - 0.2 * severity
        if "lack_of_fusion" in kinds:
            shift = 0.05 * severity
        if "warping" in kinds:
            shift = 0.07 * severity * moment**2
        if "burnthrough" in kinds and inside:
            width, length, hole = 1 + 0.5 * severity, 1 + 0.4 * severity, 1.0
        warmth = 0.8 + 0.2 * float(heat[number])
        across = (y - _POOL[1] - shift) / (0.085 * width * warmth)
        along = (x - _POOL[0]) / (0.13 * length * warmth)
        pool = np.exp(-(across**2) - np.where(along < 0, np.float32(0.35), np.float32(1)) * along**2) * min(
            1.0, float(heat[number]) + 0.1
        )
        apart = (x - _TORCH[0]) ** 2 + (y - _TORCH[1] - shift) ** 2
        torch = np.exp(apart / -0.004) * float(brightness[number])
        glow = np.exp(apart / -0.08) * float(brightness[number])
        bead = (np.abs(across) < 1.1) & (x < _POOL[0])
        travel = round(number / count * size * 1.5)
        base = plate[:, travel : travel + size]
        ripples = 0.05 * np.sin((x + 1.5 * moment) * 150 + 3 * across**2)
        light = np.where(bead, 0.16 + ripples + 0.12 * (1 - across**2), base)
        light = light * (0.5 + 0.9 * glow) + 0.75 * pool + 1.2 * torch
        if hole:
            light *= 1 - 0.9 * np.exp(-(across**2) - ((x - _POOL[0] + 0.12) / 0.06) ** 2)
        _add_sparks(light, rng, 3.0 * arc[number] * (1 + 4 * severity * ("spatter" in kinds)))
        light += np.float32(0.012) * rng.standard_normal((size, size), np.float32)
        frames[number] = _COLORS[np.clip(light * 1023, 0, 1023).astype(np.int16)]
    return frames


def _plate(plan: RunPlan, size: int) -> npt.NDArray[np.float32]:
    """Brightness of the plate that passes by, [size,2.5*size], brushed along the seam."""
    noise = plan.rng("plate").standard_normal((size, round(2.6 * size)), np.float32)
    brushed = cv2.blur(noise, (max(3, size // 8), 1))
    plate: npt.NDArray[np.float32] = np.float32(0.22) + np.float32(0.1) * brushed
    plate[size // 2] *= 0.4  # the joint
    return plate


def _add_sparks(light: npt.NDArray[np.float32], rng: np.random.Generator, rate: float) -> None:
    """Draw some bright streaks that leave the torch; always the same number of random draws."""
    size = len(light)
    angles, near, far = rng.uniform(0, 2 * np.pi, 40), rng.uniform(0.05, 0.3, 40), rng.uniform(0.03, 0.12, 40)
    number = int(np.searchsorted(np.cumsum(rng.exponential(1.0, 40)), rate))
    for angle, begin, length in zip(angles[:number], near, far, strict=False):
        direction = np.array([np.cos(angle), np.sin(angle)])
        first = np.array(_TORCH) + begin * direction
        second = first + length * direction
        points = [(round(float(point[0]) * size), round(float(point[1]) * size)) for point in (first, second)]
        cv2.line(light, points[0], points[1], 1.2, 1)
