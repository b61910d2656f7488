"""Placement of a source's rows during a run: on disk, all in memory, or all on the device."""

import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

import torch

from cache.format.layout import value_layouts
from cache.reading.packed_batch import PackedBatch, check_variants
from cache.reading.store import FeatureStore
from idif.data.arrays import ArraySpec
from idif.data.batch import Batch
from idif.data.features import FeatureSource, FeatureSpec
from idif.data.index import Index, check_rows
from idif.errors import CannotFinish

Placement = Literal["auto", "disk", "memory", "device"]

LOAD_ROWS = 16
"""Rows read at once while a source is loaded."""
ROW_NUMBER_BYTES = 8
DEVICE_SHARE = 0.6
MEMORY_SHARE = 0.5
"""Maximum share of the free memory that ``auto`` uses."""


class Resident:
    """A `FeatureSource` with all rows and variants of another, loaded on one device."""

    def __init__(self, source: FeatureSource, device: torch.device) -> None:
        """Read all of ``source`` once, including its own checks of every row.

        Raises:
            The exceptions of ``source.batches``. CannotFinish: not enough memory on the device.
        """
        self._spec, self._index, self.device = source.spec, source.index, device
        try:
            self._all = _load(source, device)
        except torch.OutOfMemoryError:
            need = source_bytes(source) / 1e9
            raise CannotFinish(f"{device}: no room for {need:.2f} GB; use another placement") from None

    @property
    def spec(self) -> FeatureSpec:
        """The specification of its arrays."""
        return self._spec

    @property
    def index(self) -> Index:
        """Row -> sample."""
        return self._index

    def batches(
        self, order: Sequence[int], batch_size: int, variants: Sequence[int] | None = None
    ) -> Iterator[Batch]:
        """The rows of ``order``, in that order, on the device; see `FeatureSource.batches`.

        Raises:
            IndexError: a row is not in the index, or there is no such variant.
        """
        assert batch_size > 0, batch_size
        plain, chosen = check_rows(self._index, order), check_variants(self._spec, order, variants)
        rows = torch.tensor(plain, dtype=torch.int64, device=self.device)
        picked = None if chosen is None else torch.tensor(chosen, dtype=torch.int64, device=self.device)

        def take(start: int) -> Batch:
            part = slice(start, start + batch_size)
            batch = self._all.unpack(None if picked is None else picked[part], rows[part])
            categories = tuple(self._index.samples[row].category for row in plain[part])
            return replace(batch, categories=categories)

        return (take(start) for start in range(0, len(plain), batch_size))


def _load(source: FeatureSource, device: torch.device) -> PackedBatch:
    """All rows of a source as one batch, filled in parts so that no row is in memory twice.

    A store's features remain in their stored form: compact ones take half the memory.
    """
    rows = len(source.index)
    filled: PackedBatch | None = None
    for part in _packed(source):
        if filled is None:
            filled = part.map(lambda x: x.new_empty((rows, *x.shape[1:]), device=device))
        start = int(part.batch.rows[0])
        for room, values in zip(filled.tensors(), part.tensors(), strict=True):
            room[start : start + len(values)] = values
    assert filled is not None, "a source without rows"
    return filled


def _packed(source: FeatureSource) -> Iterator[PackedBatch]:
    rows = range(len(source.index))
    if isinstance(source, FeatureStore):
        return source.packed_batches(rows, LOAD_ROWS)
    features = source.spec.features
    if not source.spec.variants:
        return (PackedBatch(batch, {}, features) for batch in source.batches(rows, LOAD_ROWS))
    variants = range(len(source.spec.variants))
    each = [source.batches(rows, LOAD_ROWS, [variant] * len(rows)) for variant in variants]
    return (PackedBatch(_stack_variants(parts, features), {}, features) for parts in zip(*each, strict=True))


def _stack_variants(batches: Sequence[Batch], features: Mapping[str, ArraySpec]) -> Batch:
    """Stack batches of the same rows, one per variant, to one with all variants."""
    varied = [name for name, array in features.items() if array.has_variants]
    stacked = {name: torch.stack([batch.arrays[name] for batch in batches], dim=1) for name in varied}
    return batches[0].with_arrays(batches[0].arrays | stacked)


def source_bytes(source: FeatureSource) -> int:
    """Size of all rows of a source in memory, in bytes."""
    return len(source.index) * row_bytes(source.spec, len(source.index.view_numbers))


def row_bytes(spec: FeatureSpec, views: int) -> int:
    """Size of one row in bytes: its number, presence, labels, and arrays in their stored form."""
    flags = 2 * views + 1 + len(spec.inputs)
    return ROW_NUMBER_BYTES + flags + sum(array.row_bytes for array in value_layouts(spec, views))


def free_memory() -> int | None:
    """Main memory available to new allocations in bytes, or None if the system does not report it."""
    free: list[int] = []
    meminfo = Path("/proc/meminfo")
    if meminfo.exists():
        fields = dict(line.split(":", 1) for line in meminfo.read_text().splitlines() if ":" in line)
        free.append(int(fields["MemAvailable"].split()[0]) * 1024)
    elif sys.platform == "darwin":
        # macOS compresses and purges memory: assume that a third of the total is available
        free.append(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 3)
    limit, used = Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory.current")
    if limit.exists() and used.exists() and (text := limit.read_text().strip()) != "max":
        free.append(max(0, int(text) - int(used.read_text())))
    return min(free, default=None)


def choose_placement(source: FeatureSource, device: torch.device) -> tuple[Placement, str]:
    """The placement that ``auto`` selects, and the reason as text.

    Main memory is divided among the processes that torchrun started on this machine.
    """
    need = source_bytes(source)
    if device.type == "cuda":
        free = torch.cuda.mem_get_info(device)[0]
        if need <= DEVICE_SHARE * free:
            return "device", f"{need / 1e9:.2f} GB fit in {free / 1e9:.1f} GB free on {device}"
    available = free_memory()
    if available is None:
        return "disk", "this system does not tell how much memory is free"
    processes = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    room = f"{available / 1e9:.1f} GB of free memory"
    if processes > 1:
        room += f", shared by {processes} processes"
    if need <= MEMORY_SHARE * available / processes:
        return "memory", f"{need / 1e9:.2f} GB fit in {room}"
    return "disk", f"{need / 1e9:.2f} GB are too much for {room}"


def place(source: FeatureSource, placement: Placement, device: torch.device) -> FeatureSource:
    """A source with the same rows and bits, at the given placement.

    Args:
        source: a store, or any other source.
        placement: ``disk`` returns the source unchanged; ``memory`` and ``device`` load it completely;
            ``auto`` selects the fastest placement that fits, see `choose_placement`.

    Raises:
        CannotFinish: the explicit placement does not fit; nothing is allocated then.
    """
    chosen = choose_placement(source, device)[0] if placement == "auto" else placement
    if chosen == "disk":
        return source
    target = device if chosen == "device" else torch.device("cpu")
    free = torch.cuda.mem_get_info(target)[0] if target.type == "cuda" else free_memory()
    need = source_bytes(source)
    if free is not None and need > free:
        raise CannotFinish(
            f"cache.placement: {chosen} needs {need / 1e9:.2f} GB and {free / 1e9:.2f} GB are free; use disk"
        )
    return Resident(source, target)
