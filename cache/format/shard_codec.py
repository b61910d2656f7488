"""Encodes the rows of one shard to files, one per array, in memory; each is written atomically."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np
import numpy.typing as npt
import tensorstore as ts

from cache.format.layout import ArrayLayout
from cache.format.sealed_files import FileRecord, write_file

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class ShardValues:
    """The rows ``start`` to ``stop`` of every array of a group, by the array's name."""

    shard: int
    start: int
    stop: int
    arrays: Mapping[str, Array]


def row_checksums(rows: Array) -> tuple[int, ...]:
    """CRC-32C of each row's bytes in memory."""
    view = rows.reshape(len(rows), -1).view()
    view.flags.writeable = False  # the C function accepts only read-only buffers
    return tuple(google_crc32c.value(row) for row in view)


def memory_array(array: ArrayLayout, rows: int, shard_rows: int) -> Any:
    """The Zarr array as an empty tensorstore in its own memory store."""
    context = ts.Context()
    spec = {
        "driver": "zarr3",
        "kvstore": {"driver": "memory", "path": f"{array.name}/"},
        "metadata": array.metadata(rows, shard_rows),
        "create": True,
        # store empty masks explicitly: a missing chunk counts as damage
        "store_data_equal_to_fill_value": True,
        "fill_missing_data_reads": False,
    }
    return ts.open(spec, context=context).result()


def encode_shard_file(array: ArrayLayout, rows: int, shard_rows: int, shard: int, values: Array) -> bytes:
    """The bytes of one shard file: a function of the values only, so that a rebuilt shard is identical.

    Args:
        rows: rows of the whole array.
        values: the shard's rows, of the array's dtype and row shape.
    """
    assert values.shape[1:] == array.row_shape, (values.shape, array)
    assert values.dtype == np.dtype(array.dtype), (values.dtype, array)
    target = memory_array(array, rows, shard_rows)
    start = shard * shard_rows
    target[start : start + len(values)].write(values).result()
    key = array.shard_file(shard).removeprefix(f"{array.name}/")
    data: bytes = target.kvstore.read(key).result().value
    return data


def decode_shard_file(
    array: ArrayLayout, rows: int, shard_rows: int, shard: int, data: bytes
) -> list[Array | None]:
    """The values of each row in a shard file's bytes; None for a row that cannot be decoded."""
    source = memory_array(array, rows, shard_rows)
    key = array.shard_file(shard).removeprefix(f"{array.name}/")
    source.kvstore.write(key, data).result()
    start = shard * shard_rows
    reads = [source[row].read() for row in range(start, min(start + shard_rows, rows))]
    values: list[Array | None] = []
    for read in reads:
        try:
            values.append(np.asarray(read.result()))
        except (ValueError, OSError, RuntimeError):  # tensorstore's exception depends on the kind of damage
            values.append(None)
    return values


def write_shard(
    folder: Path, layouts: tuple[ArrayLayout, ...], rows: int, shard_rows: int, values: ShardValues
) -> tuple[dict[str, FileRecord], dict[str, tuple[int, ...]]]:
    """Write the files of one shard; returns their records and the CRC-32C of each array's rows."""
    files: dict[str, FileRecord] = {}
    checks: dict[str, tuple[int, ...]] = {}
    for array in layouts:
        part = np.ascontiguousarray(values.arrays[array.name])
        data = encode_shard_file(array, rows, shard_rows, values.shard, part)
        name = array.shard_file(values.shard)
        write_file(folder / name, data)
        files[name] = FileRecord.of(data)
        checks[array.name] = row_checksums(part)
    return files, checks
