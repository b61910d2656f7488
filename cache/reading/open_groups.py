"""Opens a store's finished groups; raises, naming the missing, unfinished or damaged part."""

import contextlib
import difflib
import gc
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from cache.building.journal import read_pending
from cache.format.layout import JOURNAL, MANIFEST, SPLITS, ZARR_JSON, GroupName, group_folder, group_metadata
from cache.format.manifest import GroupManifest, RootManifest
from cache.format.object_store import REQUESTS, ObjectPath, StorePath
from cache.format.sealed_files import FileRecord
from idif.data.features import FeatureSpec
from idif.data.index import Split
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


def list_groups(store: StorePath) -> dict[GroupName, bool]:
    """The groups of a store, in order, and whether each is finished."""
    groups: dict[GroupName, bool] = {}
    for category in store.iterdir():
        for split in SPLITS:
            folder = category / split
            if folder.is_dir():
                groups[GroupName.of(category.name, split)] = (folder / MANIFEST).is_file()
    for group in read_pending(store):
        groups.setdefault(group, False)
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


def choose_groups(
    store: StorePath, groups: dict[GroupName, bool], categories: Sequence[str] | None, split: Split | None
) -> list[GroupName]:
    """Select groups, in the store's order.

    Args:
        groups: result of `list_groups`.
        categories: all when None. split: both when None.

    Raises:
        StoreError: a category is not in the store; the nearest names are suggested.
        StoreIncomplete: a selected group is not finished.
    """
    known = sorted({group.category for group in groups})
    for category in categories or ():
        if category not in known:
            near = difflib.get_close_matches(category, known, n=3) or known[:5]
            raise StoreError(f"{store}: no category {category!r}; nearest: {', '.join(near) or 'none'}")
    chosen = [
        group
        for group in groups
        if (categories is None or group.category in categories) and split in (None, group.split)
    ]
    if not chosen:
        raise StoreError(f"{store}: holds no {split + ' split' if split else 'group'} of what was asked for")
    for category in categories or ():
        if not any(group.category == category for group in chosen):
            raise StoreError(f"{store}: holds no {split} split of {category}")
    for group in chosen:
        if not groups[group]:
            raise StoreIncomplete(f"{store}: {_how_far(store, group)}; run 'idif cache build' again")
    return chosen


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
