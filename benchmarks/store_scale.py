"""A store as large as all of Real-IAD, as far as opening looks at it: manifests and sizes of files.

Shard files are sparse: they have the right size and hold nothing. Used by `store.py`.
"""

import time
import tracemalloc
from pathlib import Path
from typing import Any

from cache import FeatureStore
from cache.format.layout import (
    MANIFEST,
    TEACHER,
    ZARR_JSON,
    choose_shard_rows,
    group_folder,
    group_metadata,
    value_layouts,
)
from cache.format.manifest import (
    GroupManifest,
    GroupPlan,
    RootManifest,
    SampleContent,
    ShardRecord,
    ViewContent,
    sorted_groups,
)
from cache.format.sealed_files import FileRecord, write_file
from idif.data.index import Index, Sample, Split, View
from idif.encoders.encode import EncoderSet
from idif.encoders.frozen import load_encoder
from idif.fingerprint import digest
from idif.training.sampling import epoch_order

CATEGORIES = 30
SAMPLES: dict[Split, int] = {"train": 7293, "test": 22917}
"""Samples of five views: 36,465 and 114,585 images."""
VIEWS = 5


def simulated_index(share: float = 1.0) -> Index:
    """Real-IAD's numbers of samples, spread evenly over its number of categories."""
    samples = []
    for split, count in SAMPLES.items():
        for number in range(round(count * share)):
            category = f"category{number % CATEGORIES:02d}"
            bad = split == "test" and number % 2 == 1
            place = "NG/scratch" if bad else "OK"
            folder = f"realiad_256/{category}/{place}/S{number:05d}"
            views = tuple(
                View(
                    view,
                    f"{folder}/{category}_{number:05d}_C{view}_20240101000000.jpg",
                    f"{folder}/{category}_{number:05d}_C{view}_20240101000000.png" if bad else None,
                    "scratch" if bad else "OK",
                )
                for view in range(1, VIEWS + 1)
            )
            samples.append(Sample(f"{category}/{place}/{split}{number:05d}", category, split, views))
    return Index(tuple(range(1, VIEWS + 1)), tuple(samples))


def simulate_store(store: Path, index: Index, size: int = 256) -> None:
    """Write everything a store of these rows has, apart from what the shard files hold."""
    spec = EncoderSet((load_encoder("untrained"),), size).spec("float16")
    shard_rows = choose_shard_rows(value_layouts(spec, VIEWS))
    root = {ZARR_JSON: group_metadata(root=True), TEACHER: b"none"}
    for name, data in root.items():
        write_file(store / name, data)
    records = {name: FileRecord.of(data) for name, data in root.items()}
    write_file(store / MANIFEST, RootManifest(spec, index.view_numbers, records).to_bytes())
    for group, rows in sorted_groups(index).items():
        plan = GroupPlan(group, spec.fingerprint, rows, shard_rows, 8)
        folder, arrays = group_folder(store, group), plan.array_layouts(spec)
        shards = []
        for shard, (start, stop) in enumerate(plan.bounds):
            files = {}
            for array in arrays:
                name = array.shard_file(shard)
                length = (stop - start) * array.row_bytes
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                with (folder / name).open("wb") as file:
                    file.truncate(length)
                files[name] = FileRecord(length, digest(f"{group}/{name}"))
            checks = {
                array.name: tuple(4_000_000_000 + row for row in range(start, stop)) for array in arrays
            }
            content = tuple(
                SampleContent(
                    tuple(
                        view and ViewContent(digest(view.image), view.mask and digest(view.mask))
                        for view in sample.views
                    )
                )
                for sample in rows.samples[start:stop]
            )
            shards.append(ShardRecord.of(shard, files, checks, content))
        for name, data in plan.metadata_files(spec).items():
            write_file(folder / name, data)
        write_file(folder / MANIFEST, GroupManifest(plan, tuple(shards)).to_bytes())


def measure_scale(folder: Path, share: float = 1.0) -> dict[str, Any]:
    """Seconds (of CPU) to open and to order an epoch, and the memory of what is open."""
    index = simulated_index(share)
    simulate_store(folder, index)
    FeatureStore.open(folder, ["category00"])  # what is imported on the way is not counted
    began = time.process_time()
    store = FeatureStore.open(folder)
    opened = time.process_time() - began
    began = time.process_time()
    FeatureStore.open(folder, ["category00"])
    one = time.process_time() - began
    rows = range(len(store.index))
    began = time.process_time()
    epoch_order(rows, seed=0, epoch=1)
    ordered = time.process_time() - began
    tracemalloc.start()
    again = FeatureStore.open(folder)
    memory = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    return {
        "samples": len(again.index),
        "images": sum(sum(sample.present) for sample in again.index.samples),
        "open_cpu_s": opened,
        "open_one_category_cpu_s": one,
        "epoch_order_cpu_s": ordered,
        "open_memory_mb": memory / 1e6,
        "manifest_mb": sum(path.stat().st_size for path in folder.rglob(MANIFEST)) / 1e6,
    }
