"""Cost of a store on this machine, and when it pays, from a short measurement of a real build."""

import math
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch

from cache.building.build import build_store
from cache.building.encode_shards import count_inputs, stack_decoded
from cache.building.request import BuildRequest
from cache.format.layout import group_folder, truth_layouts, value_layouts
from cache.format.manifest import select_inputs, sorted_groups
from cache.reading.placement import MEMORY_SHARE, free_memory
from cache.reading.store import FeatureStore
from idif.data.batch import input_presence
from idif.data.features import FeatureSource, FeatureSpec
from idif.data.index import Index
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
    """Speeds measured on ``images`` images of the data; inputs that a sample has once count as images."""

    images: int
    encoder_images_per_s: float
    """Forward pass alone, decoded inputs already on the device."""
    decode_images_per_s: float
    """Decoding, one thread."""
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
    """The same from the store, without the trained part."""
    cached: bool
    """Whether the store is expected to stay in free memory after the first pass."""
    pays_after: int | None
    """Passes after which building has paid; None where the store is no faster than the encoder."""


@dataclass(frozen=True)
class Plan:
    """Result of `plan_store`."""

    speeds: Speeds
    estimates: tuple[Estimate, ...]
    free_bytes: int
    """Of the disk that the store would lie on."""

    @property
    def fits(self) -> bool:
        """Whether the whole store fits on the disk."""
        return self.estimates[-1].bytes <= self.free_bytes


def plan_store(request: BuildRequest, *, progress: Progress = silent) -> Plan:
    """Build and read a store of a few samples beside the request's place, remove it, and estimate from that.

    Args:
        request: a store in a folder; the disk of its nearest folder that exists is measured.
        progress: told the steps done.

    Raises:
        DatasetError: no samples, or a file cannot be read. Whatever `build_store` raises.
    """
    index, spec = request.index, request.spec
    if not len(index):
        raise DatasetError("the dataset has no samples to plan a store for")
    assert isinstance(request.store, Path), "a disk of this machine is measured"
    folder = request.store.resolve().parent
    while not folder.is_dir():
        folder = folder.parent
    speeds = _measure(request, folder, progress)
    splits = [split for split in ("train", "test") if any(s.split == split for s in index.samples)]
    estimates = []
    for split in splits:
        rows = [row for row, sample in enumerate(index.samples) if sample.split == split]
        estimates.append(estimate(split, index.take(rows), spec, speeds, free_memory()))
    if len(estimates) > 1:
        estimates.append(estimate("all", index, spec, speeds, free_memory()))
    return Plan(speeds, tuple(estimates), shutil.disk_usage(folder).free)


def estimate(name: str, index: Index, spec: FeatureSpec, speeds: Speeds, memory: int | None) -> Estimate:
    """Estimate one split from measured speeds.

    Args:
        memory: bytes of main memory that are free, or None where that is unknown.
    """
    images = sum(map(count_inputs, select_inputs(index, spec.inputs).samples))
    arrays = (*value_layouts(spec, len(index.view_numbers)), *truth_layouts(spec, index))
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


def _measure(request: BuildRequest, folder: Path, progress: Progress) -> Speeds:
    root, encoders, device = request.root, request.encoders, request.device or torch.device("cpu")
    index = select_inputs(request.index, request.spec.inputs)
    count = min(FIRST_SAMPLES, len(index))
    while True:
        progress(0, 5, "live pass")
        few = _spread(index, count)
        live = LiveFeatures(root, few, replace(encoders, variants=()), device)
        _drain(live, 1)  # the first call pays for what is set up once
        seconds = _seconds(partial(_drain, live, len(few)), device)
        if seconds >= ENOUGH_SECONDS or count >= min(MOST_SAMPLES, len(index)):
            break
        count = min(4 * count, MOST_SAMPLES, len(index))
    images = sum(map(count_inputs, few.samples))
    progress(1, 5, "decoding alone")
    rows = range(min(BATCH, len(few)))
    samples = [few.samples[row] for row in rows]
    decoding = _seconds(lambda: [encoders.decode(root, sample) for sample in samples], device)
    progress(2, 5, "encoder alone")
    decoded = stack_decoded([encoders.decode(root, sample) for sample in samples], device)
    present = input_presence(few, rows, request.spec.inputs)
    forward = _seconds(lambda: encoders.encode(decoded, present), device)
    part = sum(map(count_inputs, samples))
    with tempfile.TemporaryDirectory(prefix="plan-", suffix=".zarr", dir=folder) as name:
        progress(3, 5, "building")
        path = Path(name)
        report = build_store(replace(request, index=few, store=path))
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
        encoder_images_per_s=part / forward,
        decode_images_per_s=part / decoding,
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
