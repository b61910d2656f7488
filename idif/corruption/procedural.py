"""Generated textures, for use without DTD: colored noise, stripes, checks, blobs and cells."""

import numpy as np
import numpy.typing as npt

from idif.randomness import numpy_rng

PROCEDURAL_COUNT = 128
PROCEDURAL_RULE = "procedural/v1"
"""Version of the textures: changes whenever a texture of the same number changes."""

_Field = npt.NDArray[np.float64]


def procedural_texture(number: int, size: int) -> npt.NDArray[np.uint8]:
    """Texture ``number``, the same in every call; consecutive numbers have different kinds.

    Returns:
        uint8 [3,size,size], RGB.
    """
    rng = numpy_rng("procedural texture", number)
    kinds = (_noise, _stripes, _checks, _blobs, _cells)
    field = kinds[number % len(kinds)](rng, _grid(rng, size))
    low, high = float(field.min()), float(field.max())
    field = (field - low) / max(high - low, 1e-9)
    grain = rng.uniform(0, 0.08) * rng.standard_normal(field.shape)
    pixels = _colorize(rng, field) + grain
    return np.round(pixels.clip(0, 1) * 255).astype(np.uint8)


def _grid(rng: np.random.Generator, size: int) -> tuple[_Field, _Field]:
    """y and x in -1..1, rotated by a random angle and slightly bent, so that no lattice is straight."""
    axis = (np.arange(size) + 0.5) / size * 2 - 1
    y, x = np.meshgrid(axis, axis, indexing="ij")
    angle = rng.uniform(0, np.pi)
    y, x = y * np.cos(angle) + x * np.sin(angle), x * np.cos(angle) - y * np.sin(angle)
    bend, rate = rng.uniform(0, 0.08, 2), rng.uniform(2, 9, 2)
    return y + bend[0] * np.sin(rate[0] * x), x + bend[1] * np.sin(rate[1] * y)


def _noise(rng: np.random.Generator, grid: tuple[_Field, _Field]) -> _Field:
    """Fractal noise: octaves of plane waves in random directions."""
    y, x = grid
    field = np.zeros_like(y)
    roughness = rng.uniform(0.4, 0.75)
    for octave in range(6):
        for _ in range(6):
            angle, phase = rng.uniform(0, 2 * np.pi, 2)
            rate = 2**octave * rng.uniform(1.5, 3)
            field += roughness**octave * np.sin(rate * (y * np.sin(angle) + x * np.cos(angle)) + phase)
    return field


def _stripes(rng: np.random.Generator, grid: tuple[_Field, _Field]) -> _Field:
    wave = np.sin(rng.uniform(8, 60) * grid[0] + rng.uniform(0, 2 * np.pi))
    sharp: _Field = np.tanh(wave * rng.uniform(0.5, 8))
    return sharp


def _checks(rng: np.random.Generator, grid: tuple[_Field, _Field]) -> _Field:
    rates = rng.uniform(6, 35, 2)
    wave = np.sin(rates[0] * grid[0]) * np.sin(rates[1] * grid[1])
    sharp: _Field = np.tanh(wave * rng.uniform(1, 10))
    return sharp


def _blobs(rng: np.random.Generator, grid: tuple[_Field, _Field]) -> _Field:
    y, x = grid
    field = np.zeros_like(y)
    for center_y, center_x, share in rng.uniform(-1.4, 1.4, (40, 3)):
        radius = 0.05 + 0.12 * abs(share)
        distance = ((y - center_y) ** 2 + (x - center_x) ** 2) / radius**2
        field += np.sign(share) * np.exp(-(distance ** rng.uniform(1, 3)))
    return field


def _cells(rng: np.random.Generator, grid: tuple[_Field, _Field]) -> _Field:
    """Voronoi cells: flat stones, each with its own gray value, and joints between them."""
    count = int(rng.integers(12, 70))
    points, grays = rng.uniform(-1.4, 1.4, (count, 2)), rng.uniform(0.2, 1, count)
    nearest = np.full(grid[0].shape, np.inf)
    second, gray = nearest.copy(), np.zeros_like(nearest)
    for (point_y, point_x), own in zip(points, grays, strict=True):
        distance = np.hypot(grid[0] - point_y, grid[1] - point_x)
        closer = distance < nearest
        second = np.where(closer, nearest, np.minimum(second, distance))
        gray = np.where(closer, own, gray)
        nearest = np.where(closer, distance, nearest)
    stone: _Field = ((second - nearest) / rng.uniform(0.02, 0.15)).clip(0, 1)
    return gray * stone


def _colorize(rng: np.random.Generator, field: _Field) -> _Field:
    """[3,H,W] in 0..1: the field as a path through three random colours, from gray to saturated."""
    colors = rng.uniform(0, 1, (3, 3))
    colors += rng.uniform(0, 1) * (colors.mean(axis=0) - colors)
    return np.stack([np.interp(field, (0, 0.5, 1), channel) for channel in colors])
