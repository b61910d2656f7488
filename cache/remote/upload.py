"""Builds a store in a local staging folder and uploads it to an object store."""

import contextlib
import hashlib
import re
import shutil
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

from cache.building.build import ALONE, BuildReport, build_store
from cache.building.build_state import (
    GroupBuildState,
    check_content,
    check_folder,
    load_build_state,
    plan_for_store,
)
from cache.building.encode_shards import count_inputs
from cache.building.journal import list_in_root, read_pending, write_pending
from cache.building.lock import builder_lock
from cache.building.ranks import Ranks
from cache.building.request import BuildRequest
from cache.format.layout import MANIFEST, ZARR_JSON, GroupName, group_folder, group_metadata
from cache.format.manifest import GroupManifest, RootManifest
from cache.format.object_store import ObjectPath
from cache.format.sealed_files import FileRecord, make_folder, write_file
from cache.reading.open_groups import list_groups
from cache.remote.upload_lock import claim
from idif.data.index import Sample, concatenate
from idif.errors import StoreDamaged
from idif.prefetch import prefetch_map
from idif.progress import Progress, silent

SENDERS = 4
"""Number of concurrent uploads, each fully in memory; with `cache.format.layout.MAX_SHARD_BYTES` this bounds
memory."""

_STAGED = "store"
_REMOVED = "store.tmp"
_TOKEN = "claim"


def build_remote(
    request: BuildRequest, *, staging: Path, ranks: Ranks = ALONE, progress: Progress = silent
) -> BuildReport:
    """As `build_store`, for a store in an object store.

    Finished remote groups are compared with the data and not changed. The others are built in the store's own
    folder below ``staging`` and uploaded, then the folder is removed. The same call continues an interrupted
    build: it does not encode staged shards or send uploaded objects again.

    Raises:
        The exceptions of `build_store`. StoreError: no access, or another machine is publishing there.
        StoreDamaged: the staged files differ from the built ones. CannotFinish: the object store fails.
    """
    began = time.monotonic()
    store, names = request.store, tuple(str(plan.group) for plan in request.plan_groups())
    assert isinstance(store, ObjectPath), "a store in a folder is built by `build_store`"
    home = staging / _folder_name(store)
    staged = home / _STAGED
    with _writing(store, home) if ranks.first else contextlib.nullcontext():
        ranks.wait()
        store = store.refreshed()  # list again now that the lock excludes other writers
        states = [
            load_build_state(store, plan, request.shard_rows) for plan in plan_for_store(store, request)
        ]
        if ranks.first:
            _compare(request, store, [state for state in states if state.finished], progress)
        missing = [state.plan.index for state in states if not state.finished]
        report = BuildReport()
        if missing:
            rest = replace(request, index=concatenate(missing), store=staged)
            report = build_store(rest, ranks=ranks, progress=progress)
        if ranks.first:
            if (staged / MANIFEST).exists():
                _publish(staged, store, progress)
            for state in states:
                if state.finished and not state.listed:  # killed just after the group's manifest
                    list_in_root(store.refreshed(), state.plan.group, state.sealed)
            _clear_pending(store.refreshed())
            if staged.exists() and all(list_groups(staged).values()):
                # renamed first: an interrupted removal must not look like a store
                staged.replace(home / _REMOVED)
                shutil.rmtree(home / _REMOVED, ignore_errors=True)
    ranks.wait()
    return replace(
        report,
        groups=names,
        shards_kept=report.shards_kept + sum(len(state.shards) for state in states),
        seconds=time.monotonic() - began,
    )


def _folder_name(store: ObjectPath) -> str:
    """A readable folder name for a store's address, with a digest of the address that makes it unique."""
    url = str(store)
    plain = re.sub(r"[^A-Za-z0-9.]+", "-", url.removeprefix("s3://"))
    return f"{plain[:80]}-{hashlib.sha256(url.encode()).hexdigest()[:8]}"


@contextlib.contextmanager
def _writing(store: ObjectPath, home: Path) -> Iterator[None]:
    """Context that locks the staging folder and the remote store; removes the folder if all is uploaded."""
    check_folder(store)
    make_folder(home)
    with builder_lock(home):
        shutil.rmtree(home / _REMOVED, ignore_errors=True)
        with claim(store, _token(home), home.resolve()):
            yield
        if not (home / _STAGED).exists():
            (home / _TOKEN).unlink()
    with contextlib.suppress(OSError):
        home.rmdir()


def _token(home: Path) -> str:
    """Token identifying this staging folder's lock."""
    path = home / _TOKEN
    if not path.exists():
        write_file(path, uuid.uuid4().hex.encode())
    return path.read_text()


def _compare(
    request: BuildRequest, store: ObjectPath, finished: list[GroupBuildState], progress: Progress
) -> None:
    """Raise StoreMismatch if the data differs from the source of the finished groups."""
    total = sum(state.inputs(shard) for state in finished for shard in state.shards)
    done = 0

    def compared(sample: Sample) -> None:
        nonlocal done
        done += count_inputs(sample)
        progress(done, total, "comparing")

    for state in finished:
        check_content(request.root, store, state, request.threads, compared)


def _publish(staged: Path, store: ObjectPath, progress: Progress) -> None:
    """Upload every finished group that the remote store lacks; an interruption leaves an unfinished build.

    The groups are announced before their first object, and a group's manifest is uploaded last.
    """
    there = list_groups(store, RootManifest.load(store) if (store / MANIFEST).exists() else None)
    new = [group for group, finished in list_groups(staged).items() if finished and not there.get(group)]
    if not new:
        return
    root = RootManifest.load(staged)
    manifests = {group: GroupManifest.load(group_folder(staged, group)) for group in new}
    pending = read_pending(store)
    if not {*new} <= {*pending}:
        write_pending(store, {*pending, *new})
    if not (store / MANIFEST).exists():
        _upload(staged, store, root.files)
        (store / MANIFEST).write_bytes(replace(root, groups=None if root.groups is None else {}).to_bytes())
    files = {group: _files(group, manifest, root) for group, manifest in manifests.items()}
    total = sum(record.size for records in files.values() for record in records.values())
    views = sum(count_inputs(sample) for m in manifests.values() for sample in m.plan.index.samples)
    sent = 0

    def tell(size: int) -> None:
        nonlocal sent
        sent += size
        progress(views * sent // total, views, "publishing")  # in the units of the build

    for group, records in files.items():
        _upload(staged, store, records, tell)
        _upload(staged, store, _manifest(staged, f"{group}/{MANIFEST}"))
        list_in_root(store.refreshed(), group, manifests[group].sealed)


def _files(group: GroupName, manifest: GroupManifest, root: RootManifest) -> dict[str, FileRecord]:
    """Every file that a group's manifest lists, by its path in the store."""
    metadata = {f"{group}/{name}": data for name, data in manifest.plan.metadata_files(root.spec).items()}
    metadata[f"{group.category}/{ZARR_JSON}"] = group_metadata()
    shards = {f"{group}/{name}": record for shard in manifest.shards for name, record in shard.files.items()}
    return {name: FileRecord.of(data) for name, data in metadata.items()} | shards


def _manifest(staged: Path, name: str) -> dict[str, FileRecord]:
    """The file record of a manifest, which has been loaded and thus checked before."""
    return {name: FileRecord.of((staged / name).read_bytes())}


def _upload(
    staged: Path,
    store: ObjectPath,
    files: Mapping[str, FileRecord],
    tell: Callable[[int], None] = lambda size: None,
) -> None:
    """Upload the given files except those already uploaded; returns when all are uploaded."""
    sending = prefetch_map(partial(_send_one, staged, store), files.items(), workers=SENDERS, depth=SENDERS)
    with contextlib.closing(sending):
        for record, _ in zip(files.values(), sending, strict=True):
            tell(record.size)


def _send_one(staged: Path, store: ObjectPath, file: tuple[str, FileRecord]) -> None:
    name, record = file
    target = store / name
    if target.is_file() and target.stat().st_size == record.size and target.sha256() == record.sha256:
        return
    try:
        data = (staged / name).read_bytes()
    except OSError as error:
        raise StoreDamaged(f"{staged / name}: cannot be read ({error.strerror or error})") from None
    if FileRecord.of(data) != record:
        raise StoreDamaged(f"{staged / name}: not the bytes that were built; remove {staged} and build again")
    target.write_bytes(data)


def _clear_pending(store: ObjectPath) -> None:
    """Remove finished groups from the list of announced ones."""
    pending = read_pending(store)
    groups = list_groups(store, RootManifest.load(store)) if pending else {}
    unfinished: list[GroupName] = [group for group in pending if not groups[group]]
    if unfinished != pending:
        write_pending(store, unfinished)
