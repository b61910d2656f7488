"""A tiny multi-view dataset in the Real-IAD layout, with its index built directly."""

import json
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import replace
from functools import cache, partial
from pathlib import Path

import numpy as np
from PIL import Image

from idif.data.index import Index, Sample, Split, View
from idif.encoders.frozen import FrozenEncoder, load_encoder

SIZE = 48
"""Side of the images on disk; not the encoder's size, so that resizing takes part."""


def tiny_index(
    categories: Sequence[str] = ("cup", "bolt"),
    train: int = 5,
    test: int = 4,
    views: int = 3,
    absent: bool = True,
) -> Index:
    """``train`` normal and ``test`` mixed samples per category; paths as Real-IAD lays them out.

    With ``absent``, sample 1 of every split lacks its second view.
    """
    samples = []
    for category in categories:
        counts: tuple[tuple[Split, int], ...] = (("train", train), ("test", test))
        for split, count in counts:
            for number in range(count):
                defect = "scratch" if split == "test" and number % 2 else "OK"
                samples.append(_sample(category, split, number, defect, views, absent))
    return Index(view_numbers=tuple(range(1, views + 1)), samples=tuple(samples))


def _sample(category: str, split: Split, number: int, defect: str, views: int, absent: bool) -> Sample:
    place = "OK" if defect == "OK" else f"NG/{defect}"
    name = f"S{number + (0 if split == 'train' else 1000):04d}"
    folder = f"realiad_256/{category}/{place}/{name}"
    slots: list[View | None] = []
    for view in range(1, views + 1):
        if absent and number == 1 and view == 2:
            slots.append(None)
            continue
        seen = defect != "OK" and view != 1  # a defect that camera 1 does not see
        stem = f"{folder}/{category}_{name[1:]}_{place.replace('/', '_')}_C{view}_20240101"
        slots.append(View(view, f"{stem}.jpg", f"{stem}.png" if seen else None, defect if seen else "OK"))
    return Sample(f"{category}/{place}/{name}", category, split, tuple(slots))


def two_cameras(index: Index, category: str) -> Index:
    """The index with one category, of three cameras, seen by the first two alone."""
    samples = [
        replace(sample, views=(*sample.views[:2], None)) if sample.category == category else sample
        for sample in index.samples
    ]
    return replace(index, samples=tuple(samples))


def make_tiny_realiad(root: Path, index: Index, seed: int = 0) -> None:
    """Write the images (JPEG) and masks (PNG) of an index: a disc on a gradient, defects as a bright bar."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:SIZE, :SIZE]
    for sample in index.samples:
        for view in sample.views:
            if view is None:
                continue
            centre = rng.uniform(SIZE * 0.35, SIZE * 0.65, 2)
            colour = rng.integers(60, 255, 3)
            pixels = np.stack([x * 2, y * 2, (x + y)], axis=2).astype(np.float64)
            disc = (x - centre[0]) ** 2 + (y - centre[1]) ** 2 < (SIZE * 0.3) ** 2
            pixels[disc] = colour
            mask = np.zeros((SIZE, SIZE), np.uint8)
            if view.label:
                top = int(rng.integers(5, SIZE - 10))
                mask[top : top + 5, 10:30] = 255
                pixels[mask > 0] = 255 - colour
            pixels += rng.normal(0, 4, pixels.shape)
            (root / view.image).parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(root / view.image, quality=92)
            if view.mask is not None:
                Image.fromarray(mask).save(root / view.mask)


def untrained() -> FrozenEncoder:
    """The seeded random teacher, a fresh copy each time, so that hooks stay with one test."""
    once = _untrained()
    return replace(once, module=deepcopy(once.module))


_untrained = cache(partial(load_encoder, "untrained"))


def tree(folder: Path) -> dict[str, bytes]:
    """Every file under a folder, by relative path."""
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def write_annotations(root: Path, index: Index) -> None:
    """``realiad_jsons/<category>.json`` of an index that `tiny_index` made."""
    for category in index.categories:
        prefix = f"realiad_256/{category}/"
        lists: dict[str, list[dict[str, str | None]]] = {"train": [], "test": []}
        for sample in index.samples:
            for view in sample.views:
                if sample.category == category and view is not None:
                    mask = None if view.mask is None else view.mask.removeprefix(prefix)
                    entry: dict[str, str | None] = {"category": category, "anomaly_class": view.anomaly_class}
                    lists[sample.split].append(
                        entry | {"image_path": view.image.removeprefix(prefix), "mask_path": mask}
                    )
        path = root / "realiad_jsons" / f"{category}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        meta = {"prefix": f"{category}/", "normal_class": "OK"}
        path.write_text(json.dumps({"meta": meta, **lists}), encoding="utf-8")
