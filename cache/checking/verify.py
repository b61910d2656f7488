"""Verifies a store: finds damaged bytes, and files of the data that changed since the build."""

import contextlib
from collections.abc import Container
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors.torch import load

from cache.building.journal import read_repairing
from cache.checking.against_source import compare_data, encode_again
from cache.checking.repair import repair_store
from cache.checking.verify_report import Problem, VerifyReport
from cache.format.layout import (
    MANIFEST,
    PENDING,
    ZARR_JSON,
    ArrayLayout,
    GroupName,
    group_folder,
    group_metadata,
)
from cache.format.manifest import GroupManifest, RootManifest, select_inputs
from cache.format.object_store import StorePath, store_path
from cache.format.sealed_files import FileRecord
from cache.format.shard_codec import Array, decode_shard_file, row_checksums
from cache.reading.open_groups import list_groups
from idif.data.decode import decode_threads
from idif.data.features import TEACHER, WEIGHTS_SUFFIX
from idif.data.index import Index
from idif.errors import StoreDamaged, StoreError
from idif.prefetch import prefetch_map
from idif.progress import Progress, ProgressBar, Tally, no_bar


def verify_store(
    path: str | StorePath,
    *,
    root: Path | None = None,
    index: Index | None = None,
    deep: bool = False,
    repair: bool = False,
    seed: int = 0,
    workers: int | None = None,
    bar: ProgressBar = no_bar,
) -> VerifyReport:
    """Read every byte of a store once and report all damage; damage does not raise.

    Args:
        root, index: the data, for comparison with the files the store was built from; both or neither.
        deep: also encode a seeded sample of rows again with the stored weights, from the stored images, or
            from the data where the store does not keep an encoder's input.
        repair: rebuild damaged shards and metadata (needs ``root``); the report then lists only the remaining
            problems.
        workers: number of hashing threads; one per core (at most 8) when None.
        bar: makes the progress callback of each step: bytes read, views compared, rows encoded again, views
            rebuilt.

    Raises:
        StoreError: there is no store at ``path``, or one of another version; with ``repair``, another
            process is building there.
        DatasetError: with ``repair``, a file that a damaged shard needs cannot be read.
    """
    store = store_path(path)
    if not store.is_dir():
        raise StoreError(f"{store}: no such store")
    assert (root is None) == (index is None), "root and index belong together"
    assert root is not None or not repair, "a repair needs the data"
    workers = workers or decode_threads()
    report = VerifyReport()
    manifest = _verify_root(store, report)
    if manifest is None:
        return report
    groups = _load_groups(store, manifest, report)
    repairing = read_repairing(store)
    for group in repairing:
        what = f"a repair of {group} is going on, or was cut short"
        report.problems.append(Problem(PENDING, (), what, str(group)))
    with bar("verifying", "bytes") as progress:
        _verify_shards(store, manifest, groups, report, workers, progress)
    data = None if root is None or index is None else (root, select_inputs(index, manifest.spec.inputs))
    if data is not None:
        with bar("comparing the data", "views") as progress:
            compare_data(*data, groups, report, workers, progress)
        # the rows of the store have its slots, also where the data alone would have others
        data = (data[0], data[1].with_views(manifest.view_numbers))
    if deep:
        with bar("encoding again", "rows") as progress:
            encode_again(store, manifest, groups, data, report, seed, progress)
    if repair and data is not None and report.problems:
        with bar("rebuilding", "views") as progress:
            repair_store(store, manifest, groups, *data, report, workers, progress)
    return report


def _verify_root(store: StorePath, report: VerifyReport) -> RootManifest | None:
    try:
        manifest = RootManifest.load(store)
    except FileNotFoundError:
        if (store / ZARR_JSON).exists():
            report.problems.append(Problem(MANIFEST, (), "missing; nothing below can be checked without it"))
            _verify_without_manifest(store, report)
            return None
        raise StoreError(f"{store}: not a store (it has no {MANIFEST})") from None
    except StoreDamaged:
        what = "not the bytes that were written; nothing below can be checked without it"
        report.problems.append(Problem(MANIFEST, (), what))
        _verify_without_manifest(store, report)
        return None
    for name, record in manifest.files.items():
        data = _read(store / name, report)
        if data is None or FileRecord.of(data) != record:
            report.problems.append(Problem(name, (), _how(data)))
    return manifest


def _verify_without_manifest(store: StorePath, report: VerifyReport) -> None:
    """Check the other files at the root as far as possible without the root manifest."""
    metadata = _read(store / ZARR_JSON, report)
    if metadata != group_metadata(root=True):
        report.problems.append(Problem(ZARR_JSON, (), _how(metadata)))
    further = [path.name for path in store.iterdir() if path.name.endswith(WEIGHTS_SUFFIX)]
    for name in sorted({TEACHER, *further}):
        weights = _read(store / name, report)
        try:
            load(weights or b"")
        except SafetensorError as error:
            what = "missing" if weights is None else f"not readable as encoder weights ({error})"
            report.problems.append(Problem(name, (), what))
    for group in _list(store, report):
        _load_group(store, group, report)


def _list(store: StorePath, report: VerifyReport, root: RootManifest | None = None) -> dict[GroupName, bool]:
    try:
        return list_groups(store, root)
    except StoreDamaged as error:
        report.problems.append(Problem(PENDING, (), str(error).partition(": ")[2]))
        return {}


def _load_group(
    store: StorePath, group: GroupName, report: VerifyReport, *, listed: Container[str] | None = None
) -> GroupManifest | None:
    """A group's manifest, if it is intact and belongs to this group."""
    name = f"{group}/{MANIFEST}"
    try:
        manifest = GroupManifest.load(group_folder(store, group))
    except FileNotFoundError:
        lost = str(group) in (listed or ())
        what = "missing: the store lists this group" if lost else "missing: the build has not finished"
        report.problems.append(Problem(name, (), what, str(group)))
        return None
    except StoreDamaged:
        what = f"not the bytes that were written; remove {group} and build it again"
        report.problems.append(Problem(name, (), what, str(group)))
        return None
    report.files += 1
    if manifest.plan.group != group:
        what = f"belongs to {manifest.plan.group} of another place or store"
        report.problems.append(Problem(name, (), what, str(group)))
        return None
    return manifest


def _load_groups(
    store: StorePath, root: RootManifest, report: VerifyReport
) -> dict[GroupName, GroupManifest]:
    """Check manifests and metadata; returns the groups with intact manifests."""
    groups, repairing = {}, read_repairing(store)
    for group in _list(store, report, root):
        manifest = _load_group(store, group, report, listed=root.groups)
        if manifest is None:
            continue
        # a repair that was cut short may have written a manifest that the root does not list yet
        if not root.lists(group, manifest.sealed) and group not in repairing:
            what = f"not the one that the store lists; remove {group} and build it again"
            report.problems.append(Problem(f"{group}/{MANIFEST}", (), what, str(group)))
            continue
        if manifest.plan.spec_fingerprint != root.spec.fingerprint:
            what = "belongs to a store of other settings"
            report.problems.append(Problem(f"{group}/{MANIFEST}", (), what, str(group)))
            continue
        try:
            manifest.check_complete(root.spec, f"{group}/{MANIFEST}")
        except StoreDamaged as error:
            what = f"{str(error).partition(': ')[2]}; remove {group} and build it again"
            report.problems.append(Problem(f"{group}/{MANIFEST}", (), what, str(group)))
            continue
        wanted = {f"{group}/{file}": data for file, data in manifest.plan.metadata_files(root.spec).items()}
        wanted[f"{group.category}/{ZARR_JSON}"] = group_metadata()
        for file, data in wanted.items():
            found = _read(store / file, report)
            problem = Problem(file, tuple(range(len(manifest.plan.index))), _how(found), str(group))
            if found != data and problem not in report.problems:
                report.problems.append(problem)
        groups[group] = manifest
    return groups


@dataclass(frozen=True)
class _ShardFile:
    group: GroupName
    manifest: GroupManifest
    array: ArrayLayout
    shard: int
    truth: Array | None
    """Presence or labels of the rows by the manifest, which the values must equal."""


def _verify_shards(
    store: StorePath,
    root: RootManifest,
    groups: dict[GroupName, GroupManifest],
    report: VerifyReport,
    workers: int,
    progress: Progress,
) -> None:
    files = [
        _ShardFile(group, manifest, array, record.shard, truth.get(array.name))
        for group, manifest in groups.items()
        for record, bounds in zip(manifest.shards, manifest.plan.bounds, strict=True)
        for truth in [manifest.plan.truth_arrays(root.spec, *bounds)]
        for array in manifest.plan.array_layouts(root.spec)
    ]
    sizes = [f.manifest.shards[f.shard].files[f.array.shard_file(f.shard)].size for f in files]
    read = Tally(progress, sum(sizes))
    # shards are read as a whole: one per thread and one ahead in memory
    checks = prefetch_map(partial(_check_shard_file, store), files, workers=workers, depth=workers + 1)
    with contextlib.closing(checks):
        for file, size, problem in zip(files, sizes, checks, strict=True):
            report.files += 1
            report.bytes += size
            if problem is not None:
                report.problems.append(problem)
            read.add(size, str(file.group))


def _check_shard_file(store: StorePath, file: _ShardFile) -> Problem | None:
    """Compare a shard file's digest and every row's checksum with the manifest's."""
    plan, record = file.manifest.plan, file.manifest.shards[file.shard]
    name = file.array.shard_file(file.shard)
    start, stop = plan.bounds[file.shard]
    path = f"{file.group}/{name}"
    try:
        data = (store / path).read_bytes()
    except OSError as error:
        what = f"missing or unreadable ({error.strerror or error})"
        return Problem(path, tuple(range(start, stop)), what, str(file.group), file.shard)
    values = decode_shard_file(file.array, len(plan.index), plan.shard_rows, file.shard, data)
    wrong = tuple(
        start + position
        for position, (row, crc) in enumerate(zip(values, record.crc32c[file.array.name], strict=True))
        if row is None or row_checksums(row[None])[0] != crc
    )
    if FileRecord.of(data) != record.files[name]:
        size = record.files[name].size
        cut = f" ({len(data)} bytes, expected {size})" if len(data) != size else ""
        # if no row is affected, the damage is between the rows; the shard is rebuilt nevertheless
        touched = wrong or tuple(range(start, stop))
        what = f"not the bytes that were written{cut}"
        return Problem(path, touched, what, str(file.group), file.shard)
    if wrong:
        return Problem(path, wrong, "values differ from their checksums", str(file.group), file.shard)
    if file.truth is not None:
        rows = zip(values, file.truth, strict=True)
        other = tuple(
            start + i for i, (row, true) in enumerate(rows) if row is None or not np.array_equal(row, true)
        )
        if other:
            what = "values differ from the manifest's samples"
            return Problem(path, other, what, str(file.group), file.shard)
    return None


def _read(path: StorePath, report: VerifyReport) -> bytes | None:
    try:
        data = path.read_bytes()
    except OSError:
        return None
    report.files += 1
    report.bytes += len(data)
    return data


def _how(found: bytes | None) -> str:
    return "missing" if found is None else "not the bytes that were written"
