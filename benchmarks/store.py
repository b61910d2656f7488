"""Every figure of the feature store, measured on one input in one run and printed as one JSON object.

    python benchmarks/store.py [--json] [--samples 48] [--size 256] [--weights untrained] [--images FOLDER]

Images come from ``--images``, else from the folder that IDIF_DATA names, else they are generated. What is
compared is measured in turn, several times over, and the medians are divided. Rates are per second of
processor time (``cpu``) or of the clock; ratios are of processor time unless their name ends in ``wall``.
"""

import argparse
import json
import os
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import tensorstore as ts
import torch
import zarr
from generated_data import VIEWS, make_data
from store_scale import measure_scale

from cache import FeatureStore
from cache.building.build import build_store
from cache.building.request import BuildRequest
from cache.checking.verify import verify_store
from cache.reading.placement import Resident
from idif.data.features import FeatureSource
from idif.data.index import Index
from idif.encoders.encode import EncoderSet
from idif.encoders.frozen import FrozenEncoder, load_encoder

BATCH = 8
ROUNDS = 5
LEAK_BATCHES = 10_000


@dataclass(frozen=True)
class Time:
    """One measurement in seconds."""

    wall: float
    cpu: float


def clock(work: Callable[[], object]) -> Time:
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    return Time(time.perf_counter() - wall, time.process_time() - cpu)


def in_turn(works: dict[str, Callable[[], object]], rounds: int = ROUNDS) -> dict[str, Time]:
    """Medians of works done one after another, again and again, so that all see the same machine."""
    times: dict[str, list[Time]] = {name: [] for name in works}
    for work in works.values():
        work()  # what is set up once is not counted
    for _ in range(rounds):
        for name, work in works.items():
            times[name].append(clock(work))
    return {
        name: Time(statistics.median(t.wall for t in found), statistics.median(t.cpu for t in found))
        for name, found in times.items()
    }


def drain(source: FeatureSource, rows: Sequence[int]) -> None:
    """Hand out these rows in batches and drop them."""
    for _ in source.batches(rows, BATCH):
        pass


def find_images(given: Path | None) -> list[Path]:
    """Real images, in an order that depends on their names alone."""
    folder = given or (Path(os.environ["IDIF_DATA"]) if "IDIF_DATA" in os.environ else None)
    if folder is None:
        return []
    found = (p for p in folder.rglob("*") if p.suffix.lower() in (".jpg", ".png"))
    return sorted(p for p in found if not {"gt", "ground_truth"} & set(p.parts))


def measure_build(
    root: Path, index: Index, folder: Path, encoder: FrozenEncoder, size: int
) -> dict[str, float]:
    """A build beside the encoder's forward pass over as many images, in turn.

    Shards are small, so that most are written while the next is encoded, as in a build of a real category.
    """
    images = torch.randint(0, 256, (BATCH * VIEWS, 3, size, size), dtype=torch.uint8)
    count = sum(sum(sample.present) for sample in index.samples)

    def forward() -> None:
        for _ in range(count // len(images)):
            encoder(images)

    encoder(images)
    alone, built = [], []
    for number in range(3):
        alone.append(clock(forward))
        path = folder / f"built{number}"
        built.append(
            clock(
                partial(
                    build_store,
                    BuildRequest(root, index, path, EncoderSet((encoder,), size), shard_rows=BATCH),
                )
            )
        )
    alone_cpu, built_cpu = (statistics.median(t.cpu for t in times) for times in (alone, built))
    alone_wall, built_wall = (statistics.median(t.wall for t in times) for times in (alone, built))
    encoded = count // len(images) * len(images)
    return {
        "build_images_per_s": count / built_wall,
        "build_vs_encoder": (count / built_cpu) / (encoded / alone_cpu),
        "build_vs_encoder_wall": (count / built_wall) / (encoded / alone_wall),
    }


def measure_reading(path: Path) -> dict[str, float]:
    """Whole samples from the page cache, in random order and in order, beside tensorstore and zarr-python."""
    store = FeatureStore.open(path)
    order = list(range(len(store.index)))
    random.Random(0).shuffle(order)
    parts = [order[i : i + BATCH] for i in range(0, len(order), BATCH)]
    names = [*store.spec.arrays]
    row_bytes = sum(x.nbytes for x in store.read(order[:BATCH]).arrays.values()) / BATCH
    size = row_bytes * len(order)
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

    times = in_turn(
        {
            "read": lambda: [store.read(part) for part in parts],
            "tensorstore": read_bare,
            "zarr": read_zarr,
            "batches": partial(drain, store, order),
            "sequential": partial(drain, store, sorted(order)),
        }
    )
    rates = {f"{name}_gb_per_cpu_s": size / 1e9 / t.cpu for name, t in times.items()}
    rates |= {f"{name}_gb_per_s": size / 1e9 / t.wall for name, t in times.items()}
    return rates | {
        "read_vs_tensorstore": times["tensorstore"].cpu / times["read"].cpu,
        "read_vs_tensorstore_wall": times["tensorstore"].wall / times["batches"].wall,
        "read_vs_zarr": times["zarr"].cpu / times["read"].cpu,
        "read_vs_zarr_wall": times["zarr"].wall / times["batches"].wall,
        "sequential_vs_random": times["batches"].cpu / times["sequential"].cpu,
        "bytes_per_sample": row_bytes,
    }


def feature_bytes(path: Path) -> int:
    """Bytes of a store's feature arrays, scales and shard indexes included."""
    folders = [p for p in (path / "object" / "train").iterdir() if p.name.startswith("layer")]
    return sum(p.stat().st_size for folder in folders for p in folder.rglob("*") if p.is_file())


def measure_compact(path: Path, compact: Path) -> dict[str, Any]:
    """``uint8`` beside ``float16``: bytes, speed, and the mean cosine of each layer's feature vectors."""
    wide, small = FeatureStore.open(path), FeatureStore.open(compact)
    rows = range(len(wide.index))
    cosines: dict[str, list[float]] = {name: [] for name in wide.spec.features}
    for a, b in zip(wide.batches(rows, BATCH), small.batches(rows, BATCH), strict=True):
        for name, x in a.features(cosines).items():
            nonzero = x.float().norm(dim=2) > 0
            cosine = torch.cosine_similarity(x.float(), b.arrays[name].float(), dim=2)
            cosines[name].append(float(cosine[nonzero].mean()))
    means = {name: statistics.mean(values) for name, values in cosines.items()}

    times = in_turn({"wide": partial(drain, wide, rows), "small": partial(drain, small, rows)})
    return {
        "uint8_bytes_ratio": feature_bytes(compact) / feature_bytes(path),
        "uint8_cosine": means,
        "uint8_cosine_min": min(means.values()),
        "uint8_read_vs_float16": times["wide"].cpu / times["small"].cpu,
    }


def measure_compression(path: Path, compact: Path) -> dict[str, Any]:
    """Codecs on each storage type: share of the bytes, and GB decoded a second."""
    found: dict[str, Any] = {}
    for name, folder in (("float16", path), ("uint8", compact)):
        values = FeatureStore.open(folder).read_arrays(range(8))["layer2"].numpy()
        for codec in (zarr.codecs.ZstdCodec(level=1), zarr.codecs.BloscCodec(cname="lz4", shuffle="shuffle")):
            store = zarr.storage.MemoryStore()
            chunks = (1, *values.shape[1:])
            array = zarr.create_array(
                store, shape=values.shape, chunks=chunks, dtype=values.dtype, compressors=codec
            )
            array[:] = values
            spent = in_turn({"read": partial(array.__getitem__, slice(None))}, 3)["read"]
            label = f"{name} {type(codec).__name__.removesuffix('Codec').lower()}"
            share = array.nbytes_stored() / values.nbytes
            found[label] = {"share": share, "gb_per_cpu_s": values.nbytes / 1e9 / spent.cpu}
    return {"compression": found}


def resident_bytes() -> int | None:
    """Resident memory of this process, where the system tells."""
    status = Path("/proc/self/status")
    if not status.exists():
        return None
    line = next(line for line in status.read_text().splitlines() if line.startswith("VmRSS"))
    return int(line.split()[1]) * 1024


def measure_leak(root: Path, index: Index, folder: Path, encoder: FrozenEncoder) -> dict[str, Any]:
    """Growth of resident memory from the 1,000th to the last of `LEAK_BATCHES` batches of small images."""
    build_store(BuildRequest(root, index, folder, EncoderSet((encoder,), 32)))
    store = FeatureStore.open(folder)
    order = [i % len(store.index) for i in range(LEAK_BATCHES * 2)]
    start = None
    for number, _ in enumerate(store.batches(order, 2)):
        if number == LEAK_BATCHES // 10:
            start = resident_bytes()
    end = resident_bytes()
    growth = None if start is None or end is None else (end - start) / 1e6
    return {"leak_batches": LEAK_BATCHES, "leak_growth_mb": growth}


def measure_verify(path: Path) -> dict[str, float]:
    bytes_read = verify_store(path).bytes
    spent = in_turn({"verify": lambda: verify_store(path)}, 3)["verify"]
    return {"verify_gb_per_cpu_s": bytes_read / 1e9 / spent.cpu}


def measure_resident(path: Path) -> dict[str, float]:
    store = FeatureStore.open(path)
    resident = Resident(store, torch.device("cpu"))
    rows = list(range(len(store.index)))
    times = in_turn({"disk": partial(drain, store, rows), "memory": partial(drain, resident, rows)})
    return {"memory_vs_disk": times["disk"].cpu / times["memory"].cpu}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--samples", type=int, default=48)
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--images", type=Path)
    parser.add_argument("--weights", default="untrained")
    parser.add_argument("--json", action="store_true", help="accepted: the output is JSON either way")
    options = parser.parse_args()
    encoder, images = load_encoder(options.weights), find_images(options.images)
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        index = make_data(root, options.samples, options.size, images)
        figures: dict[str, Any] = {
            "input": f"{len(images)} real images" if images else "generated images",
            "weights": options.weights,
            "samples": options.samples,
            "image_size": options.size,
            "threads": torch.get_num_threads(),
            "load_before": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        }
        figures |= measure_build(root, index, root, encoder, options.size)
        wide, compact = root / "built0", root / "compact"
        encoders = EncoderSet((encoder,), options.size)
        build_store(BuildRequest(root, index, compact, encoders, storage="uint8"))
        figures |= measure_reading(wide)
        figures |= measure_compact(wide, compact)
        figures |= measure_compression(wide, compact)
        figures |= measure_resident(wide)
        figures |= measure_verify(wide)
        figures |= measure_leak(root, index.take(range(min(32, len(index)))), root / "small", encoder)
        figures["scale_quarter"] = measure_scale(root / "quarter", share=0.25)
        figures["scale"] = measure_scale(root / "scale")
    print(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()
