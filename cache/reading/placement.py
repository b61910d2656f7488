"""Where a source's rows lie while they are used: on disk, whole in memory, or whole on the device."""

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Literal

import torch

from cache.reading.store import FeatureStore, PackedBatch
from idif.data.batch import Batch
from idif.data.features import FeatureSource, FeatureSpec
from idif.data.index import Index, check_rows
from idif.errors import CannotFinish

Placement = Literal["auto", "disk", "memory", "device"]

LOAD_ROWS = 16
"""Rows read at once while a source is made resident."""
DEVICE_SHARE = 0.6
MEMORY_SHARE = 0.5
"""Share of what is free that ``auto`` will take."""


class Resident:
    """A `FeatureSource` that holds every row of another on one device and indexes it there."""

    def __init__(self, source: FeatureSource, device: torch.device) -> None:
        """Reads all of ``source`` once, so that its own checks see every row once.

        Raises:
            What ``source.batches`` raises. CannotFinish: the device's memory does not hold it.
        """
        self._spec, self._index, self.device = source.spec, source.index, device
        try:
            self._all = _load(source, device)
        except torch.OutOfMemoryError:
            need = source_bytes(source) / 1e9
            raise CannotFinish(f"{device}: no room for {need:.2f} GB; use another placement") from None

    @property
    def spec(self) -> FeatureSpec:
        """What the features are."""
        return self._spec

    @property
    def index(self) -> Index:
        """Row -> sample."""
        return self._index

    def batches(self, order: Sequence[int], batch_size: int) -> Iterator[Batch]:
        """The rows of ``order``, in that order, on the device; see `FeatureSource.batches`.

        Raises:
            IndexError: a row is not in the index.
        """
        assert batch_size > 0, batch_size
        rows = torch.tensor(check_rows(self._index, order), dtype=torch.int64, device=self.device)
        return (self._take(rows[i : i + batch_size]) for i in range(0, len(rows), batch_size))

    def _take(self, rows: torch.Tensor) -> Batch:
        return _map(self._all, lambda x: x.index_select(0, rows)).unpack()


def _load(source: FeatureSource, device: torch.device) -> PackedBatch:
    """All rows of a source as one batch, filled part by part so that nothing is held twice.

    A store's features stay as they are stored: ``uint8`` takes half the room here too.
    """
    rows = len(source.index)
    whole: PackedBatch | None = None
    for part in _packed(source):
        if whole is None:
            whole = _map(part, lambda x: x.new_empty((rows, *x.shape[1:]), device=device))
        start = int(part.batch.rows[0])
        for room, values in zip(_tensors(whole), _tensors(part), strict=True):
            room[start : start + len(values)] = values
    assert whole is not None, "a source without rows"
    return whole


def _packed(source: FeatureSource) -> Iterator[PackedBatch]:
    rows = range(len(source.index))
    if isinstance(source, FeatureStore):
        return source.packed_batches(rows, LOAD_ROWS)
    return (PackedBatch(batch, {}) for batch in source.batches(rows, LOAD_ROWS))


def _tensors(packed: PackedBatch) -> list[torch.Tensor]:
    batch = packed.batch
    parts = [batch.rows, batch.images, batch.view_mask, batch.labels, batch.masks]
    return [*parts, *batch.features.values(), *packed.scales.values()]


def _map(packed: PackedBatch, change: Callable[[torch.Tensor], torch.Tensor]) -> PackedBatch:
    batch = packed.batch
    changed = Batch(
        rows=change(batch.rows),
        images=change(batch.images),
        features={name: change(x) for name, x in batch.features.items()},
        view_mask=change(batch.view_mask),
        labels=change(batch.labels),
        masks=change(batch.masks),
    )
    return PackedBatch(changed, {name: change(x) for name, x in packed.scales.items()})


def source_bytes(source: FeatureSource) -> int:
    """Bytes that all rows of a source take when they are made resident."""
    return len(source.index) * row_bytes(source.spec, len(source.index.view_numbers))


def row_bytes(spec: FeatureSpec, views: int) -> int:
    """Bytes of one row: its number, images, masks, presence, labels and features as ``spec`` stores them."""
    width = {"float16": 2, "float32": 4, "uint8": 1}[spec.storage]
    values = sum(c * h * w for c, h, w in (spec.shape(layer) for layer in spec.layers))
    scales = sum(2 * layer.channels for layer in spec.layers) if spec.storage == "uint8" else 0
    return 8 + scales + views * (width * values + 4 * spec.image_size**2 + 2)


def free_memory() -> int | None:
    """Bytes of main memory that a new allocation can have, or None where the system does not tell."""
    free: list[int] = []
    meminfo = Path("/proc/meminfo")
    if meminfo.exists():
        fields = dict(line.split(":", 1) for line in meminfo.read_text().splitlines() if ":" in line)
        free.append(int(fields["MemAvailable"].split()[0]) * 1024)
    elif sys.platform == "darwin":
        # macOS compresses and purges: a third of the whole is what can be counted on
        free.append(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 3)
    limit, used = Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory.current")
    if limit.exists() and used.exists() and (text := limit.read_text().strip()) != "max":
        free.append(max(0, int(text) - int(used.read_text())))
    return min(free, default=None)


def choose_placement(source: FeatureSource, device: torch.device) -> tuple[Placement, str]:
    """What ``auto`` means here, with its reason in words for people.

    Main memory is shared out among the processes that torchrun started on this machine: each places its own.
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
    """A source with the same rows and the same bits, placed where ``placement`` says.

    Args:
        source: a store, or any other source that shall be read once and kept.
        placement: ``disk`` leaves it where it is; ``memory`` and ``device`` hold it whole there; ``auto``
            takes the fastest that fits, see `choose_placement`.

    Raises:
        CannotFinish: what was asked for by name does not fit; nothing is allocated then.
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
