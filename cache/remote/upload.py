"""Phase one into an object store: built in a folder of this machine, then published object by object."""

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

import torch

from cache.building.build import ALONE, BuildReport, build_store, checked_spec, plan_groups
from cache.building.build_state import (
    GroupBuildState,
    check_content,
    check_folder,
    check_settings,
    load_build_state,
)
from cache.building.journal import read_pending, write_pending
from cache.building.lock import builder_lock
from cache.building.ranks import Ranks
from cache.format.layout import MANIFEST, ZARR_JSON, GroupName, group_folder, group_metadata
from cache.format.manifest import GroupManifest, RootManifest
from cache.format.object_store import ObjectPath
from cache.format.sealed_files import FileRecord, make_folder, write_file
from cache.reading.open_groups import list_groups
from cache.remote.upload_lock import claim
from idif.data.decode import decode_threads
from idif.data.features import StorageType
from idif.data.index import Index, concatenate
from idif.encoders.frozen import FrozenEncoder
from idif.errors import StoreDamaged
from idif.prefetch import prefetch_map
from idif.progress import Progress, silent

SENDERS = 4
"""Objects sent at once, each whole in memory: with
`cache.format.layout.MAX_SHARD_BYTES` they bound its use."""

_STAGED = "store"
_REMOVED = "store.tmp"
_TOKEN = "claim"


def build_remote(
    root: Path,
    index: Index,
    store: ObjectPath,
    encoder: FrozenEncoder,
    *,
    staging: Path,
    image_size: int,
    storage: StorageType = "float16",
    batch_size: int = 8,
    workers: int | None = None,
    shard_rows: int | None = None,
    device: torch.device | None = None,
    team: Ranks = ALONE,
    progress: Progress = silent,
) -> BuildReport:
    """As `build_store`, for a store in an object store.

    Groups that are finished there are compared with the data and left. The others are built in a folder of
    this store's own below ``staging``, published, and the folder removed. Cut short at any moment, the same
    call goes on: it encodes no shard again that is in the folder, and sends no object again that has arrived.

    Raises:
        What `build_store` raises. StoreError: no access, or another machine is publishing there.
        StoreDamaged: what was staged is no longer what was built. CannotFinish: the object store fails.
    """
    began = time.monotonic()
    spec = checked_spec(encoder, image_size, storage)
    plans = plan_groups(index, spec, shard_rows, batch_size)
    home = staging / _folder_name(store)
    staged = home / _STAGED
    with _writing(store, home) if team.first else contextlib.nullcontext():
        team.wait()
        store = store.refreshed()  # as it is now that nobody else writes
        check_settings(store, spec, index.view_numbers)
        states = [load_build_state(store, plan, shard_rows) for plan in plans]
        if team.first:
            _compare(root, store, [state for state in states if state.finished], workers, progress)
        missing = [state.plan.index for state in states if not state.finished]
        report = BuildReport()
        if missing:
            report = build_store(
                root,
                concatenate(missing),
                staged,
                encoder,
                image_size=image_size,
                storage=storage,
                batch_size=batch_size,
                workers=workers,
                shard_rows=shard_rows,
                device=device,
                team=team,
                progress=progress,
            )
        if team.first:
            if (staged / MANIFEST).exists():
                _publish(staged, store, progress)
            _clear_pending(store.refreshed())
            if staged.exists() and all(list_groups(staged).values()):
                staged.replace(home / _REMOVED)  # whole or gone, however this ends
                shutil.rmtree(home / _REMOVED, ignore_errors=True)
    team.wait()
    return replace(
        report,
        groups=tuple(str(plan.group) for plan in plans),
        shards_kept=report.shards_kept + sum(len(state.shards) for state in states),
        seconds=time.monotonic() - began,
    )


def _folder_name(store: ObjectPath) -> str:
    """A name for people, and a digest that tells the addresses apart."""
    url = str(store)
    plain = re.sub(r"[^A-Za-z0-9.]+", "-", url.removeprefix("s3://"))
    return f"{plain[:80]}-{hashlib.sha256(url.encode()).hexdigest()[:8]}"


@contextlib.contextmanager
def _writing(store: ObjectPath, home: Path) -> Iterator[None]:
    """Hold the right to write here and there; at the end remove the folder, where it has done its work."""
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
    """By which this folder's own claim is known again."""
    path = home / _TOKEN
    if not path.exists():
        write_file(path, uuid.uuid4().hex.encode())
    return path.read_text()


def _compare(
    root: Path, store: ObjectPath, finished: list[GroupBuildState], workers: int | None, progress: Progress
) -> None:
    """Raise StoreMismatch where the data are not what the finished groups were built from."""
    total = sum(state.views(shard) for state in finished for shard in state.shards)
    done = 0

    def compared(views: int) -> None:
        nonlocal done
        done += views
        progress(done, total, "comparing")

    for state in finished:
        check_content(
            root, store, state, workers or decode_threads(), lambda sample: compared(sum(sample.present))
        )


def _publish(staged: Path, store: ObjectPath, progress: Progress) -> None:
    """Send every finished group that is not there yet, so that each state in between is that of a build.

    The groups are announced before the first object of theirs, and a group's manifest is its last.
    """
    there = list_groups(store)
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
        _upload(staged, store, _manifest(staged, MANIFEST))
    files = {group: _files(group, manifest, root) for group, manifest in manifests.items()}
    total = sum(record.size for records in files.values() for record in records.values())
    views = sum(sum(sample.present) for m in manifests.values() for sample in m.plan.index.samples)
    sent = 0

    def tell(size: int) -> None:
        nonlocal sent
        sent += size
        progress(views * sent // total, views, "publishing")  # as the build counted

    for group, records in files.items():
        _upload(staged, store, records, tell)
        _upload(staged, store, _manifest(staged, f"{group}/{MANIFEST}"))


def _files(group: GroupName, manifest: GroupManifest, root: RootManifest) -> dict[str, FileRecord]:
    """Every file that a group's manifest promises, by its path in the store."""
    metadata = {f"{group}/{name}": data for name, data in manifest.plan.metadata_files(root.spec).items()}
    metadata[f"{group.category}/{ZARR_JSON}"] = group_metadata()
    shards = {f"{group}/{name}": record for shard in manifest.shards for name, record in shard.files.items()}
    return {name: FileRecord.of(data) for name, data in metadata.items()} | shards


def _manifest(staged: Path, name: str) -> dict[str, FileRecord]:
    """The record of a manifest, which carries its own digest and has been loaded."""
    return {name: FileRecord.of((staged / name).read_bytes())}


def _upload(
    staged: Path,
    store: ObjectPath,
    files: Mapping[str, FileRecord],
    tell: Callable[[int], None] = lambda size: None,
) -> None:
    """Put these files there, but for those that have arrived already; return when all are."""
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
    """Take groups that are finished off the list of those to come."""
    pending, groups = read_pending(store), list_groups(store)
    unfinished: list[GroupName] = [group for group in pending if not groups[group]]
    if unfinished != pending:
        write_pending(store, unfinished)
