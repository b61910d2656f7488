"""What a store promises: settings shared by all groups, and per group its rows, content and files."""

from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any, Self

from cache.format.layout import (
    MANIFEST,
    ZARR_JSON,
    GroupName,
    array_layouts,
    group_metadata,
    json_bytes,
    shard_bounds,
)
from cache.format.object_store import StorePath
from cache.format.sealed_files import FileRecord, seal, unseal
from idif.data.features import FeatureSpec
from idif.data.index import Index
from idif.errors import StoreDamaged
from idif.fingerprint import digest


@dataclass(frozen=True)
class ViewContent:
    """SHA-256 (hex) of the files one view was built from."""

    image: str
    mask: str | None


SampleContent = tuple[ViewContent | None, ...]
"""One slot per view number; None where the view is absent."""


@dataclass(frozen=True)
class ShardRecord:
    """A finished shard: written only when all its files are in place."""

    shard: int
    files: dict[str, FileRecord]
    """Path relative to the group -> size and digest."""
    crc32c: dict[str, tuple[int, ...]]
    """Array -> CRC-32C of each row's values in memory, checked on every read."""
    sources: list[Any]
    """What each row was built from, as JSON has it: a reader of features never makes more of it."""

    @classmethod
    def of(
        cls,
        shard: int,
        files: dict[str, FileRecord],
        crc32c: dict[str, tuple[int, ...]],
        content: tuple[SampleContent, ...],
    ) -> Self:
        """The record of a shard built from ``content``."""
        sources = [[None if view is None else asdict(view) for view in row] for row in content]
        return cls(shard, files, crc32c, sources)

    @cached_property
    def content(self) -> tuple[SampleContent, ...]:
        """What each row was built from."""
        return tuple(
            tuple(None if view is None else ViewContent(**view) for view in row) for row in self.sources
        )

    def to_json(self) -> dict[str, Any]:
        """A JSON object from which `from_json` makes an equal record."""
        files = {name: asdict(record) for name, record in self.files.items()}
        return {"shard": self.shard, "files": files, "crc32c": self.crc32c, "content": self.sources}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Self:
        """The record that `to_json` wrote."""
        return cls(
            shard=data["shard"],
            files={name: FileRecord(**record) for name, record in data["files"].items()},
            crc32c={name: tuple(values) for name, values in data["crc32c"].items()},
            sources=data["content"],
        )


@dataclass(frozen=True)
class GroupPlan:
    """What a group shall hold, known before the first image is read."""

    group: GroupName
    spec_fingerprint: str
    index: Index
    """Its rows, ordered by sample id."""
    shard_rows: int
    batch_size: int
    """Samples encoded at once; kept so that a rebuilt shard repeats the same arithmetic."""

    @property
    def bounds(self) -> list[tuple[int, int]]:
        """(start, stop) rows of every shard."""
        return shard_bounds(len(self.index), self.shard_rows)

    def metadata_files(self, spec: FeatureSpec) -> dict[str, bytes]:
        """Path relative to the group -> content of its Zarr metadata."""
        files = {ZARR_JSON: group_metadata()}
        for array in array_layouts(spec, len(self.index.view_numbers)):
            metadata = array.metadata(len(self.index), self.shard_rows)
            files[f"{array.name}/{ZARR_JSON}"] = json_bytes(metadata)
        return files

    def to_json(self) -> dict[str, Any]:
        """A JSON object from which `from_json` makes an equal plan."""
        return {
            "category": self.group.category,
            "split": self.group.split,
            "spec": self.spec_fingerprint,
            "shard_rows": self.shard_rows,
            "batch_size": self.batch_size,
            "index": self.index.to_json(),
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Self:
        """The plan that `to_json` wrote."""
        return cls(
            group=GroupName.of(data["category"], data["split"]),
            spec_fingerprint=data["spec"],
            index=Index.from_json(data["index"]),
            shard_rows=data["shard_rows"],
            batch_size=data["batch_size"],
        )


@dataclass(frozen=True)
class GroupManifest:
    """A finished group."""

    plan: GroupPlan
    shards: tuple[ShardRecord, ...]

    @cached_property
    def content(self) -> tuple[SampleContent, ...]:
        """What each row was built from."""
        return tuple(row for shard in self.shards for row in shard.content)

    def crc32c(self, array: str, row: int) -> int:
        """CRC-32C of one row's values in memory."""
        shard, position = divmod(row, self.plan.shard_rows)
        return self.shards[shard].crc32c[array][position]

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 (hex) over ids, view numbers, anomaly classes and content: no path, no time."""
        rows = [
            [
                sample.sample_id,
                [
                    None if v is None or c is None else [v.number, v.anomaly_class, c.image, c.mask]
                    for v, c in zip(sample.views, content, strict=True)
                ],
            ]
            for sample, content in zip(self.plan.index.samples, self.content, strict=True)
        ]
        return digest(rows)

    def to_bytes(self) -> bytes:
        """The group's ``manifest.json``."""
        shards = [shard.to_json() for shard in self.shards]
        return seal({"fingerprint": self.fingerprint, **self.plan.to_json(), "shards": shards})

    @classmethod
    def load(cls, folder: StorePath) -> Self:
        """The manifest in a group's folder; raises what `unseal` raises."""
        return cls.from_json(unseal(folder / MANIFEST), str(folder / MANIFEST))

    @classmethod
    def from_json(cls, data: dict[str, Any], where: str) -> Self:
        """The manifest whose ``to_bytes`` were unsealed.

        Raises:
            StoreDamaged: they are whole, but of another kind of file; ``where`` is named.
        """
        if "shards" not in data:
            raise StoreDamaged(f"{where}: not the manifest of a category and split")
        shards = tuple(ShardRecord.from_json(shard) for shard in data["shards"])
        return cls(GroupPlan.from_json(data), shards)


@dataclass(frozen=True)
class RootManifest:
    """What all groups of a store share."""

    spec: FeatureSpec
    view_numbers: tuple[int, ...]
    files: dict[str, FileRecord]
    """The other files at the root: the teacher's weights and the root's ``zarr.json``."""

    def to_bytes(self) -> bytes:
        """The root's ``manifest.json``."""
        arrays = array_layouts(self.spec, len(self.view_numbers))
        value = {
            "spec": self.spec.to_json(),
            "view_numbers": list(self.view_numbers),
            "files": {name: asdict(record) for name, record in self.files.items()},
            # for people: the spec decides them, and each array's own zarr.json states them
            "codecs": {array.name: [codec["name"] for codec in array.codecs] for array in arrays},
        }
        return seal(value)

    @classmethod
    def load(cls, store: StorePath) -> Self:
        """The manifest at a store's root; raises what `unseal` raises."""
        return cls.from_json(unseal(store / MANIFEST), str(store / MANIFEST))

    @classmethod
    def from_json(cls, data: dict[str, Any], where: str) -> Self:
        """The manifest whose ``to_bytes`` were unsealed.

        Raises:
            StoreDamaged: they are whole, but of another kind of file; ``where`` is named.
        """
        if "files" not in data:
            raise StoreDamaged(f"{where}: not the manifest of a store's root")
        files = {name: FileRecord(**record) for name, record in data["files"].items()}
        return cls(FeatureSpec.from_json(data["spec"]), tuple(data["view_numbers"]), files)


def sorted_groups(index: Index) -> dict[GroupName, Index]:
    """One index per group, each ordered by sample id, in the order a store lists its groups."""
    rows: dict[GroupName, list[int]] = {}
    for row, sample in enumerate(index.samples):
        rows.setdefault(GroupName.of(sample.category, sample.split), []).append(row)
    return {
        group: index.take(sorted(rows[group], key=lambda row: index.samples[row].sample_id))
        for group in sorted(rows)
    }
