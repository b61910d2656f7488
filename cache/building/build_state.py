"""Compares the current state of a store with a build request; writes nothing."""

import contextlib
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from cache.building.encode_shards import count_inputs, sample_content
from cache.building.journal import Journal, read_pending, read_repairing
from cache.building.request import BuildRequest
from cache.format.index_diff import content_differences, index_differences
from cache.format.layout import (
    LOCK,
    MANIFEST,
    PENDING,
    ZARR_JSON,
    group_folder,
)
from cache.format.manifest import GroupManifest, GroupPlan, RootManifest, SampleContent, ShardRecord
from cache.format.object_store import StorePath
from idif.data.features import TEACHER, WEIGHTS_SUFFIX, FeatureSpec
from idif.data.index import Sample
from idif.errors import CannotFinish, StoreDamaged, StoreError, StoreMismatch
from idif.files import TEMPORARY
from idif.locks import HOLDER
from idif.prefetch import prefetch_map


@dataclass
class GroupBuildState:
    """A requested group and its finished shards."""

    plan: GroupPlan
    finished: bool = False
    shards: dict[int, ShardRecord] = field(default_factory=dict)
    """The finished shards by number; all of them if the group is finished."""
    listed: bool = False
    """Whether the root's manifest lists the finished group; a killed build may not have got so far."""
    sealed: str = ""
    """The digest of the finished group's manifest."""

    def inputs(self, shard: int) -> int:
        """Number of views and per-sample inputs in a shard."""
        return sum(map(count_inputs, self.plan.index.samples[slice(*self.plan.bounds[shard])]))

    @property
    def missing(self) -> list[int]:
        """Numbers of the missing shards."""
        return [shard for shard in range(len(self.plan.bounds)) if shard not in self.shards]


def plan_for_store(store: StorePath, request: BuildRequest) -> list[GroupPlan]:
    """The groups that are asked for, with the slots of views of the store, if it exists.

    A store has a slot for every camera of its categories: one that lacks some of them leaves theirs empty,
    and may be asked for alone.

    Raises:
        StoreMismatch: the store has other settings, or no slot for a camera; names every part that differs.
    """
    try:
        manifest = RootManifest.load(store)
    except FileNotFoundError:
        return request.plan_groups()
    slots, numbers = manifest.view_numbers, request.index.view_numbers
    differences = manifest.spec.differences(request.spec)
    if not set(numbers) <= set(slots):
        differences.append(f"view numbers: {list(slots)}, not {list(numbers)}")
    if differences:
        raise StoreMismatch(f"{store}: the store has other settings than asked for: {'; '.join(differences)}")
    return replace(request, index=request.index.with_views(slots)).plan_groups()


def check_folder(store: StorePath) -> None:
    """Refuse a folder with any content other than a store or an unfinished store.

    Raises:
        StoreError: the folder has other content, is a file, or cannot be read.
    """
    if not store.exists():
        return
    if not store.is_dir():
        raise StoreError(f"{store}: expected a folder for the store, found a file")
    try:
        names = {path.name.removesuffix(TEMPORARY) for path in store.iterdir()}
    except OSError as error:
        raise StoreError(f"{store}: cannot be read ({error.strerror or error})") from None
    expected = {LOCK, PENDING, TEACHER, ZARR_JSON}
    beginnings = (".lock", HOLDER, *([WEIGHTS_SUFFIX] if PENDING in names else []))
    others = sorted(name for name in names - expected if not name.endswith(beginnings))
    if MANIFEST not in names and others:
        raise StoreError(f"{store}: not a store and not empty (it holds {others[0]}); choose another folder")


def check_space(store: Path, states: Sequence[GroupBuildState], spec: FeatureSpec) -> None:
    """Refuse to start a build that does not fit on the disk.

    Raises:
        CannotFinish: states the required and the free space.
    """
    needed = 0
    for state in states:
        arrays = state.plan.array_layouts(spec)
        rows = sum(stop - start for start, stop in (state.plan.bounds[shard] for shard in state.missing))
        needed += rows * sum(array.row_bytes for array in arrays)
    free = shutil.disk_usage(store).free
    if needed > free:
        raise CannotFinish(f"{store}: the build needs {needed / 1e9:.3g} GB and {free / 1e9:.3g} GB are free")


def load_build_state(store: StorePath, plan: GroupPlan, shard_rows: int | None) -> GroupBuildState:
    """Load the existing part of a group. An unfinished group keeps its shard and batch sizes.

    Args:
        shard_rows: required number of rows per shard; None accepts any.

    Raises:
        StoreMismatch: the group holds other samples, views or labels, or has other settings.
        StoreDamaged: the manifest or journal is damaged, or a finished group lacks a file.
    """
    folder = group_folder(store, plan.group)
    listed, sealed = False, ""
    try:
        manifest = GroupManifest.load(folder)
        stored, records, finished = manifest.plan, manifest.shards, True
        sealed, listed = manifest.sealed, _is_listed(store, manifest)
    except FileNotFoundError:
        # stores are never built in an object store, so there is no journal
        journal = Journal.load(folder) if isinstance(folder, Path) else None
        if journal is None:
            return GroupBuildState(plan)
        stored, records, finished = journal.plan, tuple(journal.shards.values()), False
    if stored.group != plan.group or stored.spec_fingerprint != plan.spec_fingerprint:
        raise StoreMismatch(f"{folder}: this is {stored.group} of another store")
    if shard_rows is not None and shard_rows != stored.shard_rows:
        raise StoreMismatch(f"{folder}: shard_rows: {stored.shard_rows}, not {shard_rows}")
    if stored.index.view_numbers != plan.index.view_numbers:
        before, asked = list(stored.index.view_numbers), list(plan.index.view_numbers)
        raise StoreMismatch(f"{folder}: view numbers: the store has {before}, the data {asked}")
    for difference in index_differences(stored.index, plan.index):
        raise StoreMismatch(f"{folder}: {difference}")
    # the data's own index, since it has the current paths of the images
    state = GroupBuildState(replace(stored, index=plan.index), finished, listed=listed, sealed=sealed)
    for record in records:
        if all(_size(folder / name) == file.size for name, file in record.files.items()):
            state.shards[record.shard] = record
        elif finished:
            raise StoreDamaged(
                f"{folder}: files of shard {record.shard} are missing or of another size than written; "
                f"'idif cache verify' lists the damage, --repair mends it"
            )
    return state


def _is_listed(store: StorePath, manifest: GroupManifest) -> bool:
    """Whether the root lists a group's manifest; false for one that a killed build did not get to list.

    Raises:
        StoreDamaged: the group is none of this store's, or a repair of it was cut short.
    """
    group = manifest.plan.group
    folder = group_folder(store, group)
    where = folder / MANIFEST
    root = RootManifest.load(store)
    manifest.check_complete(root.spec, str(where))
    if group in read_repairing(store):
        raise StoreDamaged(
            f"{store}: a repair of {group} was cut short; run 'idif cache verify --repair' again"
        )
    if root.lists(group, manifest.sealed):
        return True
    if group in read_pending(store):
        return False
    raise StoreDamaged(
        f"{where}: not the one that the store lists, it is of another store or time; remove {folder} "
        "and build again"
    )


def check_content(
    root: Path, store: StorePath, state: GroupBuildState, workers: int, compared: Callable[[Sample], None]
) -> None:
    """Compare the data's files with those the finished shards were built from.

    Args:
        compared: called after each sample, for progress.

    Raises:
        StoreMismatch: names the first file that differs. DatasetError: a file cannot be read.
    """
    samples: list[Sample] = []
    stored: list[SampleContent] = []
    for shard, record in sorted(state.shards.items()):
        samples.extend(state.plan.index.samples[slice(*state.plan.bounds[shard])])
        stored.extend(record.content)

    with contextlib.closing(
        prefetch_map(partial(sample_content, root), samples, workers=workers, depth=4 * workers)
    ) as now:
        for sample, before, data in zip(samples, stored, now, strict=True):
            for difference in content_differences(sample, before, data):
                raise StoreMismatch(f"{group_folder(store, state.plan.group)}: {difference}")
            compared(sample)


def _size(path: StorePath) -> int | None:
    try:
        return path.stat().st_size
    except OSError:
        return None
