"""Opens a store's finished groups; raises, naming the missing, unfinished or damaged part."""

import contextlib
import difflib
import gc
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from cache.building.journal import read_pending, read_repairing
from cache.format.layout import JOURNAL, MANIFEST, ZARR_JSON, GroupName, group_folder, group_metadata
from cache.format.manifest import GroupManifest, RootManifest
from cache.format.object_store import REQUESTS, ObjectPath, StorePath, store_path
from cache.format.sealed_files import FileRecord
from idif.data.features import FeatureSpec
from idif.data.index import SPLITS, Split
from idif.errors import StoreDamaged, StoreError, StoreIncomplete
from idif.fingerprint import digest


@dataclass(frozen=True)
class OpenGroup:
    """One finished group of a store."""

    folder: StorePath
    manifest: GroupManifest


@contextlib.contextmanager
def _gc_disabled() -> Iterator[None]:
    """Disable garbage collection while a manifest's many small objects are created.

    None of them is garbage, and collection takes three times as long as creating them.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def list_groups(store: StorePath, root: RootManifest | None = None) -> dict[GroupName, bool]:
    """The groups of a store, in order, and whether each is finished: it is there, and the root lists it.

    Args:
        root: the root's manifest; groups that have a manifest count as finished when None.
    """
    listed = None if root is None else root.groups
    groups: dict[GroupName, bool] = {}
    for category in store.iterdir():
        for split in SPLITS:
            folder = category / split
            if folder.is_dir():
                group = GroupName.of(category.name, split)
                groups[group] = (folder / MANIFEST).is_file() and (listed is None or str(group) in listed)
    for name in listed or ():
        groups.setdefault(GroupName.parse(name), False)
    for group in read_pending(store):
        groups.setdefault(group, False)
    for group in read_repairing(store):
        groups[group] = False
    return {group: groups[group] for group in sorted(groups)}


def store_bytes(store: StorePath) -> int:
    """Total size of a store's files in bytes."""
    if isinstance(store, ObjectPath):
        return sum(store.bucket.sizes.values())
    return sum(path.stat().st_size for path in store.rglob("*") if path.is_file())


def load_root(store: StorePath) -> RootManifest:
    """Load the root manifest and check the sizes of its files.

    Raises:
        StoreError: no folder, or not a store. StoreIncomplete: its build was interrupted at the start.
        StoreDamaged: the manifest or another file differs from the written one.
    """
    if not store.is_dir():
        raise StoreError(f"{store}: no such store; build one with 'idif cache build'")
    try:
        root = RootManifest.load(store)
    except FileNotFoundError:
        if read_pending(store):
            raise StoreIncomplete(f"{store}: the build was cut short; run it again to continue") from None
        with contextlib.suppress(OSError):
            if (store / ZARR_JSON).read_bytes() == group_metadata(root=True):
                raise StoreDamaged(f"{store / MANIFEST}: missing") from None
        raise StoreError(f"{store}: not a store (it has no {MANIFEST})") from None
    check_sizes(store, root.files)
    return root


def check_sizes(folder: StorePath, files: dict[str, FileRecord]) -> None:
    """Refuse files that are missing or of another size than recorded.

    Raises:
        StoreDamaged: names the first such file.
    """
    for name, record in files.items():
        try:
            size = (folder / name).stat().st_size
        except OSError:
            raise StoreDamaged(f"{folder / name}: missing") from None
        if size != record.size:
            raise StoreDamaged(f"{folder / name}: {size} bytes, expected {record.size}")


def open_store(
    path: str | StorePath, categories: Sequence[str] | None, splits: Sequence[Split] | None
) -> tuple[StorePath, RootManifest, list[OpenGroup]]:
    """Open the root and the groups of some categories and splits of a store.

    Args:
        path: a folder, or ``s3://BUCKET/PREFIX`` as text.
        categories: all when None. splits: all when None.

    Raises:
        The exceptions of `cache.FeatureStore.open`.
    """
    store = store_path(path)
    while True:
        root = load_root(store)
        try:
            chosen = choose_groups(store, root, list_groups(store, root), categories, splits)
            return store, root, open_groups(store, root, chosen)
        except StoreDamaged:
            # a build or repair that replaced the root meanwhile; what it wrote is read instead
            if isinstance(store, ObjectPath):
                store = store.refreshed()
            if load_root(store) == root:
                raise


def choose_groups(
    store: StorePath,
    root: RootManifest,
    groups: dict[GroupName, bool],
    categories: Sequence[str] | None,
    splits: Sequence[Split] | None,
) -> list[GroupName]:
    """Select groups, in the store's order.

    Args:
        groups: result of `list_groups`.
        categories: all when None. splits: all when None.

    Raises:
        StoreError: a category is not in the store; the nearest names are suggested.
        StoreIncomplete: a selected group is not finished, or is being repaired.
        StoreDamaged: a selected group is gone, or none that the root lists.
    """
    known = sorted({group.category for group in groups})
    for category in categories or ():
        if category not in known:
            near = difflib.get_close_matches(category, known, n=3) or known[:5]
            raise StoreError(f"{store}: no category {category!r}; nearest: {', '.join(near) or 'none'}")
    chosen = [
        group
        for group in groups
        if (categories is None or group.category in categories) and (splits is None or group.split in splits)
    ]
    named = " or ".join(splits or ())
    if not chosen:
        raise StoreError(f"{store}: holds no {named + ' split' if named else 'group'} of what was asked for")
    for category in categories or ():
        if not any(group.category == category for group in chosen):
            raise StoreError(f"{store}: holds no {named} split of {category}")
    for group in chosen:
        if not groups[group]:
            raise _not_finished(store, root, group)
    return chosen


def _not_finished(store: StorePath, root: RootManifest, group: GroupName) -> StoreError:
    """The error of a group that cannot be opened."""
    if group in read_repairing(store):
        return StoreIncomplete(
            f"{store}: {group} is being repaired, or its repair was cut short; wait for it, or run 'idif "
            "cache verify --repair' again"
        )
    folder = group_folder(store, group)
    manifest = folder / MANIFEST
    if group not in read_pending(store) and root.groups is not None:
        if str(group) in root.groups:
            return StoreDamaged(f"{manifest}: missing, but the store lists {group}; build it again")
        if manifest.is_file():
            return StoreDamaged(
                f"{manifest}: the store does not list {group}, it is of another store; remove {folder}"
            )
    return StoreIncomplete(f"{store}: {_how_far(store, group)}; run 'idif cache build' again")


def _how_far(store: StorePath, group: GroupName) -> str:
    folder = group_folder(store, group)
    if not (folder / JOURNAL).exists():
        return f"{group} has no {MANIFEST}: its build never finished, or the file was lost"
    return f"the build of {group} has not finished"


def open_groups(store: StorePath, root: RootManifest, groups: Sequence[GroupName]) -> list[OpenGroup]:
    """Open finished groups, in the given order; raises as `open_group`."""
    with _gc_disabled():
        if isinstance(store, Path):
            return [open_group(store, root, group) for group in groups]
        with ThreadPoolExecutor(REQUESTS) as requests:
            return list(requests.map(partial(open_group, store, root), groups))


def was_replaced(store: StorePath, group: OpenGroup) -> bool:
    """Whether a group is no longer as it was opened, or is being repaired."""
    if isinstance(store, ObjectPath):
        store = store.refreshed()
    name = group.manifest.plan.group
    try:
        sealed = GroupManifest.load(group_folder(store, name)).sealed
        return sealed != group.manifest.sealed or name in read_repairing(store)
    except (StoreError, FileNotFoundError):
        return False


def store_fingerprint(spec: FeatureSpec, groups: Sequence[OpenGroup]) -> str:
    """SHA-256 (hex) over the spec's fingerprint and those of the groups."""
    of_groups = {str(group.manifest.plan.group): group.manifest.fingerprint for group in groups}
    return digest({"spec": spec.fingerprint, "groups": of_groups})


def open_group(store: StorePath, root: RootManifest, group: GroupName) -> OpenGroup:
    """Open a finished group; checks its metadata and the sizes of its files.

    Raises:
        StoreDamaged: a file is missing or differs from the written one; it is named.
    """
    folder = group_folder(store, group)
    manifest = GroupManifest.load(folder)
    if manifest.plan.group != group or manifest.plan.spec_fingerprint != root.spec.fingerprint:
        raise StoreDamaged(f"{folder / MANIFEST}: belongs to {manifest.plan.group} of another place or store")
    if not root.lists(group, manifest.sealed):
        raise StoreDamaged(
            f"{folder / MANIFEST}: not the one that the store lists, it is of another store or time"
        )
    manifest.check_complete(root.spec, str(folder / MANIFEST))
    for name, data in manifest.plan.metadata_files(root.spec).items():
        try:
            same = (folder / name).read_bytes() == data
        except OSError:
            raise StoreDamaged(f"{folder / name}: missing") from None
        if not same:
            raise StoreDamaged(f"{folder / name}: not the bytes that were written")
    for shard in manifest.shards:
        check_sizes(folder, shard.files)
    return OpenGroup(folder, manifest)
