"""Where everything in a store lies: names of files and arrays, chunk and shard sizes, Zarr metadata.

    STORE/
      zarr.json  manifest.json  teacher.safetensors        what all groups share
      <category>/zarr.json
      <category>/<split>/
        zarr.json  manifest.json                           what this group promises, written last
        layer1 layer2 layer3   float16 [N,V,C,h,w]         one row (an object, all its views) is one chunk
          (or uint8, each with a scale: layer1_scale float16 [N,C]; a feature is level times scale)
        images                 uint8   [N,V,3,S,S]
        masks                  bool    [N,V,S,S]
        view_mask labels       bool    [N,V]
          zarr.json  c/<shard>/0/...                       one file per array and shard

Every array of a group has the same rows per shard, so shard ``i`` is one file of each array.
"""

import json
import math
import sys
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, overload

from cache.format.object_store import StorePath
from idif.data.features import FeatureSpec
from idif.data.index import Split
from idif.errors import StoreError

FORMAT = 1
"""Version of everything written here; a store of another version is refused, never guessed at."""

ZARR_JSON = "zarr.json"
MANIFEST = "manifest.json"
TEACHER = "teacher.safetensors"
JOURNAL = "build.jsonl"
PENDING = "building.json"
LOCK = "build.lock"
TEMPORARY = ".tmp"
"""Suffix of a file while it is being written; nothing ever reads one."""

SPLITS: tuple[Split, ...] = ("train", "test")
MAX_SHARD_ROWS = 32
MAX_SHARD_BYTES = 128 * 2**20
"""Upper bound of the largest array's shard: large for sequential reading, small to rebuild or resend."""

TRUTH = ("view_mask", "labels")
"""Arrays for other readers: here the manifest's index says the same."""

_LITTLE = {"name": "bytes", "configuration": {"endian": "little"}}


@dataclass(frozen=True, order=True)
class GroupName:
    """One category and split, ordered as a store lists them: by category, train before test."""

    category: str
    order: int
    """Position of the split in `SPLITS`."""

    @classmethod
    def of(cls, category: str, split: Split) -> "GroupName":
        """The group of a sample."""
        return cls(category, SPLITS.index(split))

    @property
    def split(self) -> Split:
        """``train`` or ``test``."""
        return SPLITS[self.order]

    def __str__(self) -> str:
        return f"{self.category}/{self.split}"


@dataclass(frozen=True)
class ArrayLayout:
    """One array of a group, apart from its number of rows."""

    name: str
    dtype: str
    row_shape: tuple[int, ...]
    dimensions: tuple[str, ...]
    codecs: tuple[dict[str, Any], ...]
    """Codecs of one row's chunk. Raw where speed counts: the manifest keeps a CRC-32C per row, which a
    reader checks several times faster than a checksum codec inside the shard."""
    per_row: bool = True
    """Whether a shard holds one chunk per row; else all its rows are a single chunk."""
    scale: str | None = None
    """The array whose values these levels are to be multiplied by, named in the array's attributes."""

    @property
    def raw(self) -> bool:
        """Whether a row lies in its shard as it lies in memory."""
        native = sys.byteorder == "little" or self.dtype != "float16"
        return self.per_row and native and all(codec["name"] == "bytes" for codec in self.codecs)

    @property
    def row_bytes(self) -> int:
        """Bytes of one row before compression."""
        width = {"float16": 2, "uint8": 1, "bool": 1}[self.dtype]
        return width * math.prod(self.row_shape)

    def shard_file(self, shard: int) -> str:
        """Path of a shard relative to the group (Zarr v3's default chunk key)."""
        return "/".join([self.name, "c", str(shard), *("0" for _ in self.row_shape)])

    def metadata(self, rows: int, shard_rows: int) -> dict[str, Any]:
        """The array's ``zarr.json``."""
        codecs: list[dict[str, Any]] = list(self.codecs)
        if self.per_row:
            index_codecs = [_LITTLE, {"name": "crc32c"}]
            sharding = {
                "chunk_shape": [1, *self.row_shape],
                "codecs": codecs,
                "index_codecs": index_codecs,
                "index_location": "end",
            }
            codecs = [{"name": "sharding_indexed", "configuration": sharding}]
        chunks = {"chunk_shape": [shard_rows, *self.row_shape]}
        return {
            "zarr_format": 3,
            "node_type": "array",
            "shape": [rows, *self.row_shape],
            "data_type": self.dtype,
            "chunk_grid": {"name": "regular", "configuration": chunks},
            "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
            # NaN is the only honest fill for a float: zeros would pass for features
            "fill_value": {"float16": "NaN", "uint8": 0, "bool": False}[self.dtype],
            "codecs": codecs,
            "attributes": {} if self.scale is None else {"scale": self.scale},
            "dimension_names": ["row", *self.dimensions],
        }


def array_layouts(spec: FeatureSpec, views: int) -> tuple[ArrayLayout, ...]:
    """The arrays of every group of a store: layers, their scales, images, masks, view_mask and labels."""
    size = spec.image_size
    raw: tuple[dict[str, Any], ...] = (_LITTLE,)
    byte: dict[str, Any] = {"name": "bytes"}
    # masks are nearly all zeros: compression makes them vanish
    zstd = {"name": "zstd", "configuration": {"level": 1, "checksum": False}}
    assert spec.storage != "float32", "a store keeps float16 or uint8"
    compact = spec.storage == "uint8"
    layers = []
    scales = []
    for layer in spec.layers:
        shape, dimensions = (views, *spec.shape(layer)), ("view", "channel", "h", "w")
        if compact:
            scale = scale_name(layer.name)
            layers.append(ArrayLayout(layer.name, "uint8", shape, dimensions, (byte,), scale=scale))
            # a few hundred bytes a row: a chunk for all rows of a shard is read once and then cached
            scales.append(ArrayLayout(scale, "float16", (layer.channels,), ("channel",), raw, per_row=False))
        else:
            layers.append(ArrayLayout(layer.name, "float16", shape, dimensions, raw))
    return (
        *layers,
        *scales,
        ArrayLayout("images", "uint8", (views, 3, size, size), ("view", "rgb", "y", "x"), (byte,)),
        ArrayLayout("masks", "bool", (views, size, size), ("view", "y", "x"), (byte, zstd)),
        ArrayLayout("view_mask", "bool", (views,), ("view",), (byte,), per_row=False),
        ArrayLayout("labels", "bool", (views,), ("view",), (byte,), per_row=False),
    )


def scale_name(layer: str) -> str:
    """The array that holds a layer's scales in a ``uint8`` store."""
    return f"{layer}_scale"


def choose_shard_rows(arrays: tuple[ArrayLayout, ...]) -> int:
    """Rows per shard: a power of two within `MAX_SHARD_ROWS` and `MAX_SHARD_BYTES`."""
    fitting = max(1, MAX_SHARD_BYTES // max(array.row_bytes for array in arrays))
    return int(min(MAX_SHARD_ROWS, 2 ** int(math.log2(fitting))))


def shard_bounds(rows: int, shard_rows: int) -> list[tuple[int, int]]:
    """(start, stop) of every shard of a group of ``rows`` rows."""
    return [(start, min(start + shard_rows, rows)) for start in range(0, rows, shard_rows)]


def json_bytes(value: Any) -> bytes:
    """Metadata as it is written: the same bytes for the same value."""
    return (json.dumps(value, indent=1, sort_keys=True) + "\n").encode()


def group_metadata(*, root: bool = False) -> bytes:
    """The ``zarr.json`` of a group; the root's carries a mark by which a store is known."""
    attributes = {"idif_store": FORMAT} if root else {}
    return json_bytes({"zarr_format": 3, "node_type": "group", "attributes": attributes})


def check_category(name: str) -> None:
    """Refuse a category that cannot be one folder's name on every system.

    Raises:
        StoreError: the name is empty, reserved, or holds a separator, a control or another unsafe character.
    """
    reserved = {ZARR_JSON, MANIFEST, TEACHER, PENDING, LOCK, "c"}
    unsafe = any(ord(ch) < 32 or ch in '/\\:*?"<>|' for ch in name)
    if not name or name in reserved or name[0] == "." or name[-1] in ". " or unsafe or len(name) > 100:
        raise StoreError(f"category {name!r}: expected a name that can be a folder's name on every system")
    assert PurePosixPath(name).parts == (name,)


@overload
def group_folder(store: Path, group: GroupName) -> Path: ...
@overload
def group_folder(store: StorePath, group: GroupName) -> StorePath: ...
def group_folder(store: StorePath, group: GroupName) -> StorePath:
    """Where a group lies."""
    return store / group.category / group.split
