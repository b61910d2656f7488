"""Reads rows of uncompressed arrays from shard files into place and checks each.

A shard of such an array is its rows one after another and an index at the end: offset and length of each as
little-endian 64-bit numbers, then their CRC-32C (Zarr's ``sharding_indexed``). One copy from the page cache
and a checksum over what was just copied cost less than a general reader's decoding alone.
"""

import struct
import threading
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import google_crc32c
from torch import Tensor

from cache.format.layout import ArrayLayout
from cache.format.object_store import StorePath

ENTRY = 16
CHECKSUM = 4


@dataclass(frozen=True)
class RowFiles:
    """The shard files of one array of one group."""

    folder: StorePath
    """The group's."""
    array: ArrayLayout
    shard_rows: int
    crc32c: Any
    """Callable: row of the group -> CRC-32C of its values."""
    _offsets: dict[int, tuple[int | None, ...]] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def read(self, wanted: Iterable[tuple[int, Tensor]]) -> list[int]:
        """Fill a tensor for each row.

        Args:
            wanted: rows of the group, each with the contiguous tensor that takes its values.

        Returns:
            The places in ``wanted`` whose values are missing or not what was written.
        """
        shards: dict[int, list[tuple[int, int, Tensor]]] = {}
        for place, (row, out) in enumerate(wanted):
            shards.setdefault(row // self.shard_rows, []).append((place, row, out))
        broken = []
        for shard, rows in shards.items():
            try:
                with (self.folder / self.array.shard_file(shard)).open("rb", buffering=0) as file:
                    offsets = self._index(shard, file)
                    for place, row, out in rows:
                        if not self._read_row(file, offsets[row % self.shard_rows], row, out):
                            broken.append(place)
            except OSError:
                broken += [place for place, _, _ in rows]
        return broken

    def _read_row(self, file: Any, offset: int | None, row: int, out: Tensor) -> bool:
        if offset is None:
            return False
        values = out.numpy()
        file.seek(offset)
        if file.readinto(values.data.cast("B")) != values.nbytes:
            return False
        values.flags.writeable = False  # the C function takes nothing that could change under it
        return bool(google_crc32c.value(values) == self.crc32c(row))

    def _index(self, shard: int, file: Any) -> tuple[int | None, ...]:
        """Where each row begins, None where that is not in the file; other faults show in the checksums."""
        with self._lock:
            if shard in self._offsets:
                return self._offsets[shard]
        size = self.shard_rows * ENTRY
        end = file.seek(-size - CHECKSUM, 2)
        entries = struct.unpack(f"<{2 * self.shard_rows}Q", file.read(size))
        # a row that was never written has an offset beyond every file
        offsets = tuple(offset if offset < end else None for offset in entries[::2])
        with self._lock:
            self._offsets[shard] = offsets
        return offsets


@dataclass(frozen=True)
class RowObjects:
    """As `RowFiles` for shards in an object store: a row is a request, several of them under way at once."""

    files: RowFiles
    requests: ThreadPoolExecutor

    def read(self, wanted: Iterable[tuple[int, Tensor]]) -> list[int]:
        """Fill a tensor for each row; see `RowFiles.read`."""
        broken = self.requests.map(self.files.read, ([item] for item in wanted))
        return [place for place, wrong in enumerate(broken) if wrong]
