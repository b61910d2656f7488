"""Estimates a store's cost on this machine, and when it pays off, from a short real build."""

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
from idif.data.index import SPLITS, Index
from idif.data.spacing import evenly_spaced
from idif.encoders.live import LiveFeatures
from idif.errors import DatasetError
from idif.progress import Progress, silent

FIRST_SAMPLES = 8
"""Samples of the first pass, or fewer where these would take longer than `MOST_SECONDS`."""
MOST_SECONDS = 20.0
MOST_SAMPLES = 64
ENOUGH_SECONDS = 1.5
"""The measured sample grows until a live pass over it takes this long, or it has `MOST_SAMPLES`."""
BATCH = 8


@dataclass(frozen=True)
class Speeds:
    """Speeds measured on ``images`` images of the data; per-sample inputs count as images."""

    images: int
    encoder_images_per_s: float
    """Forward pass only, with decoded inputs already on the device."""
    decode_images_per_s: float
    """Decoding, one thread."""
    live_images_per_s: float
    """Decoding and encoding overlapped, as a run without a store does."""
    build_images_per_s: float
    """A real build: decoding, encoding, hashing and writing overlapped, every file synced."""
    write_gb_per_s: float
    """Speed of copying the build's shard files sequentially, with sync."""
    read_gb_per_s: float
    """Reading checked batches of a store; from the disk if the system can empty its page cache."""
    read_cached_gb_per_s: float
    """The same from the page cache."""
    cold: bool
    """Whether ``read_gb_per_s`` was measured on the disk, not on the page cache."""


@dataclass(frozen=True)
class Estimate:
    """Estimates with and without a store, for one split of the data or all of it."""

    split: str
    images: int
    bytes: int
    """Size of the store without its encoders' weights, with uncompressed masks."""
    build_s: float
    pass_live_s: float
    """Duration of an epoch, evaluation or sweep without a store: everything is decoded and encoded."""
    pass_store_s: float
    """Duration of the same pass from the store, without the method's own computation."""
    cached: bool
    """Whether the store is expected to stay in free memory after the first pass."""
    pays_after: int | None
    """Number of passes after which building pays off; None if the store is not faster than the encoder."""


@dataclass(frozen=True)
class Plan:
    """Result of `plan_store`."""

    speeds: Speeds
    estimates: tuple[Estimate, ...]
    sample_bytes: dict[str, int]
    """Uncompressed bytes of each array of one sample, with all views."""
    weights_bytes: int
    """Bytes of the encoders' weights, of which every store has a copy, whatever its splits."""
    free_bytes: int
    """Free space on the disk of the store."""

    @property
    def fits(self) -> bool:
        """Whether the whole store fits on the disk."""
        return self.estimates[-1].bytes + self.weights_bytes <= self.free_bytes


def plan_store(request: BuildRequest, *, progress: Progress = silent) -> Plan:
    """Build, read and remove a store of a few samples beside the requested one, and extrapolate.

    Args:
        request: a store in a folder; the disk of its nearest existing parent is measured.
        progress: called with the steps done.

    Raises:
        DatasetError: no samples, or a file cannot be read. Also the exceptions of `build_store`.
    """
    index, spec = request.index, request.spec
    if not len(index):
        raise DatasetError("the dataset has no samples to plan a store for")
    assert isinstance(request.store, Path), "a disk of this machine is measured"
    folder = request.store.resolve().parent
    while not folder.is_dir():
        folder = folder.parent
    speeds = _measure(request, folder, progress)
    splits = [split for split in SPLITS if any(s.split == split for s in index.samples)]
    estimates = []
    for split in splits:
        rows = [row for row, sample in enumerate(index.samples) if sample.split == split]
        estimates.append(estimate(split, index.take(rows), spec, speeds, free_memory()))
    if len(estimates) > 1:
        estimates.append(estimate("all", index, spec, speeds, free_memory()))
    weights = [e.module.state_dict().values() for e in request.encoders.encoders]
    return Plan(
        speeds,
        tuple(estimates),
        sample_bytes(spec, len(index.view_numbers)),
        sum(value.nbytes for values in weights for value in values),
        shutil.disk_usage(folder).free,
    )


def sample_bytes(spec: FeatureSpec, views: int) -> dict[str, int]:
    """Uncompressed bytes of each array of one sample, with all views and variants."""
    return {array.name: array.row_bytes for array in value_layouts(spec, views)}


def estimate(name: str, index: Index, spec: FeatureSpec, speeds: Speeds, memory: int | None) -> Estimate:
    """Estimate one split from measured speeds.

    Args:
        memory: free main memory in bytes, or None if unknown.
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
    plain = replace(encoders, variants=())
    progress(0, 5, "one sample")
    # the first call includes one-time setup
    first = _seconds(partial(_drain, LiveFeatures(root, _spread(index, 1), plain, device), 1), device)
    count = min(max(1, int(MOST_SECONDS / first)), FIRST_SAMPLES, len(index))
    while True:
        progress(0, 5, "live pass")
        few = _spread(index, count)
        live = LiveFeatures(root, few, plain, device)
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
    """``count`` samples evenly spaced over the index, ordered by group."""
    groups = sorted_groups(index.take(evenly_spaced(range(len(index)), count))).values()
    return Index(index.view_numbers, tuple(sample for group in groups for sample in group.samples))


def _drain(source: FeatureSource, rows: int) -> None:
    """Iterate over the first rows and discard them."""
    for _ in source.batches(range(rows), BATCH):
        pass


def _seconds(work: Callable[[], object], device: torch.device) -> float:
    began = time.perf_counter()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return max(time.perf_counter() - began, 1e-9)


def _copy_all(files: Sequence[Path]) -> None:
    """Copy each file beside itself, sync it, and remove the copy."""
    for path in files:
        copy = path.with_name(path.name + ".copy")
        data = path.read_bytes()
        with copy.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        copy.unlink()


def _evict(path: Path) -> bool:
    """Evict a synced file from the page cache; False if the system does not support it."""
    if not hasattr(os, "posix_fadvise"):
        return False
    with path.open("rb") as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    return True
