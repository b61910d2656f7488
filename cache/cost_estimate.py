"""What a store would cost on this machine and when it pays, from a short measurement of the real thing."""

import math
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch

from cache.building.build import build_store
from cache.format.layout import array_layouts, group_folder
from cache.format.manifest import sorted_groups
from cache.reading.placement import MEMORY_SHARE, free_memory
from cache.reading.store import FeatureStore
from idif.data.decode import decode_sample
from idif.data.features import FeatureSource, FeatureSpec, StorageType
from idif.data.index import Index
from idif.encoders.frozen import FrozenEncoder
from idif.encoders.live import LiveFeatures
from idif.errors import DatasetError
from idif.progress import Progress, silent

FIRST_SAMPLES = 8
MOST_SAMPLES = 64
ENOUGH_SECONDS = 1.5
"""A sample of the data grows until a live pass over it takes this long, or it has `MOST_SAMPLES`."""
BATCH = 8


@dataclass(frozen=True)
class Speeds:
    """What was measured, on ``images`` images of the data."""

    images: int
    encoder_images_per_s: float
    """Forward pass alone, images already on the device."""
    decode_images_per_s: float
    """Decoding and resizing, one thread."""
    live_images_per_s: float
    """Decoding and encoding overlapped, as a run without a store does."""
    build_images_per_s: float
    """A real build: decoding, encoding, hashing and writing overlapped, every file synced."""
    write_gb_per_s: float
    """Of that build's shard files, written again one after another and synced."""
    read_gb_per_s: float
    """Batches of a store, every row checked, from the disk itself where the system can empty its cache."""
    read_cached_gb_per_s: float
    """The same from the page cache."""
    cold: bool
    """Whether ``read_gb_per_s`` really came from the disk."""


@dataclass(frozen=True)
class Estimate:
    """One split of the data, or all of it: with a store and without."""

    split: str
    images: int
    bytes: int
    """Of the store, masks not yet compressed."""
    build_s: float
    pass_live_s: float
    """An epoch, an evaluation or a sweep without a store: everything is decoded and encoded."""
    pass_store_s: float
    """The same from the store, without what learns."""
    cached: bool
    """Whether the store is expected to stay in free memory after the first pass."""
    pays_after: int | None
    """Passes after which building has paid; None where the store is no faster than the encoder."""


@dataclass(frozen=True)
class Plan:
    """What `plan_store` found."""

    speeds: Speeds
    estimates: tuple[Estimate, ...]
    free_bytes: int
    """Of the disk that the store would lie on."""

    @property
    def fits(self) -> bool:
        """Whether the whole store fits on the disk."""
        return self.estimates[-1].bytes <= self.free_bytes


def plan_store(
    root: Path,
    index: Index,
    folder: Path,
    encoder: FrozenEncoder,
    *,
    image_size: int,
    storage: StorageType = "float16",
    device: torch.device,
    progress: Progress = silent,
) -> Plan:
    """Build and read a store of a few samples in ``folder``, remove it, and reckon from that.

    Args:
        folder: where a store would lie; its disk is measured. It must exist.
        progress: told the steps done.

    Raises:
        DatasetError: no samples, or an image cannot be read. What `build_store` raises.
    """
    if not len(index):
        raise DatasetError("the dataset has no samples to plan a store for")
    speeds = _measure(root, index, folder, encoder, image_size, storage, device, progress)
    spec = encoder.spec(image_size, storage)
    splits = [split for split in ("train", "test") if any(s.split == split for s in index.samples)]
    estimates = []
    for split in splits:
        rows = [row for row, sample in enumerate(index.samples) if sample.split == split]
        estimates.append(estimate(split, index.take(rows), spec, speeds, free_memory()))
    if len(estimates) > 1:
        estimates.append(estimate("all", index, spec, speeds, free_memory()))
    return Plan(speeds, tuple(estimates), shutil.disk_usage(folder).free)


def estimate(name: str, index: Index, spec: FeatureSpec, speeds: Speeds, memory: int | None) -> Estimate:
    """Reckon one split from measured speeds.

    Args:
        memory: bytes of main memory that are free, or None where that is unknown.
    """
    images = sum(sum(sample.present) for sample in index.samples)
    arrays = array_layouts(spec, len(index.view_numbers))
    total = len(index) * sum(array.row_bytes for array in arrays)
    cached = memory is not None and total <= MEMORY_SHARE * memory
    rate = speeds.read_cached_gb_per_s if cached else speeds.read_gb_per_s
    build, live, stored = (
        images / speeds.build_images_per_s,
        images / speeds.live_images_per_s,
        total / 1e9 / rate,
    )
    pays = math.ceil(build / (live - stored)) if live > stored else None
    return Estimate(name, images, total, build, live, stored, cached, pays)


def _measure(
    root: Path,
    index: Index,
    folder: Path,
    encoder: FrozenEncoder,
    image_size: int,
    storage: StorageType,
    device: torch.device,
    progress: Progress,
) -> Speeds:
    count = min(FIRST_SAMPLES, len(index))
    while True:
        progress(0, 5, "live pass")
        few = _spread(index, count)
        live = LiveFeatures(root, few, encoder, image_size, device)
        _drain(live, 1)  # the first call pays for what is set up once
        seconds = _seconds(partial(_drain, live, len(few)), device)
        if seconds >= ENOUGH_SECONDS or count >= min(MOST_SAMPLES, len(index)):
            break
        count = min(4 * count, MOST_SAMPLES, len(index))
    images = sum(sum(sample.present) for sample in few.samples)
    progress(1, 5, "encoder alone")
    batch = next(iter(live.batches(range(min(BATCH, len(few))), BATCH)))
    flat = batch.images[batch.view_mask]
    forward = _seconds(lambda: encoder(flat), device)
    progress(2, 5, "decoding alone")
    decoding = _seconds(lambda: [decode_sample(root, s, image_size) for s in few.samples[:BATCH]], device)
    decoded = sum(sum(sample.present) for sample in few.samples[:BATCH])
    with tempfile.TemporaryDirectory(prefix="plan-", suffix=".zarr", dir=folder) as name:
        progress(3, 5, "building")
        path = Path(name)
        report = build_store(root, few, path, encoder, image_size=image_size, storage=storage, device=device)
        store = FeatureStore.open(path)
        files = [
            group_folder(path, group.manifest.plan.group) / file
            for group in store.groups
            for shard in group.manifest.shards
            for file in shard.files
        ]
        progress(4, 5, "reading")
        size = sum(file.stat().st_size for file in files)
        writing = _seconds(partial(_copy_all, files), device)
        evicted = [_evict(file) for file in files]
        read = [_seconds(partial(_drain, store, len(few)), device) for _ in range(3)]
    return Speeds(
        images=images,
        encoder_images_per_s=len(flat) / forward,
        decode_images_per_s=decoded / decoding,
        live_images_per_s=images / seconds,
        build_images_per_s=images / report.seconds,
        write_gb_per_s=size / 1e9 / writing,
        read_gb_per_s=size / 1e9 / read[0],
        read_cached_gb_per_s=size / 1e9 / min(read[1:]),
        cold=all(evicted),
    )


def _spread(index: Index, count: int) -> Index:
    """``count`` samples from all over the index, as one group after another."""
    rows = sorted({round(i * (len(index) - 1) / max(1, count - 1)) for i in range(count)})
    groups = sorted_groups(index.take(rows)).values()
    return Index(index.view_numbers, tuple(sample for group in groups for sample in group.samples))


def _drain(source: FeatureSource, rows: int) -> None:
    """Hand out the first rows and drop them."""
    for _ in source.batches(range(rows), BATCH):
        pass


def _seconds(work: Callable[[], object], device: torch.device) -> float:
    began = time.perf_counter()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return max(time.perf_counter() - began, 1e-9)


def _copy_all(files: Sequence[Path]) -> None:
    """Write each file again beside itself, synced, and remove the copy."""
    for path in files:
        copy = path.with_name(path.name + ".copy")
        data = path.read_bytes()
        with copy.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        copy.unlink()


def _evict(path: Path) -> bool:
    """Take a synced file out of the page cache; False where the system cannot."""
    if not hasattr(os, "posix_fadvise"):
        return False
    with path.open("rb") as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    return True
