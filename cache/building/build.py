"""`build_store`: runs the frozen encoders over a dataset once and writes the store, shard by shard."""

import contextlib
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from cache.building.build_state import (
    GroupBuildState,
    check_content,
    check_folder,
    check_space,
    load_build_state,
    plan_for_store,
)
from cache.building.encode_shards import Job, MadeShard, count_inputs, make_shards
from cache.building.journal import (
    Journal,
    has_journals,
    list_in_root,
    read_pending,
    remove_journals,
    write_pending,
)
from cache.building.lock import builder_lock
from cache.building.ranks import Ranks
from cache.building.request import BuildRequest
from cache.format.encoder_weights import weights_bytes
from cache.format.layout import MANIFEST, ZARR_JSON, GroupName, group_folder, group_metadata
from cache.format.manifest import GroupManifest, RootManifest, ShardRecord
from cache.format.sealed_files import FileRecord, make_folder, seal_of, write_file
from cache.format.shard_codec import write_shard
from idif.data.index import Sample
from idif.progress import Progress, silent

ALONE = Ranks()


@dataclass
class BuildReport:
    """Result of a build; with several processes, only the first one's report covers all of them."""

    groups: tuple[str, ...] = ()
    """``category/split`` of every requested group; all are complete after the build."""
    shards_encoded: int = 0
    shards_kept: int = 0
    """Number of shards that were already finished and thus not encoded again."""
    views_encoded: int = 0
    """Number of encoded views and per-sample inputs."""
    bytes_written: int = 0
    """Size of the written shard files."""
    seconds: float = 0.0


def build_store(request: BuildRequest, *, ranks: Ranks = ALONE, progress: Progress = silent) -> BuildReport:
    """Build, continue or extend a store in a folder so that it contains every row of the request's index.

    Settings, samples, existing content and disk space are checked before anything is written. The same call
    continues an interrupted build and does not encode finished shards again. Groups outside the index are
    not changed.

    Args:
        ranks: processes that make the same call together: the first plans and publishes, all encode their
            share of the shards, and the store equals that of a single process.
        progress: called with the number of inputs done, among all that this process compares and encodes.

    Raises:
        ConfigError: a setting that cannot be used.
        DatasetError: no rows, or a file that cannot be read (named); nothing is published.
        StoreError: the folder is not a store, cannot be written, or another process is building there.
        StoreMismatch: the store has other settings or other data; the first difference is named.
        StoreDamaged: a manifest differs from the written one.
        CannotFinish: too little space, a feature that is not finite, or another process of ``ranks`` is gone.
    """
    began = time.monotonic()
    store, names = request.store, tuple(str(plan.group) for plan in request.plan_groups())
    assert isinstance(store, Path), "a store in an object store is built by `build_remote`"
    if ranks.first:
        check_folder(store)

    def survey() -> list[GroupBuildState]:
        return [load_build_state(store, plan, request.shard_rows) for plan in plan_for_store(store, request)]

    if ranks.world == 1 and (complete := _complete(store, survey)) is not None:
        # nothing to write, so the disk may be read-only
        meter = _Meter(progress, complete, ranks)
        for state in complete:
            check_content(request.root, store, state, request.threads, meter.compared)
        kept = sum(len(state.shards) for state in complete)
        return BuildReport(groups=names, shards_kept=kept, seconds=time.monotonic() - began)

    if ranks.first:
        make_folder(store)
    with contextlib.ExitStack() as held:
        if ranks.first:
            held.enter_context(builder_lock(store))
            states = survey()
            meter = _Meter(progress, states, ranks)
            for state in states:
                check_content(request.root, store, state, request.threads, meter.compared)
            check_space(store, states, request.spec)
            _write_pending_groups(store, states, request)
            ranks.wait()
        else:
            ranks.wait()
            held.enter_context(builder_lock(store, ranks.rank))
            states = survey()
            meter = _Meter(progress, states, ranks)
        missing = _missing(states)
        kept = sum(len(state.shards) for state in states)
        ranks.wait()  # all processes have read the same state before the first shard is added
        _encode(request, store, states, ranks, meter)
        ranks.wait()
        if ranks.first:
            if ranks.world > 1:
                _merge_rank_journals(store, states)
            for state in states:
                _publish_if_complete(store, state)
            write_pending(store, (g for g in read_pending(store) if not _is_finished(store, g)))
    ranks.wait()
    records = [state.shards[shard] for state, shard in missing if shard in state.shards]
    return BuildReport(
        groups=names,
        shards_encoded=len(missing),
        shards_kept=kept,
        views_encoded=sum(state.inputs(shard) for state, shard in missing),
        bytes_written=sum(file.size for record in records for file in record.files.values()),
        seconds=time.monotonic() - began,
    )


class _Meter:
    """Counts the inputs compared or encoded and reports them."""

    def __init__(self, progress: Progress, states: Sequence[GroupBuildState], ranks: Ranks) -> None:
        kept = sum(state.inputs(shard) for state in states for shard in state.shards)
        own = sum(state.inputs(shard) for state, shard in ranks.share(_missing(states)))
        self._progress, self._done = progress, 0 if ranks.first else kept
        self._total = kept + own

    def compared(self, sample: Sample) -> None:
        self.advance(count_inputs(sample), "comparing")

    def advance(self, inputs: int, what: str) -> None:
        self._done += inputs
        self._progress(self._done, self._total, what)


def _complete(store: Path, survey: Callable[[], list[GroupBuildState]]) -> list[GroupBuildState] | None:
    """The state of the requested groups if all are finished and nothing is left to tidy up, else None."""
    if not (store / MANIFEST).exists():
        return None
    states = survey()
    pending = read_pending(store)
    for state in states:
        folder = group_folder(store, state.plan.group)
        if not state.finished or not state.listed or state.plan.group in pending or has_journals(folder):
            return None
    return states


def _is_finished(store: Path, group: GroupName) -> bool:
    groups = RootManifest.load(store).groups
    listed = groups is None or str(group) in groups
    return listed and (group_folder(store, group) / MANIFEST).exists()


def _write_pending_groups(store: Path, states: Sequence[GroupBuildState], request: BuildRequest) -> None:
    """Write the files that all groups share, and every group's plan, before the first shard."""
    spec = request.spec
    unfinished = [state for state in states if not state.finished]
    if unfinished:
        write_pending(store, {state.plan.group for state in unfinished} | set(read_pending(store)))
    if not (store / MANIFEST).exists():
        files = {ZARR_JSON: group_metadata(root=True)}
        for name, encoder in zip(spec.weights_files, request.encoders.encoders, strict=True):
            files[name] = weights_bytes(encoder)
        for name, data in files.items():
            write_file(store / name, data)
        records = {name: FileRecord.of(data) for name, data in files.items()}
        views = states[0].plan.index.view_numbers
        write_file(store / MANIFEST, RootManifest(spec, views, records).to_bytes())
    for state in states:
        folder = group_folder(store, state.plan.group)
        if state.finished:
            if not state.listed:
                list_in_root(store, state.plan.group, state.sealed)
                state.listed = True
            remove_journals(folder)  # left behind by a build that was killed just after writing its manifest
            continue
        Journal.begin(folder, state.plan, state.shards)
        write_file(folder.parent / ZARR_JSON, group_metadata())
        for name, data in state.plan.metadata_files(spec).items():
            write_file(folder / name, data)


def _missing(states: Sequence[GroupBuildState]) -> list[tuple[GroupBuildState, int]]:
    """The missing shards, in the store's order."""
    return [(state, shard) for state in states for shard in state.missing]


def _encode(
    request: BuildRequest, store: Path, states: Sequence[GroupBuildState], ranks: Ranks, meter: _Meter
) -> None:
    """Make this process's share with one writer thread; publish each group after its last shard."""
    by_group = {state.plan.group: state for state in states}
    spec = request.spec

    def write(made: MadeShard) -> None:
        state = by_group[made.job.plan.group]
        folder, plan = group_folder(store, state.plan.group), state.plan
        arrays = plan.array_layouts(spec)
        files, checks = write_shard(folder, arrays, len(plan.index), plan.shard_rows, made.values)
        record = ShardRecord.of(made.job.shard, files, checks, made.content)
        Journal.of_member(folder, plan, state.shards, ranks.rank).add(record)
        if ranks.first:
            _publish_if_complete(store, state)

    jobs = [Job(state.plan, shard) for state, shard in ranks.share(_missing(states))]
    shards = make_shards(
        request.root, jobs, request.encoders, spec, workers=request.threads, device=request.device
    )
    with contextlib.closing(shards), ThreadPoolExecutor(1, thread_name_prefix="writer") as pool:
        writing: Future[None] | None = None
        for item in shards:
            if isinstance(item, int):
                meter.advance(item, "encoding")
                continue
            if writing is not None:
                writing.result()  # at most one shard in encoding and one in writing
            writing = pool.submit(write, item)
        if writing is not None:
            writing.result()


def _merge_rank_journals(store: Path, states: Sequence[GroupBuildState]) -> None:
    """Add the shards recorded by the other processes."""
    for state in states:
        journal = Journal.load(group_folder(store, state.plan.group))
        if journal is not None:
            state.shards.update(journal.shards)


def _publish_if_complete(store: Path, state: GroupBuildState) -> None:
    """Write the manifest atomically once every shard is recorded, then remove the journals."""
    if state.finished or state.missing:
        return
    folder = group_folder(store, state.plan.group)
    shards = tuple(record for _, record in sorted(state.shards.items()))
    content = GroupManifest(state.plan, shards).to_bytes()
    write_file(folder / MANIFEST, content)
    list_in_root(store, state.plan.group, seal_of(content))
    state.finished = state.listed = True
    remove_journals(folder)
