"""Builds a store from real or generated images and prints, as JSON, its size, build and reading speed.

    python benchmarks/store_read.py [--samples 64] [--size 256] [--images FOLDER]

Reading is measured from the page cache, whole samples in random order, in the same run: `FeatureStore`
(every row's CRC-32C checked), bare tensorstore and zarr-python on the same arrays.
"""

import argparse
import json
import random
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import tensorstore as ts
import torch
import zarr
from PIL import Image

from cache import FeatureStore
from cache.build import build_store
from idif.datasets.index import Index, Sample, View
from idif.encoders import FrozenEncoder, load_encoder

VIEWS = 5
BATCH = 8


def make_index(root: Path, samples: int, size: int, images: Path | None) -> Index:
    """Samples of five views: the files of ``images`` in turn, or generated noise on a gradient."""
    found = sorted(p for p in images.rglob("*") if p.suffix in (".jpg", ".png")) if images else []
    rng = np.random.default_rng(0)
    rows = []
    for number in range(samples):
        views = []
        for view in range(1, VIEWS + 1):
            name = f"{number:04d}_{view}.jpg"
            if found:
                picture = Image.open(found[(number * VIEWS + view) % len(found)]).convert("RGB")
                picture = picture.resize((size, size))
            else:
                noise = rng.integers(0, 40, (size, size, 3))
                picture = Image.fromarray((noise + np.arange(size)[:, None, None] % 200).astype(np.uint8))
            picture.save(root / name, quality=95)
            views.append(View(view, name, None, "OK"))
        rows.append(Sample(f"S{number:04d}", "object", "train", tuple(views)))
    return Index(tuple(range(1, VIEWS + 1)), tuple(rows))


def best(repeats: int, work: Callable[[], object]) -> float:
    """Shortest of several times, in seconds: the one least disturbed by others on the machine."""
    times = []
    for _ in range(repeats):
        began = time.perf_counter()
        work()
        times.append(time.perf_counter() - began)
    return min(times)


def encoder_alone(encoder: FrozenEncoder, size: int) -> float:
    """Images per second of the forward pass, on batches as a build makes them."""
    images = torch.randint(0, 256, (BATCH * VIEWS, 3, size, size), dtype=torch.uint8)
    encoder(images)
    return len(images) / best(3, lambda: encoder(images))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--samples", type=int, default=64)
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--images", type=Path)
    parser.add_argument("--weights", default="untrained")
    options = parser.parse_args()
    encoder = load_encoder(options.weights)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        index = make_index(root, options.samples, options.size, options.images)
        path = root / "store"
        alone = encoder_alone(encoder, options.size)
        report = build_store(root, index, path, encoder, image_size=options.size)
        built = report.views_encoded / report.seconds
        alone = max(alone, encoder_alone(encoder, options.size))
        print(json.dumps(measure(path, report.bytes_written, built, alone, str(options.images)), indent=1))


def measure(path: Path, size: int, built: float, alone: float, images: str) -> dict[str, object]:
    """All figures of one store."""
    store = FeatureStore.open(path)
    order = list(range(len(store.index)))
    random.Random(0).shuffle(order)
    parts = [order[i : i + BATCH] for i in range(0, len(order), BATCH)]
    names = [*(layer.name for layer in store.spec.layers), "images", "masks"]
    batch = store.read(order)
    bytes_read = sum(x.nbytes for x in (*batch.features.values(), batch.images, batch.masks))
    del batch
    group = path / "object" / "train"
    context = ts.Context({"cache_pool": {"total_bytes_limit": 64 * 2**20}})
    bare = {
        name: ts.open(
            {"driver": "zarr3", "kvstore": {"driver": "file", "path": f"{group.as_posix()}/{name}/"}},
            context=context,
            recheck_cached_data="open",
        ).result()
        for name in names
    }
    plain = {name: zarr.open_array(str(group / name), mode="r") for name in names}

    def read_bare() -> None:
        for part in parts:
            for read in [bare[name][part].read() for name in names]:
                read.result()

    def read_zarr() -> None:
        for part in parts:
            for name in names:
                np.stack([plain[name][row] for row in part])

    def gbps(work: Callable[[], object]) -> float:
        return bytes_read / best(5, work) / 1e9

    ours = gbps(lambda: [store.read(part) for part in parts])
    ahead = gbps(lambda: sum(1 for _ in store.batches(order, BATCH)))
    tensorstore, zarr_python = gbps(read_bare), gbps(read_zarr)
    return {
        "images": images,
        "bytes_per_view": size / (len(store.index) * VIEWS),
        "build_images_per_s": built,
        "encoder_images_per_s": alone,
        "build_vs_encoder": built / alone,
        "read_gb_per_s": ours,
        "batches_gb_per_s": ahead,
        "tensorstore_gb_per_s": tensorstore,
        "zarr_gb_per_s": zarr_python,
        "read_vs_tensorstore": ours / tensorstore,
        "read_vs_zarr": ours / zarr_python,
    }


if __name__ == "__main__":
    main()
