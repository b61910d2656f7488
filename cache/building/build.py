"""Phase one: runs the frozen encoder over a dataset once and writes the store, shard by shard."""

import contextlib
import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import torch
from safetensors.torch import save as safetensors_bytes

from cache.building.build_state import (
    GroupBuildState,
    check_content,
    check_folder,
    check_settings,
    check_space,
    load_build_state,
)
from cache.building.encode_shards import Job, MadeShard, make_shards
from cache.building.journal import Journal, read_pending, remove_journals, write_pending
from cache.building.lock import builder_lock
from cache.building.ranks import Ranks
from cache.format.layout import (
    MANIFEST,
    TEACHER,
    ZARR_JSON,
    GroupName,
    array_layouts,
    check_category,
    choose_shard_rows,
    group_folder,
    group_metadata,
)
from cache.format.manifest import GroupManifest, GroupPlan, RootManifest, ShardRecord, sorted_groups
from cache.format.sealed_files import FileRecord, make_folder, write_file
from cache.format.shard_codec import write_shard
from idif.data.decode import decode_threads
from idif.data.features import FeatureSpec, StorageType
from idif.data.index import Index, Sample
from idif.encoders.encode import check_image_size
from idif.encoders.frozen import FrozenEncoder
from idif.errors import ConfigError, DatasetError
from idif.progress import Progress, silent

ALONE = Ranks()


@dataclass
class BuildReport:
    """What a build did; of a team's build, what its first member knows of all."""

    groups: tuple[str, ...] = ()
    """``category/split`` of every group that is in place now and was asked for."""
    shards_encoded: int = 0
    shards_kept: int = 0
    """Shards found finished, by this or an earlier build, and not encoded again."""
    views_encoded: int = 0
    bytes_written: int = 0
    """Of the shard files."""
    seconds: float = 0.0


def build_store(
    root: Path,
    index: Index,
    store: Path,
    encoder: FrozenEncoder,
    *,
    image_size: int,
    storage: StorageType = "float16",
    batch_size: int = 8,
    workers: int | None = None,
    shard_rows: int | None = None,
    device: torch.device | None = None,
    team: Ranks = ALONE,
    progress: Progress = silent,
) -> BuildReport:
    """Build, continue or extend a store so that it holds every row of ``index``.

    Nothing is written before everything is known to fit: settings, samples, content of what is already
    there, space. A build that was cut short, however it ended, is continued by the same call and encodes
    no finished shard again. Groups the index does not name are left as they are.

    Args:
        root: folder the index's paths are relative to.
        store: folder of the store; made when missing, extended when it holds a store of the same settings.
        batch_size: samples encoded at once. An unfinished group keeps the one it was begun with.
        workers: threads that decode; one per core (at most 8) when None.
        shard_rows: rows per shard; chosen by size when None.
        device: where the encoder runs; the CPU when None.
        team: processes that make the same call together: the first plans and publishes, all encode their
            share of the shards, and the store is the one that a single process would have made.
        progress: told the number of views done, of all that this process compares and encodes.

    Raises:
        ConfigError: a setting that cannot be used.
        DatasetError: no rows, an image or mask that cannot be read (named); nothing is published.
        StoreError: the folder is no store, cannot be written, or another process is building there.
        StoreMismatch: the store has other settings or other data; the first difference is named.
        StoreDamaged: a manifest is not what was written.
        CannotFinish: too little space, a feature that is not finite, or a member of the team is gone.
    """
    began = time.monotonic()
    spec = checked_spec(encoder, image_size, storage)
    plans = plan_groups(index, spec, shard_rows, batch_size)
    if team.first:
        check_folder(store)
        make_folder(store)
    encoder.module.to(device or torch.device("cpu"))
    workers = workers or decode_threads()

    def survey() -> list[GroupBuildState]:
        check_settings(store, spec, index.view_numbers)
        return [load_build_state(store, plan, shard_rows) for plan in plans]

    with contextlib.ExitStack() as held:
        if team.first:
            held.enter_context(builder_lock(store))
            states = survey()
            meter = _Meter(progress, states, team)
            for state in states:
                check_content(root, store, state, workers, meter.compared)
            check_space(store, states, spec)
            _write_pending_groups(store, states, encoder, spec)
            team.wait()
        else:
            team.wait()
            held.enter_context(builder_lock(store, team.rank))
            states = survey()
            meter = _Meter(progress, states, team)
        missing = _missing(states)
        kept = sum(len(state.shards) for state in states)
        team.wait()  # all have seen the same before the first shard is added
        _encode(root, store, states, encoder, spec, workers, team, meter)
        team.wait()
        if team.first:
            if team.world > 1:
                _merge_rank_journals(store, states)
            for state in states:
                _publish_if_complete(store, state)
            write_pending(store, (g for g in read_pending(store) if not _is_finished(store, g)))
    team.wait()
    records = [state.shards[shard] for state, shard in missing if shard in state.shards]
    return BuildReport(
        groups=tuple(str(plan.group) for plan in plans),
        shards_encoded=len(missing),
        shards_kept=kept,
        views_encoded=sum(state.views(shard) for state, shard in missing),
        bytes_written=sum(file.size for record in records for file in record.files.values()),
        seconds=time.monotonic() - began,
    )


class _Meter:
    """Views done, whether compared or encoded, told to whoever listens."""

    def __init__(self, progress: Progress, states: Sequence[GroupBuildState], team: Ranks) -> None:
        kept = sum(state.views(shard) for state in states for shard in state.shards)
        mine = sum(state.views(shard) for state, shard in team.share(_missing(states)))
        self._progress, self._done = progress, 0 if team.first else kept
        self._total = kept + mine

    def compared(self, sample: Sample) -> None:
        self.advance(sum(sample.present), "comparing")

    def advance(self, views: int, what: str) -> None:
        self._done += views
        self._progress(self._done, self._total, what)


def checked_spec(encoder: FrozenEncoder, image_size: int, storage: StorageType) -> FeatureSpec:
    """What the features of a store would be; raises ConfigError where a setting cannot be used."""
    if storage == "float32":
        raise ConfigError("storage: expected float16 or uint8, got float32")
    check_image_size(encoder, image_size)
    return encoder.spec(image_size, storage)


def plan_groups(index: Index, spec: FeatureSpec, shard_rows: int | None, batch_size: int) -> list[GroupPlan]:
    """The groups of a dataset as they would be built, in a store's order; arguments as `build_store`.

    Raises:
        DatasetError: no rows, or a sample id occurs twice. StoreError: a category that can name no folder.
    """
    if not len(index):
        raise DatasetError("the dataset has no samples to build a store from")
    groups = sorted_groups(index)
    for group, rows in groups.items():
        check_category(group.category)
        ids = [sample.sample_id for sample in rows.samples]
        for first, second in pairwise(ids):
            if first == second:
                raise DatasetError(f"{group}: sample id {first} occurs twice")
    chosen = shard_rows or choose_shard_rows(array_layouts(spec, len(index.view_numbers)))
    return [GroupPlan(group, spec.fingerprint, rows, chosen, batch_size) for group, rows in groups.items()]


def _is_finished(store: Path, group: GroupName) -> bool:
    return (group_folder(store, group) / MANIFEST).exists()


def _write_pending_groups(
    store: Path, states: Sequence[GroupBuildState], encoder: FrozenEncoder, spec: FeatureSpec
) -> None:
    """Write what all groups share, and every group's plan, before the first shard."""
    unfinished = [state for state in states if not state.finished]
    if unfinished:
        write_pending(store, {state.plan.group for state in unfinished} | set(read_pending(store)))
    if not (store / MANIFEST).exists():
        weights = {name: tensor.cpu().contiguous() for name, tensor in encoder.module.state_dict().items()}
        files = {ZARR_JSON: group_metadata(root=True), TEACHER: safetensors_bytes(weights)}
        for name, data in files.items():
            write_file(store / name, data)
        records = {name: FileRecord.of(data) for name, data in files.items()}
        views = states[0].plan.index.view_numbers
        write_file(store / MANIFEST, RootManifest(spec, views, records).to_bytes())
    for state in states:
        folder = group_folder(store, state.plan.group)
        if state.finished:
            remove_journals(folder)  # a build killed just after its manifest left them
            continue
        Journal.begin(folder, state.plan, state.shards)
        write_file(folder.parent / ZARR_JSON, group_metadata())
        for name, data in state.plan.metadata_files(spec).items():
            write_file(folder / name, data)


def _missing(states: Sequence[GroupBuildState]) -> list[tuple[GroupBuildState, int]]:
    """The shards yet to be made, in the store's order."""
    return [(state, shard) for state in states for shard in state.missing]


def _encode(
    root: Path,
    store: Path,
    states: Sequence[GroupBuildState],
    encoder: FrozenEncoder,
    spec: FeatureSpec,
    workers: int,
    team: Ranks,
    meter: _Meter,
) -> None:
    """Make this process's share, one thread writing behind, and publish a group with its last shard."""
    by_group = {state.plan.group: state for state in states}

    def write(made: MadeShard) -> None:
        state = by_group[made.job.plan.group]
        folder, plan = group_folder(store, state.plan.group), state.plan
        arrays = array_layouts(spec, len(plan.index.view_numbers))
        files, checks = write_shard(folder, arrays, len(plan.index), plan.shard_rows, made.values)
        record = ShardRecord.of(made.job.shard, files, checks, made.content)
        Journal.of_member(folder, plan, state.shards, team.rank).add(record)
        if team.first:
            _publish_if_complete(store, state)

    jobs = [Job(state.plan, shard) for state, shard in team.share(_missing(states))]
    shards = make_shards(root, jobs, encoder, spec, workers=workers)
    with contextlib.closing(shards), ThreadPoolExecutor(1, thread_name_prefix="writer") as pool:
        writing: Future[None] | None = None
        for item in shards:
            if isinstance(item, int):
                meter.advance(item, "encoding")
                continue
            if writing is not None:
                writing.result()  # one shard being made and one being written, never more
            writing = pool.submit(write, item)
        if writing is not None:
            writing.result()


def _merge_rank_journals(store: Path, states: Sequence[GroupBuildState]) -> None:
    """Add what the other members of a team have recorded."""
    for state in states:
        journal = Journal.load(group_folder(store, state.plan.group))
        if journal is not None:
            state.shards.update(journal.shards)


def _publish_if_complete(store: Path, state: GroupBuildState) -> None:
    """Write the manifest by rename once every shard is recorded; the journals have then done their work."""
    if state.finished or state.missing:
        return
    folder = group_folder(store, state.plan.group)
    shards = tuple(record for _, record in sorted(state.shards.items()))
    write_file(folder / MANIFEST, GroupManifest(state.plan, shards).to_bytes())
    state.finished = True
    remove_journals(folder)
