"""Exports a store to one HDF5 file that plain h5py reads, and imports it again with the same bytes.

/                              attribute idif_store: version of the format
  manifest.json                uint8: the root's manifest, byte for byte
  teacher.safetensors ...      uint8: the encoders' weights
  <category>/<split>/
    manifest.json              uint8
    layer1 ... masks labels    the arrays of `cache.format.layout`, under the same names
"""

import contextlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from cache.building.lock import builder_lock
from cache.format.layout import (
    FORMAT,
    LOCK,
    MANIFEST,
    ZARR_JSON,
    ArrayLayout,
    GroupName,
    group_folder,
    group_metadata,
)
from cache.format.manifest import GroupManifest, GroupPlan, RootManifest, ShardRecord
from cache.format.object_store import StorePath
from cache.format.sealed_files import FileRecord, make_folder, seal_of, unseal_bytes, write_file
from cache.format.shard_codec import Array, ShardValues, write_shard
from cache.reading.store import FeatureStore
from idif.data.features import MASKS
from idif.errors import StoreDamaged, StoreError
from idif.files import (
    SteadyFile,
    publish_folder,
    remove_file,
    remove_tree,
    require_space,
    temporary,
    write_json,
    writing,
)
from idif.hdf5_files import new_hdf5
from idif.locks import HOLDER
from idif.paths import shown
from idif.progress import Progress, silent

MARK = "idif_store"
IMPORTING = "importing.json"
"""File in the temporary folder of an import that names the store it becomes."""


def export_store(store: StorePath, out: Path, *, progress: Progress = silent) -> int:
    """Write every group of a store into one new HDF5 file, checking every row.

    Args:
        progress: called with the samples done.

    Returns:
        The file's size in bytes.

    Raises:
        StoreError: no store at ``store``, or ``out`` exists or cannot be written.
        CannotFinish: no space is left.
        StoreIncomplete, StoreDamaged: the store is unfinished or damaged; no file is left behind.
    """
    opened = FeatureStore.open(store)
    if out.exists():
        raise StoreError(f"{out}: is there already; expected the name of a new file")
    make_folder(out.parent)
    require_space(out.parent, _exported_bytes(opened), "the file")
    with new_hdf5(out, refused=StoreError) as (file, written):
        file.attrs[MARK] = FORMAT
        for name in (MANIFEST, *opened.spec.weights_files):
            file[name] = np.frombuffer((store / name).read_bytes(), np.uint8)
        _export_groups(opened, file, written, progress)
    return out.stat().st_size


def _exported_bytes(opened: FeatureStore) -> int:
    """Size of the arrays that are not compressed."""
    return sum(
        len(group.manifest.plan.index) * array.row_bytes
        for group in opened.groups
        for array in group.manifest.plan.array_layouts(opened.spec)
        if array.name != MASKS
    )


def _export_groups(opened: FeatureStore, file: Any, written: SteadyFile, progress: Progress) -> None:
    first = 0
    for group in opened.groups:
        plan = group.manifest.plan
        target = file.create_group(str(plan.group))
        target[MANIFEST] = np.frombuffer((group.folder / MANIFEST).read_bytes(), np.uint8)
        rows, arrays = len(plan.index), plan.array_layouts(opened.spec)
        for array in arrays:
            small = {"chunks": (1, *array.row_shape), "compression": 1} if array.name == MASKS else {}
            target.create_dataset(array.name, (rows, *array.row_shape), array.dtype, **small)
        for start, stop in plan.bounds:
            stored = opened.read_arrays(range(first + start, first + stop))
            values = {name: x.numpy() for name, x in stored.items()}
            values |= plan.truth_arrays(opened.spec, start, stop)
            for array in arrays:
                target[array.name][start:stop] = values[array.name]
            written.check()
            progress(first + stop, len(opened.index), str(plan.group))
        first += rows


def import_store(source: Path, store: Path, *, progress: Progress = silent) -> int:
    """Restore a store from a file written by `export_store`, checking every row against the manifest.

    The store is created atomically: built in a temporary folder beside it and renamed. A folder that a killed
    import left there says which store it was to be, and is removed.

    Args:
        progress: called with the samples done.

    Returns:
        The number of samples.

    Raises:
        StoreError: no such file, not an exported store, or ``store`` exists.
        StoreDamaged: a row or manifest differs from the exported one; it is named.
        CannotFinish: no space is left.
    """
    if store.exists() and not (store.is_dir() and not any(store.iterdir())):
        raise StoreError(f"{store}: is there already; expected a new folder")
    beside = temporary(store)
    try:
        file = h5py.File(source, "r")
    except OSError as error:
        raise StoreError(f"{source}: cannot be read as HDF5 ({error})") from None
    with file:
        if file.attrs.get(MARK) != FORMAT:
            raise StoreError(f"{source}: not a store that 'idif cache export' wrote (format {FORMAT})")
        make_folder(beside)
        own = False
        with writing(store, StoreError):
            try:
                with builder_lock(beside):
                    _remove_leftover(beside, store)
                    own = True
                    write_json(beside / IMPORTING, {"store": store.name})
                    samples = _import_groups(source, file, beside, progress)
                if store.exists():
                    store.rmdir()
                publish_folder(beside, store)
            except BaseException:
                if own:
                    with contextlib.suppress(OSError):
                        remove_tree(beside)
                raise
            remove_file(store / IMPORTING)  # last, so that every leftover has it
    return samples


def _remove_leftover(beside: Path, store: Path) -> None:
    """Remove what a killed import into the same store left behind.

    Raises:
        StoreError: the folder holds anything else.
    """
    there = [path for path in beside.iterdir() if path.name not in (LOCK, LOCK + HOLDER)]
    if not there:
        return
    try:
        meant = json.loads((beside / IMPORTING).read_bytes())["store"]
    except (OSError, ValueError, KeyError, TypeError):
        meant = None
    if meant != store.name:
        raise StoreError(
            f"{beside}: in the way, it was not left behind by an import of {store.name} (it holds "
            f"{there[0].name}); move it away"
        )
    for path in there:
        remove_tree(path) if path.is_dir() else path.unlink()


def _import_groups(source: Path, file: Any, store: Path, progress: Progress) -> int:
    raw = _bytes(source, file, MANIFEST)
    root = RootManifest.from_json(unseal_bytes(raw, f"{source}: {MANIFEST}"), f"{source}: {MANIFEST}")
    shared = {ZARR_JSON: group_metadata(root=True)}
    for name in root.spec.weights_files:
        shared[name] = _bytes(source, file, name)
        if FileRecord.of(shared[name]) != root.files[name]:
            raise StoreDamaged(f"{source}: {name}: not the bytes that were exported")
    manifests: dict[GroupName, GroupManifest] = {}
    listed = root.groups
    for name in _group_names(source, file):
        where = f"{name}/{MANIFEST}"
        sealed = unseal_bytes(_bytes(source, file, where), f"{source}: {where}")
        manifest = GroupManifest.from_json(sealed, f"{source}: {where}")
        plan = manifest.plan
        if str(plan.group) != name or plan.spec_fingerprint != root.spec.fingerprint:
            raise StoreDamaged(f"{source}: {where}: belongs to another group or store")
        if not root.lists(plan.group, manifest.sealed):
            raise StoreDamaged(f"{source}: {where}: not the one that the exported store lists")
        manifest.check_complete(root.spec, f"{source}: {where}")
        manifests[manifest.plan.group] = manifest
    for name in listed or ():
        if GroupName.parse(name) not in manifests:
            raise StoreDamaged(f"{source}: {name}: missing, but the exported store lists it")
    sizes = (file.size for m in manifests.values() for record in m.shards for file in record.files.values())
    require_space(store, sum(sizes), "the store")
    for name, data in shared.items():
        write_file(store / name, data)
    total = sum(len(manifest.plan.index) for manifest in manifests.values())
    done = 0
    for group, manifest in sorted(manifests.items()):
        folder = group_folder(store, group)
        write_file(folder.parent / ZARR_JSON, group_metadata())
        for name, data in manifest.plan.metadata_files(root.spec).items():
            write_file(folder / name, data)
        shards, arrays = [], manifest.plan.array_layouts(root.spec)
        for record in manifest.shards:
            start, stop = manifest.plan.bounds[record.shard]
            values = _rows(source, file, group, arrays, start, stop)
            _check_truth(source, manifest.plan, manifest.plan.truth_arrays(root.spec, start, stop), values)
            shards.append(_write(source, folder, manifest, arrays, record, values))
            progress(done + stop, total, str(group))
        done += len(manifest.plan.index)
        content = replace(manifest, shards=tuple(shards)).to_bytes()
        write_file(folder / MANIFEST, content)
        root = root.with_group(group, seal_of(content))
    write_file(store / MANIFEST, raw if listed is None else root.to_bytes())
    return total


def _group_names(source: Path, file: Any) -> Iterator[str]:
    """``<category>/<split>`` of every group in the file, each checked as a folder's name.

    Raises:
        StoreDamaged: a name cannot be a folder's, or a link stands for a group.
    """
    for category in file:
        if not isinstance(file.get(category, getlink=True), h5py.HardLink):
            raise StoreDamaged(f"{source}: {shown(category)}: a link; expected the data itself")
        for split in file[category] if isinstance(file[category], h5py.Group) else ():
            try:
                yield str(GroupName.of(category, split))
            except StoreError as error:
                raise StoreDamaged(f"{source}: {error}") from None


def _dataset(source: Path, file: Any, name: str) -> Any:
    """The dataset of this name, whose bytes are in this very file.

    Raises:
        StoreDamaged: it is missing, or a link or another file's bytes stand for it.
    """
    parts = name.split("/")
    for end in range(1, len(parts) + 1):
        path = "/".join(parts[:end])
        link = file.get(path, getlink=True)
        if link is None:
            raise StoreDamaged(f"{source}: {path}: missing or unreadable")
        if not isinstance(link, h5py.HardLink):
            raise StoreDamaged(f"{source}: {path}: a link; expected the data itself")
    dataset = file[name]
    if not isinstance(dataset, h5py.Dataset) or dataset.external or dataset.is_virtual:
        raise StoreDamaged(f"{source}: {name}: expected an array whose values are in this file")
    return dataset


def _bytes(source: Path, file: Any, name: str) -> bytes:
    try:
        dataset = _dataset(source, file, name)
        if dataset.nbytes > source.stat().st_size:
            raise StoreDamaged(f"{source}: {name}: {dataset.nbytes:,} bytes, more than the file has")
        return bytes(dataset[:].tobytes())
    except (KeyError, OSError, AttributeError, TypeError, ValueError) as error:
        raise StoreDamaged(f"{source}: {name}: missing or unreadable ({error})") from None


def _rows(
    source: Path, file: Any, group: GroupName, arrays: tuple[ArrayLayout, ...], start: int, stop: int
) -> dict[str, Array]:
    values: dict[str, Array] = {}
    for array in arrays:
        name = f"{group}/{array.name}"
        try:
            dataset = _dataset(source, file, name)
            found = (dataset.dtype, (max(min(stop, len(dataset)) - start, 0), *dataset.shape[1:]))
            expected = (np.dtype(array.dtype), (stop - start, *array.row_shape))
            if found != expected:
                raise StoreDamaged(
                    f"{source}: {name}: rows {start}-{stop - 1} are {found[0]} {found[1]}, "
                    f"expected {expected[0]} {expected[1]}"
                )
            part = np.ascontiguousarray(dataset[start:stop])
        except (KeyError, OSError, TypeError, ValueError) as error:
            raise StoreDamaged(f"{source}: {name}: missing or unreadable ({error})") from None
        values[array.name] = part
    return values


def _check_truth(
    source: Path, plan: GroupPlan, truth: Mapping[str, Array], values: Mapping[str, Array]
) -> None:
    """Compare presence and labels with the manifest's samples; raises `StoreDamaged`."""
    for name, expected in truth.items():
        if not np.array_equal(values[name], expected):
            raise StoreDamaged(f"{source}: {plan.group}/{name}: differs from the manifest's samples")


def _write(
    source: Path,
    folder: Path,
    manifest: GroupManifest,
    arrays: tuple[ArrayLayout, ...],
    record: ShardRecord,
    values: Mapping[str, Array],
) -> ShardRecord:
    """Write one shard; returns its record, with the digests of the new files."""
    plan = manifest.plan
    start, stop = plan.bounds[record.shard]
    shard = ShardValues(record.shard, start, stop, values)
    files, checks = write_shard(folder, arrays, len(plan.index), plan.shard_rows, shard)
    for name, rows in checks.items():
        for position, (found, promised) in enumerate(zip(rows, record.crc32c[name], strict=True)):
            if found != promised:
                raise StoreDamaged(
                    f"{source}: {plan.group}/{name}: row {start + position} is not what was exported"
                )
    return replace(record, files=files)
