"""Rebuilds the damaged files of a store from the data they were built from."""

import contextlib
import uuid
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from cache.building.encode_shards import Job, MadeShard, count_inputs, make_shards
from cache.building.journal import list_in_root, read_repairing, write_repairing
from cache.building.lock import builder_lock
from cache.checking.verify_report import Problem, VerifyReport
from cache.format.encoder_weights import load_encoder_set
from cache.format.index_diff import index_differences
from cache.format.layout import (
    MANIFEST,
    PENDING,
    ZARR_JSON,
    GroupName,
    group_folder,
    group_metadata,
)
from cache.format.manifest import GroupManifest, RootManifest, ShardRecord, sorted_groups
from cache.format.object_store import StorePath
from cache.format.sealed_files import FileRecord, seal_of, write_file
from cache.format.shard_codec import encode_shard_file, row_checksums
from cache.remote.upload_lock import claim
from idif.data.index import Index, Sample
from idif.progress import Progress


def repair_store(
    store: StorePath,
    manifest: RootManifest,
    groups: dict[GroupName, GroupManifest],
    root: Path,
    index: Index,
    report: VerifyReport,
    workers: int,
    progress: Progress,
) -> None:
    """Repair the problems of ``report`` that can be repaired by rebuilding, and remove them from it.

    Manifests and encoder weights cannot be rebuilt from the data and remain in the report; with damaged
    weights no shard is rebuilt. Shards whose source files have changed remain in the report, too.

    Raises:
        StoreError: another process is building there. DatasetError: a file cannot be read.
    """
    with _writing(store):
        for problem in [p for p in report.problems if Path(p.file).name == ZARR_JSON]:
            _write_metadata(store, manifest, groups, problem)
            report.problems.remove(problem)
        jobs = _jobs(groups, sorted_groups(index), report)
        weights = manifest.spec.weights_files
        if any(problem.file in weights for problem in report.problems):
            return
        if not jobs:
            _end_repairs(store, groups, report)
            return
        encoders = load_encoder_set(store, manifest.spec)
        done = 0
        total = sum(sum(map(count_inputs, _samples(job))) for job in jobs)
        for item in make_shards(root, jobs, encoders, manifest.spec, workers=workers):
            if isinstance(item, int):
                done += item
                progress(done, total, "rebuilding")
            else:
                _replace(store, manifest, groups, item, report)
        _end_repairs(store, groups, report)


def _end_repairs(store: StorePath, groups: Mapping[GroupName, GroupManifest], report: VerifyReport) -> None:
    """Let readers open the repaired groups that have no other problem."""
    left = {problem.group for problem in report.problems if problem.file != PENDING}
    repairing = read_repairing(store)
    unfinished = [group for group in repairing if str(group) in left]
    for group in repairing:
        if group in groups and group not in unfinished and (sealed := groups[group].sealed):
            list_in_root(store, group, sealed)  # the repair was cut short before
    write_repairing(store, unfinished)
    names = {str(group) for group in unfinished}
    report.problems[:] = [p for p in report.problems if p.file != PENDING or p.group in names or not p.group]


def _writing(store: StorePath) -> contextlib.AbstractContextManager[None]:
    if isinstance(store, Path):
        return builder_lock(store)
    return claim(store, uuid.uuid4().hex, Path.cwd())


def _samples(job: Job) -> tuple[Sample, ...]:
    return job.plan.index.samples[slice(*job.plan.bounds[job.shard])]


def _write_metadata(
    store: StorePath, manifest: RootManifest, groups: dict[GroupName, GroupManifest], problem: Problem
) -> None:
    if not problem.group:
        data = group_metadata(root=True)
    else:
        group = next(group for group in groups if str(group) == problem.group)
        wanted = groups[group].plan.metadata_files(manifest.spec)
        data = wanted.get(problem.file.removeprefix(f"{group}/"), group_metadata())
    write_file(store / problem.file, data)


def _jobs(
    groups: dict[GroupName, GroupManifest], data: dict[GroupName, Index], report: VerifyReport
) -> list[Job]:
    """The damaged shards whose samples still exist in the data, with the data's paths."""
    jobs = []
    for group, manifest in groups.items():
        damaged = {p.shard for p in report.problems if p.group == str(group) and p.shard is not None}
        present = data.get(group)
        if not damaged or present is None or any(index_differences(manifest.plan.index, present)):
            continue
        plan = replace(manifest.plan, index=present)
        jobs += [Job(plan, shard) for shard in sorted(damaged)]
    return jobs


def _replace(
    store: StorePath,
    manifest: RootManifest,
    groups: dict[GroupName, GroupManifest],
    made: MadeShard,
    report: VerifyReport,
) -> None:
    """Rewrite the damaged files of one shard, or all of them if this machine computes other features."""
    group, shard = made.job.plan.group, made.job.shard
    finished, folder = groups[group], group_folder(store, group)
    record = finished.shards[shard]
    if made.content != record.content:
        return  # the data has changed since the build, which the comparison has already reported
    plan = finished.plan
    files = {}
    for array in plan.array_layouts(manifest.spec):
        values = made.values.arrays[array.name]
        files[array.shard_file(shard)] = encode_shard_file(
            array, len(plan.index), plan.shard_rows, shard, values
        )
    mended = [p for p in report.problems if p.group == str(group) and p.shard == shard]
    records = {name: FileRecord.of(data) for name, data in files.items()}
    if records == record.files:
        damaged = {p.file.removeprefix(f"{group}/") for p in mended}
        for name, data in files.items():
            if name in damaged:
                write_file(folder / name, data)
    else:
        write_repairing(store, {*read_repairing(store), group})
        for name, data in files.items():
            write_file(folder / name, data)
        checks = {name: row_checksums(values) for name, values in made.values.arrays.items()}
        shards = list(finished.shards)
        shards[shard] = ShardRecord.of(shard, records, checks, made.content)
        groups[group] = GroupManifest(plan, tuple(shards))
        content = groups[group].to_bytes()
        write_file(folder / MANIFEST, content)
        list_in_root(store, group, seal_of(content))
    report.shards_repaired += 1
    for problem in mended:
        report.problems.remove(problem)
