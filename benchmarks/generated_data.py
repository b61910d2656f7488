"""Samples for benchmarks: files of photographs or of generated noise, and their index."""

import random
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from idif.data.index import Index, Sample, View

VIEWS = 5


def make_data(root: Path, samples: int, size: int, images: Sequence[Path]) -> Index:
    """Samples of five views: the images in turn, at ``size``, or generated noise on a gradient."""
    rng = np.random.default_rng(0)
    chosen = random.Random(0).sample(list(images), min(len(images), samples * VIEWS))
    rows = []
    for number in range(samples):
        views: list[View | None] = []
        for view in range(1, VIEWS + 1):
            name = f"{number:04d}_{view}.jpg"
            if chosen:
                with Image.open(chosen[(number * VIEWS + view - 1) % len(chosen)]) as opened:
                    picture = opened.convert("RGB").resize((size, size))
            else:
                noise = rng.integers(0, 40, (size, size, 3))
                picture = Image.fromarray((noise + np.arange(size)[:, None, None] % 200).astype(np.uint8))
            picture.save(root / name, quality=95)
            views.append(View(view, name, None, "OK"))
        rows.append(Sample(f"S{number:04d}", "object", "train", tuple(views)))
    return Index(tuple(range(1, VIEWS + 1)), tuple(rows))
