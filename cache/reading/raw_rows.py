"""Reads rows of uncompressed arrays from shard files into given memory and checks each row.

A shard of such an array consists of its rows and an index at the end: offset and length of each row as
little-endian 64-bit numbers, then their CRC-32C (Zarr's ``sharding_indexed``). One copy from the page cache
plus a checksum of the copied bytes is cheaper than the decoding of a general reader.
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
    """Folder of the group."""
    array: ArrayLayout
    shard_rows: int
    crc32c: Any
    """Function: row of the group -> CRC-32C of its values."""
    _offsets: dict[int, tuple[int | None, ...]] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def read(self, wanted: Iterable[tuple[int, Tensor]]) -> list[int]:
        """Fill a tensor for each row.

        Args:
            wanted: rows of the group, each with the contiguous tensor that takes its values.

        Returns:
            The positions in ``wanted`` whose values are missing or damaged.
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
            if broken:  # a repaired file may have other offsets
                with self._lock:
                    self._offsets.pop(shard, None)
        return broken

    def _read_row(self, file: Any, offset: int | None, row: int, out: Tensor) -> bool:
        if offset is None:
            return False
        values = out.numpy()
        file.seek(offset)
        if file.readinto(values.data.cast("B")) != values.nbytes:
            return False
        values.flags.writeable = False  # the C function accepts only read-only buffers
        return bool(google_crc32c.value(values) == self.crc32c(row))

    def _index(self, shard: int, file: Any) -> tuple[int | None, ...]:
        """Offset of each row, None for an offset outside the file; checksums reveal other damage."""
        with self._lock:
            if shard in self._offsets:
                return self._offsets[shard]
        size = self.shard_rows * ENTRY
        end = file.seek(-size - CHECKSUM, 2)
        entries = struct.unpack(f"<{2 * self.shard_rows}Q", file.read(size))
        # the offset of a row that was never written is larger than any file
        offsets = tuple(offset if offset < end else None for offset in entries[::2])
        with self._lock:
            self._offsets[shard] = offsets
        return offsets


@dataclass(frozen=True)
class RowObjects:
    """As `RowFiles`, for shards in an object store: one request per row, several of them concurrently."""

    files: RowFiles
    requests: ThreadPoolExecutor

    def read(self, wanted: Iterable[tuple[int, Tensor]]) -> list[int]:
        """Fill a tensor for each row; see `RowFiles.read`."""
        broken = self.requests.map(self.files.read, ([item] for item in wanted))
        return [place for place, wrong in enumerate(broken) if wrong]
