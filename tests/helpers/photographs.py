"""Photographs of generated parts, in the folders of `idif data import folder`."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

SHAPE = (40, 56)


def write_part(folder: Path, files: Sequence[str], number: int, *, defective: bool) -> None:
    """Write one photograph of a part for each camera; a defect is a bright square in the first."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng([number, defective])
    x = np.arange(SHAPE[1])
    for camera, file in enumerate(files):
        picture = 110 + 15 * np.sin(x / (4 + camera)) + rng.normal(0, 1, SHAPE)
        if defective and camera == 0:
            top, left = rng.integers(4, 20), rng.integers(4, 32)
            picture[top : top + 16, left : left + 20] = 250
        pixels = np.repeat(picture.clip(0, 255).astype(np.uint8)[..., None], 3, axis=2)
        Image.fromarray(pixels).save(folder / file)


def write_photographs(category: Path, pattern: str, cameras: Sequence[str], train: int = 12) -> None:
    """Write ``train`` good parts to learn from, six good and four defective ones to test on.

    Args:
        category: the category's folder.
        pattern: of the names, with ``{sample}`` and ``{view}``.
        cameras: names of the cameras.
    """
    counts = {"train/good": train, "test/good": 6, "test/scratch": 4}
    for start, (folder, count) in enumerate(counts.items()):
        for number in range(100 * start, 100 * start + count):
            files = [pattern.format(sample=f"{number:04d}", view=camera) for camera in cameras]
            write_part(category / folder, files, number, defective=folder == "test/scratch")
