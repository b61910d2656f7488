"""Progress records of a build: the groups being built, and the finished shards of each group."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from cache.format.layout import JOURNAL, MANIFEST, PENDING, GroupName
from cache.format.manifest import GroupPlan, RootManifest, ShardRecord
from cache.format.object_store import StorePath
from cache.format.sealed_files import remove_file, seal, unseal, write_file
from idif.errors import StoreDamaged, StoreError
from idif.files import append
from idif.fingerprint import digest


def read_pending(store: StorePath) -> list[GroupName]:
    """The groups whose build was announced but is not finished."""
    return _read_announced(store, "groups")


def write_pending(store: StorePath, groups: Iterable[GroupName]) -> None:
    """Record groups before the first is built, so that an interrupted store never looks complete."""
    _announce(store, groups, read_repairing(store))


def read_repairing(store: StorePath) -> list[GroupName]:
    """The finished groups whose files and manifest a repair is replacing, or was when it was killed."""
    return _read_announced(store, "repairing")


def write_repairing(store: StorePath, groups: Iterable[GroupName]) -> None:
    """Record groups before the first of their files is replaced, so that no reader sees half a repair."""
    _announce(store, read_pending(store), groups)


def _read_announced(store: StorePath, key: str) -> list[GroupName]:
    try:
        data = unseal(store / PENDING)
    except FileNotFoundError:
        return []
    return [GroupName.of(category, split) for category, split in data.get(key, ())]


def _announce(store: StorePath, pending: Iterable[GroupName], repairing: Iterable[GroupName]) -> None:
    lists = {"groups": sorted(pending), "repairing": sorted(repairing)}
    value = {key: [[group.category, group.split] for group in names] for key, names in lists.items()}
    if not value["repairing"]:
        del value["repairing"]
    if any(value.values()):
        write_file(store / PENDING, seal(value))
    else:
        remove_file(store / PENDING)


def list_in_root(store: StorePath, group: GroupName, sealed: str) -> None:
    """List a finished group in the root's manifest; the group is not part of the store before.

    Args:
        sealed: the digest of the group's manifest, which is written already.
    """
    root = RootManifest.load(store)
    if not root.lists(group, sealed):
        write_file(store / MANIFEST, root.with_group(group, sealed).to_bytes())


@dataclass(frozen=True)
class Journal:
    """The record of one group's unfinished build: one line for its plan, then one per finished shard.

    Each line has its own digest; an incomplete last line is ignored. Each builder writes its own journal, and
    `load` reads all of them.
    """

    path: Path
    plan: GroupPlan
    shards: dict[int, ShardRecord]

    @classmethod
    def load(cls, folder: Path) -> Self | None:
        """The journal in a group's folder, if there is one.

        Raises:
            StoreDamaged: the first line is damaged.
        """
        journal = cls._load_one(folder / JOURNAL)
        if journal is not None:
            for path in _later_ranks(folder):
                other = cls._load_one(path)
                if other is not None:
                    journal.shards.update(other.shards)
        return journal

    @classmethod
    def _load_one(cls, path: Path) -> Self | None:
        try:
            lines = path.read_bytes().splitlines(keepends=True)
        except FileNotFoundError:
            return None
        values = []
        for line in lines:
            value = _parse(line)
            if value is None:
                break
            values.append(value)
        if not values:
            raise StoreDamaged(
                f"{path}: not the bytes that were written; remove {path.parent} and build again"
            )
        records = [ShardRecord.from_json(value) for value in values[1:]]
        return cls(path, GroupPlan.from_json(values[0]), {record.shard: record for record in records})

    @classmethod
    def begin(cls, folder: Path, plan: GroupPlan, shards: dict[int, ShardRecord]) -> Self:
        """Write one journal with every finished shard, replacing the journals of earlier builders."""
        journal = cls(folder / JOURNAL, plan, shards)
        journal.write()
        for path in _later_ranks(folder):
            remove_file(path)
        return journal

    @classmethod
    def of_member(cls, folder: Path, plan: GroupPlan, shards: dict[int, ShardRecord], rank: int) -> Self:
        """The journal of one of several builders; the first uses the one written by `begin`."""
        if rank == 0:
            return cls(folder / JOURNAL, plan, shards)
        path = folder / f"build-{rank}.jsonl"
        if not path.exists():
            cls(path, plan, {}).write()
        return cls(path, plan, shards)

    def write(self) -> None:
        """Rewrite the journal without incomplete lines."""
        records = (_line(record.to_json()) for _, record in sorted(self.shards.items()))
        write_file(self.path, _line(self.plan.to_json()) + b"".join(records))

    def add(self, record: ShardRecord) -> None:
        """Record a shard whose files are all written; durable when this returns."""
        append(self.path, _line(record.to_json()), StoreError)
        self.shards[record.shard] = record


def remove_journals(folder: Path) -> None:
    """Remove a group's journals once its manifest is in place."""
    for path in (*_later_ranks(folder), folder / JOURNAL):
        remove_file(path)


def has_journals(folder: Path) -> bool:
    """Whether a group's folder has a journal."""
    return (folder / JOURNAL).exists() or bool(_later_ranks(folder))


def _later_ranks(folder: Path) -> list[Path]:
    return sorted(folder.glob("build-*.jsonl"))


def _line(value: object) -> bytes:
    # round trip through JSON, so that the digest is over the values a reader sees (lists, not tuples)
    plain = json.loads(json.dumps(value))
    return json.dumps([digest(plain), plain], ensure_ascii=False, separators=(",", ":")).encode() + b"\n"


def _parse(line: bytes) -> dict[str, object] | None:
    try:
        sha256, value = json.loads(line)
    except (ValueError, TypeError):
        return None
    return value if isinstance(value, dict) and line.endswith(b"\n") and digest(value) == sha256 else None
