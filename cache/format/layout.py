"""Layout of a store: names of files and arrays, chunk and shard sizes, Zarr metadata.

    STORE/
      zarr.json  manifest.json  teacher.safetensors        shared by all groups; the first encoder's weights
      <encoder>.safetensors                                weights of every further encoder
      <category>/zarr.json
      <category>/<split>/
        zarr.json  manifest.json                           contents of this group, written last; then the
                                                           root's manifest, which lists the finished groups
        layer1 layer2 layer3   float16 [N,V,C,h,w]         the encoders' arrays, float32 if requested; one
          ...                          [N,(A,)(V,)...]     row (a sample: all variants and views) is one chunk
          (or uint8, signed arrays int8, each with scales: layer1_scale float16 [N,C]; a feature is level
          times scale, see `cache.format.quantize`)
        images                 uint8   [N,V,3,S,S]         if the store contains images
        masks                  bool    [N,V,S,S]           if samples have images
        view_mask labels       bool    [N,V]               if samples have views
        present_<input>        bool    [N]                 for each per-sample input
        sample_labels          bool    [N]                 if samples have their own class
          zarr.json  c/<shard>/0/...                       one file per array and shard

Every array of a group has the same rows per shard, so shard ``i`` is one file of each array.
"""

import json
import math
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, overload

from cache.format.object_store import StorePath
from idif.data.arrays import DATA, VARIANT, ArraySpec
from idif.data.features import MASKS, WEIGHTS_SUFFIX, FeatureSpec
from idif.data.index import SPLITS, Index, Split
from idif.errors import ConfigError, StoreError
from idif.paths import is_portable_name, shown

FORMAT = 1
"""Version of the format; stores of other versions are refused."""

ZARR_JSON = "zarr.json"
MANIFEST = "manifest.json"
JOURNAL = "build.jsonl"
PENDING = "building.json"
LOCK = "build.lock"

MAX_SHARD_ROWS = 32
MAX_SHARD_BYTES = 128 * 2**20
"""Maximum shard size: large enough for sequential reading, small enough to rebuild or upload again."""

VIEW_MASK, LABELS, SAMPLE_LABELS = "view_mask", "labels", "sample_labels"

WIDTHS = {"float32": 4, "float16": 2, "uint8": 1, "int8": 1, "bool": 1}
"""Type in a store -> bytes of one value."""
# NaN as fill value of floats: zeros could be mistaken for features
_FILLS = {"float32": "NaN", "float16": "NaN", "uint8": 0, "int8": 0, "bool": False}

_LITTLE = {"name": "bytes", "configuration": {"endian": "little"}}
_BYTE: dict[str, Any] = {"name": "bytes"}


@dataclass(frozen=True, order=True)
class GroupName:
    """One category and split; ordered by category, then by `SPLITS`, as in a store."""

    category: str
    order: int
    """Position of the split in `SPLITS`."""

    @classmethod
    def of(cls, category: str, split: Split) -> "GroupName":
        """The group of the samples of a category and split, both checked: they become folders.

        Raises:
            StoreError: as `check_category`, or there is no such split.
        """
        check_category(category)
        if split not in SPLITS:
            raise StoreError(f"split {shown(split)}: expected {' or '.join(SPLITS)}")
        return cls(category, SPLITS.index(split))

    @classmethod
    def parse(cls, text: str) -> "GroupName":
        """The group of ``category/split``; raises as `of`."""
        category, _, split = text.partition("/")
        if split not in SPLITS:
            raise StoreError(f"{shown(text)}: expected <category>/train or <category>/test")
        return cls.of(category, split)

    @property
    def split(self) -> Split:
        """``train``, ``val`` or ``test``."""
        return SPLITS[self.order]

    def __str__(self) -> str:
        return f"{self.category}/{self.split}"


@dataclass(frozen=True)
class ArrayLayout:
    """One array of a group, without its number of rows."""

    name: str
    dtype: str
    row_shape: tuple[int, ...]
    dimensions: tuple[str, ...]
    codecs: tuple[dict[str, Any], ...]
    """Codecs of one row's chunk. Large arrays are raw for speed: the manifest contains a CRC-32C per
    row, which a reader checks several times faster than a checksum codec inside the shard."""
    per_row: bool = True
    """Whether a shard has one chunk per row; otherwise all its rows are a single chunk."""
    scale: str | None = None
    """Name of the array with the scales of these levels, recorded in the array's attributes."""

    @property
    def raw(self) -> bool:
        """Whether rows are stored uncompressed, with the same bytes as in memory."""
        native = sys.byteorder == "little" or WIDTHS[self.dtype] == 1
        return self.per_row and native and all(codec["name"] == "bytes" for codec in self.codecs)

    @property
    def row_bytes(self) -> int:
        """Bytes of one row before compression."""
        return WIDTHS[self.dtype] * math.prod(self.row_shape)

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
            "fill_value": _FILLS[self.dtype],
            "codecs": codecs,
            "attributes": {} if self.scale is None else {"scale": self.scale},
            "dimension_names": ["row", *self.dimensions],
        }


def value_layouts(spec: FeatureSpec, views: int) -> tuple[ArrayLayout, ...]:
    """The arrays read by `FeatureStore`: the encoders' arrays, their scales, images and masks."""
    names = spec.variants
    features, scales = [], []
    for array in spec.features.values():
        shape, dimensions = array.row_shape(views, len(names)), _dimensions(array)
        kept = stored_type(array, spec)
        scale = None if kept in (array.dtype, "float16", "float32") else scale_name(array.name)
        codecs = (_LITTLE if WIDTHS[kept] > 1 else _BYTE,)
        features.append(ArrayLayout(array.name, kept, shape, dimensions, codecs, scale=scale))
        if scale is not None:
            axes = scaled_axes(array)
            # a few hundred bytes per row: one chunk for all rows of a shard is read once and then cached
            own = tuple(shape[axis] for axis in axes), tuple(dimensions[axis] for axis in axes)
            scales.append(ArrayLayout(scale, "float16", *own, (_LITTLE,), per_row=False))
    # masks are nearly all zeros and compress to almost nothing
    zstd = {"name": "zstd", "configuration": {"level": 1, "checksum": False}}
    pixels = [
        ArrayLayout(
            array.name,
            array.dtype,
            array.row_shape(views, len(names)),
            array.axes,
            (_BYTE, zstd) if array.name == MASKS else (_BYTE,),
        )
        for array in spec.arrays.values()
        if array.origin == DATA
    ]
    return (*features, *scales, *pixels)


def truth_layouts(spec: FeatureSpec, index: Index) -> tuple[ArrayLayout, ...]:
    """Presence and label arrays, for other readers; `FeatureStore` uses the manifest's index instead."""
    views = len(index.view_numbers)
    per_view = [VIEW_MASK, LABELS] if views else []
    per_sample = [present_name(name) for name in spec.inputs]
    if any(sample.sample_class is not None for sample in index.samples):
        per_sample.append(SAMPLE_LABELS)
    return (
        *(ArrayLayout(n, "bool", (views,), ("view",), (_BYTE,), per_row=False) for n in per_view),
        *(ArrayLayout(n, "bool", (), (), (_BYTE,), per_row=False) for n in per_sample),
    )


def stored_type(array: ArraySpec, spec: FeatureSpec) -> str:
    """Storage type of an encoder's array; only floating-point values are converted, if not exact."""
    if array.exact or not array.dtype.startswith("float"):
        return array.dtype
    if spec.storage == "uint8" and array.signed:
        return "int8"
    return spec.storage


def scaled_axes(array: ArraySpec) -> tuple[int, ...]:
    """Positions, in one sample's array, of the axes along which each position has its own scale."""
    axes = [VARIANT] if array.has_variants else []
    if array.own_axes:
        axes.append("channel" if "channel" in array.own_axes else array.own_axes[-1])
    return tuple(array.axes.index(axis) for axis in axes)


def _dimensions(array: ArraySpec) -> tuple[str, ...]:
    """Axis names of an encoder's array, in which ``y x`` of feature maps differ from those of the pixels."""
    return tuple({"y": "h", "x": "w"}.get(axis, axis) for axis in array.axes)


def scale_name(array: str) -> str:
    """Name of the array with an array's scales in a ``uint8`` store."""
    return f"{array}_scale"


def present_name(input_name: str) -> str:
    """Name of the array with the presence of an input."""
    return f"present_{input_name}"


def check_names(spec: FeatureSpec) -> None:
    """Refuse encoders whose arrays or weights would have the same name in a store.

    Raises:
        ConfigError: gives the first duplicate name and its owners.
    """
    owners: dict[str, str] = {}
    for name, owner in _names(spec):
        if name in owners:
            raise ConfigError(
                f"encoder: both {owners[name]} and {owner} have an array or file named {name!r}"
            )
        owners[name] = owner


def _names(spec: FeatureSpec) -> Iterator[tuple[str, str]]:
    """Every name in a store that an encoder's could collide with, with its owner."""
    for name in (ZARR_JSON, MANIFEST, JOURNAL, VIEW_MASK, LABELS, SAMPLE_LABELS, "rows"):
        yield name, "the store"
    for array in spec.arrays.values():
        if array.origin == DATA:
            yield array.name, "the data"
    for name in spec.inputs:
        yield present_name(name), "the data"
    for encoder, file in zip(spec.encoders, spec.weights_files, strict=True):
        yield file, encoder.name
        for array in encoder.arrays:
            yield array.name, encoder.name
            yield scale_name(array.name), encoder.name


def choose_shard_rows(arrays: tuple[ArrayLayout, ...]) -> int:
    """Rows per shard: a power of two within `MAX_SHARD_ROWS` and `MAX_SHARD_BYTES`."""
    fitting = max(1, MAX_SHARD_BYTES // max(array.row_bytes for array in arrays))
    return int(min(MAX_SHARD_ROWS, 2 ** int(math.log2(fitting))))


def shard_bounds(rows: int, shard_rows: int) -> list[tuple[int, int]]:
    """(start, stop) of every shard of a group of ``rows`` rows."""
    return [(start, min(start + shard_rows, rows)) for start in range(0, rows, shard_rows)]


def json_bytes(value: Any) -> bytes:
    """Serialize metadata deterministically."""
    return (json.dumps(value, indent=1, sort_keys=True) + "\n").encode()


def group_metadata(*, root: bool = False) -> bytes:
    """The ``zarr.json`` of a group; that of the root contains the mark of a store."""
    attributes = {"idif_store": FORMAT} if root else {}
    return json_bytes({"zarr_format": 3, "node_type": "group", "attributes": attributes})


def check_category(name: str) -> None:
    """Refuse a category that cannot be a folder of a store on every system.

    Raises:
        StoreError: the name is not portable (`idif.paths.is_portable_name`), or that of a store's own file.
    """
    reserved = name in {ZARR_JSON, MANIFEST, PENDING, LOCK, "c"} or name.endswith(WEIGHTS_SUFFIX)
    if reserved or not is_portable_name(name):
        raise StoreError(
            f"category {shown(name)}: expected a name that can be a folder's name on every system"
        )


@overload
def group_folder(store: Path, group: GroupName) -> Path: ...
@overload
def group_folder(store: StorePath, group: GroupName) -> StorePath: ...
def group_folder(store: StorePath, group: GroupName) -> StorePath:
    """Folder of a group."""
    return store / group.category / group.split
