"""`FeatureStore`: opens a finished, undamaged store and reads whole samples in any order."""

import threading
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Self, TypeVar

import google_crc32c
import numpy as np
import tensorstore as ts
import torch
from torch import Tensor
from torch.utils.data import Dataset

from cache.format.encoder_weights import load_encoder_set
from cache.format.layout import ArrayLayout, present_name, scale_name, value_layouts
from cache.format.manifest import RootManifest
from cache.format.object_store import REQUESTS, StorePath
from cache.format.row_spans import spans_of_rows
from cache.reading.codec_arrays import fetch_array, open_array
from cache.reading.open_groups import OpenGroup, open_store, store_fingerprint, was_replaced
from cache.reading.packed_batch import PackedBatch, check_variants
from cache.reading.raw_rows import RowFiles, RowObjects
from idif.data.batch import Batch, make_batch
from idif.data.features import FeatureSpec
from idif.data.index import SPLITS, Index, Split, check_rows, concatenate
from idif.encoders.encode import EncoderSet
from idif.errors import StoreDamaged, WeightsError
from idif.fingerprint import digest
from idif.prefetch import prefetch_map

T = TypeVar("T")

CACHE_BYTES = 64 * 2**20
"""Size of tensorstore's cache, which avoids repeated reads of scales and indexes of compressed shards."""
READERS = 2
"""Number of batches that `FeatureStore.batches` reads concurrently."""
READ_AHEAD = 3
"""Batches prefetched besides the current one; bounds the memory of `batches`."""


class FeatureStore(Dataset[dict[str, Tensor]]):
    """A `FeatureSource` over finished groups of a store: CPU tensors, features as float16 or float32.

    It is also a map-style dataset for `torch.utils.data.DataLoader`: ``store[row]`` is one sample.

    Opening reads manifests and file sizes, no data. Every read checks each row's CRC-32C. Nothing is ever
    written. Pickled by its path, so that spawned workers reopen it; open it after a fork, not before.

    A row is one chunk of each array, with all its variants: reading one variant reads all of them from the
    disk, but batches contain only the selected one.
    """

    def __init__(
        self, path: StorePath, root: RootManifest, groups: Sequence[OpenGroup], opened_with: tuple[Any, ...]
    ) -> None:
        """For `open`."""
        self.path = path
        self._spec, self._groups, self._opened_with = root.spec, list(groups), opened_with
        self._index = concatenate([group.manifest.plan.index for group in groups])
        lengths = [len(group.manifest.plan.index) for group in groups]
        self._starts = [0, *np.cumsum(lengths)[:-1].tolist()]
        arrays = value_layouts(root.spec, len(root.view_numbers))
        self._arrays = {array.name: array for array in arrays}
        self._handles: dict[tuple[int, str], Any] = {}
        self._files: dict[tuple[int, str], RowFiles | RowObjects] = {}
        self._opening = threading.Lock()

    @classmethod
    def open(
        cls,
        path: str | StorePath,
        categories: Sequence[str] | None = None,
        split: Split | Sequence[Split] | None = None,
    ) -> Self:
        """Open a store, or the groups of some categories and splits of it.

        Args:
            path: a folder, or ``s3://BUCKET/PREFIX`` as text.
            categories: all when None.
            split: one split or several; all when None.

        Raises:
            StoreError: not a store, or a requested category or split is missing (nearest names listed).
            StoreIncomplete: a requested group is not finished.
            StoreDamaged: a manifest or metadata differs from the written one, or a file is missing or cut.
        """
        splits: Sequence[Split] | None = (split,) if isinstance(split, str) else split
        store, root, groups = open_store(path, categories, splits)
        opened_with = (
            str(store),
            None if categories is None else tuple(categories),
            None if splits is None else tuple(splits),
        )
        return cls(store, root, groups, opened_with)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self).open, self._opened_with

    @property
    def spec(self) -> FeatureSpec:
        """The specification of its arrays."""
        return self._spec

    @property
    def index(self) -> Index:
        """Row -> sample: the concatenated groups, by category, in the order train, val, test."""
        return self._index

    @property
    def groups(self) -> tuple[OpenGroup, ...]:
        """The opened groups, in the order of their rows."""
        return tuple(self._groups)

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 (hex) over the spec's fingerprint and those of the opened groups."""
        return store_fingerprint(self._spec, self._groups)

    @cached_property
    def content_fingerprint(self) -> str:
        """SHA-256 (hex) over ids, cameras, classes and file contents of the samples."""
        return digest({str(group.manifest.plan.group): group.manifest.fingerprint for group in self._groups})

    def __len__(self) -> int:
        return len(self._index)

    def __getitem__(self, row: int) -> dict[str, Tensor]:
        """One sample as plain tensors, with the names of a `Batch` and the shapes of one of its samples.

        Returns:
            Every array of `spec`, ``rows`` int64 [], ``view_mask`` and ``labels`` bool [V], ``sample_labels``
            bool [], and ``present_<input>`` bool [] for each per-sample input; the plain variant only. The
            default collation of a `DataLoader` stacks them.

        Raises:
            The exceptions of `read`.
        """
        return self.__getitems__([row])[0]

    def __getitems__(self, rows: Sequence[int]) -> list[dict[str, Tensor]]:
        """Several samples as by `__getitem__`, read at once; used by `DataLoader` for batches."""
        batch = self.read(rows)
        tensors = batch.arrays | {
            "rows": batch.rows,
            "view_mask": batch.view_mask,
            "labels": batch.labels,
            "sample_labels": batch.sample_labels,
            **{present_name(name): present for name, present in batch.present.items()},
        }
        return [{name: x[i] for name, x in tensors.items()} for i in range(len(batch))]

    def __repr__(self) -> str:
        spec, index = self._spec, self._index
        splits = [split for split in SPLITS if any(s.split == split for s in index.samples)]
        arrays = "\n".join(
            f"  {array.name}: {array.dtype} {list(array.row_shape)} ({', '.join(array.dimensions)})"
            for array in self._arrays.values()
        )
        encoders = ", ".join(f"{e.name} ({e.weights} weights {e.weights_sha256[:12]})" for e in spec.encoders)
        files = (f for g in self._groups for shard in g.manifest.shards for f in shard.files.values())
        size = sum(file.size for file in files)
        return (
            f"FeatureStore({str(self.path)!r}): {len(index)} rows, {size:,} bytes\n"
            f"categories: {', '.join(index.categories)}; splits: {', '.join(splits)}; "
            f"views: {list(index.view_numbers)}\n"
            f"encoders: {encoders}\narrays of a row:\n{arrays}"
        )

    def encoder_set(self) -> EncoderSet:
        """The frozen encoders of the arrays, on the CPU, from the store's own copies of their weights.

        Raises:
            StoreDamaged: the weights differ from those of the build.
        """
        try:
            return load_encoder_set(self.path, self._spec)
        except WeightsError as error:
            raise StoreDamaged(str(error)) from None

    def read(self, rows: Sequence[int], variants: Sequence[int] | None = None) -> Batch:
        """Read the given rows, in order; a row may occur more than once.

        Args:
            variants: the variant of each row; the plain one (0) when None.

        Raises:
            IndexError: a row is not in the index, or there is no such variant.
            StoreDamaged: a chunk is missing or damaged; its row, sample and file are named.
        """
        chosen = check_variants(self._spec, rows, variants)
        return self.read_packed(rows).unpack(None if chosen is None else torch.tensor(chosen))

    def read_packed(self, rows: Sequence[int]) -> PackedBatch:
        """As `read`, with all variants and features in their stored form."""
        plain = check_rows(self._index, rows)
        return self._pack(plain, self._room(len(plain)))

    def _pack(self, plain: list[int], tensors: dict[str, Tensor]) -> PackedBatch:
        self._fill(plain, tensors)
        arrays = {name: tensors[name] for name in self._spec.arrays}
        scales = {name: tensors[s] for name in self._spec.features if (s := scale_name(name)) in tensors}
        return PackedBatch(
            make_batch(self._index, plain, arrays, self._spec.inputs), scales, self._spec.features
        )

    def read_arrays(self, rows: Sequence[int]) -> dict[str, Tensor]:
        """Read the stored values of the given rows, by array; presence and labels are in `index`.

        Raises:
            The exceptions of `read`.
        """
        plain = check_rows(self._index, rows)
        tensors = self._room(len(plain))
        self._fill(plain, tensors)
        return tensors

    def _room(self, rows: int) -> dict[str, Tensor]:
        return {name: _empty(array, rows) for name, array in self._arrays.items()}

    def _fill(self, plain: list[int], tensors: dict[str, Tensor]) -> None:
        """Read the given rows of every array into ``tensors``; raises as `read`."""
        groups: dict[int, list[tuple[int, int]]] = {}
        for position, row in enumerate(plain):
            group, local = self._place(row)
            groups.setdefault(group, []).append((position, local))
        broken: dict[int, str] = {}
        for group, places in groups.items():
            for name, tensor in tensors.items():
                if self._arrays[name].raw:
                    wrong = self._row_files(group, name).read((local, tensor[at]) for at, local in places)
                else:
                    wrong = self._decode(group, name, places, tensor)
                for place in wrong:
                    broken.setdefault(places[place][0], name)
        if broken:
            raise StoreDamaged(self._describe(plain, broken))

    def batches(
        self, order: Sequence[int], batch_size: int, variants: Sequence[int] | None = None
    ) -> Iterator[Batch]:
        """Batches of the rows of ``order``, read ahead in threads; see `FeatureSource.batches`.

        At most `READ_AHEAD` batches are in memory besides the current one. Raises as `read`, at the batch.
        """
        chosen = check_variants(self._spec, order, variants)

        def read(part: tuple[int, list[int], dict[str, Tensor]]) -> Batch:
            start, rows, room = part
            own = None if chosen is None else torch.tensor(chosen[start : start + len(rows)])
            return self._pack(rows, room).unpack(own)

        return self._ahead(read, order, batch_size)

    def packed_batches(self, order: Sequence[int], batch_size: int) -> Iterator[PackedBatch]:
        """As `batches`, with all variants and features in their stored form."""
        return self._ahead(lambda part: self._pack(*part[1:]), order, batch_size)

    def _ahead(
        self,
        read: Callable[[tuple[int, list[int], dict[str, Tensor]]], T],
        order: Sequence[int],
        batch_size: int,
    ) -> Iterator[T]:
        """Results of ``read``, called ahead in threads with each batch's position, rows and memory."""
        assert batch_size > 0, batch_size
        plain = check_rows(self._index, order)
        parts = ((start, plain[start : start + batch_size]) for start in range(0, len(plain), batch_size))
        # memory is allocated in the caller's thread: memory allocated by a worker thread would be returned to
        # the system after every batch, and cleared again for the next
        rooms = ((start, part, self._room(len(part))) for start, part in parts)
        return prefetch_map(read, rooms, workers=READERS, depth=READ_AHEAD)

    def _place(self, row: int) -> tuple[int, int]:
        group = bisect_right(self._starts, row) - 1
        return group, row - self._starts[group]

    def _decode(self, group: int, name: str, places: list[tuple[int, int]], out: Tensor) -> list[int]:
        """Read rows of an array with codecs; returns the positions that are damaged or missing."""
        handle, crc32c = self._handle(group, name), partial(self._groups[group].manifest.crc32c, name)
        # first one request for all rows, which tensorstore distributes over its threads
        positions, locals_ = [list(part) for part in zip(*places, strict=True)]
        unreadable = []
        try:
            ts.array(out.numpy())[positions].write(handle[locals_]).result()
        except (ValueError, OSError, RuntimeError):  # tensorstore's exception depends on the kind of damage
            for place, (position, local) in enumerate(places):
                try:
                    out[position] = torch.from_numpy(handle[local].read().result())
                except (ValueError, OSError, RuntimeError):
                    unreadable.append(place)
        wrong = [i for i, (at, local) in enumerate(places) if _crc32c(out[at]) != crc32c(local)]
        return sorted({*unreadable, *wrong})

    def _row_files(self, group: int, name: str) -> RowFiles | RowObjects:
        key = group, name
        with self._opening:
            if key not in self._files:
                opened = self._groups[group]
                promised = partial(opened.manifest.crc32c, name)
                shard_rows = opened.manifest.plan.shard_rows
                files = RowFiles(opened.folder, self._arrays[name], shard_rows, promised)
                local = isinstance(opened.folder, Path)
                self._files[key] = files if local else RowObjects(files, self._requests)
            return self._files[key]

    def _handle(self, group: int, name: str) -> Any:
        key = group, name
        with self._opening:
            if key not in self._handles:
                folder, plan = self._groups[group].folder, self._groups[group].manifest.plan
                self._handles[key] = (
                    open_array(folder / name, self._context)
                    if isinstance(folder, Path)
                    else fetch_array(folder, self._arrays[name], plan, self._requests)
                )
            return self._handles[key]

    @cached_property
    def _context(self) -> Any:
        return ts.Context({"cache_pool": {"total_bytes_limit": CACHE_BYTES}})

    @cached_property
    def _requests(self) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(REQUESTS, thread_name_prefix="requests")

    def _describe(self, rows: list[int], broken: dict[int, str]) -> str:
        first = min(broken)
        group, local = self._place(rows[first])
        opened = self._groups[group]
        array = self._arrays[broken[first]]
        file = opened.folder / array.shard_file(local // opened.manifest.plan.shard_rows)
        named = spans_of_rows(sorted({rows[position] for position in broken}))
        if was_replaced(self.path, opened):
            return f"{file}: was repaired or built again while the store was open; open it again"
        return (
            f"{file}: damaged or missing data in {named} "
            f"(sample {self._index.samples[rows[first]].sample_id}); "
            f"'idif cache verify' lists the damage, --repair mends it"
        )


def _empty(array: ArrayLayout, rows: int) -> Tensor:
    return torch.empty((rows, *array.row_shape), dtype=getattr(torch, array.dtype))


def _crc32c(row: Tensor) -> int:
    view = row.numpy().reshape(-1).view()
    view.flags.writeable = False  # the C function accepts only read-only buffers
    return int(google_crc32c.value(view))
