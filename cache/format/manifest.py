"""Manifests of a store: the shared settings, and for each group its rows, content and files."""

import contextlib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from cache.format.layout import (
    LABELS,
    MANIFEST,
    SAMPLE_LABELS,
    VIEW_MASK,
    ZARR_JSON,
    ArrayLayout,
    GroupName,
    group_metadata,
    json_bytes,
    present_name,
    shard_bounds,
    truth_layouts,
    value_layouts,
)
from cache.format.object_store import StorePath
from cache.format.sealed_files import FileRecord, seal, unseal
from idif.data.features import FeatureSpec
from idif.data.index import Index, Sample
from idif.errors import StoreDamaged
from idif.fingerprint import digest
from idif.paths import is_portable_name, shown

Array = npt.NDArray[Any]

_SHARD_FILE = re.compile(r"[^/]+/c/[0-9]+(?:/0)*")
"""The form of `cache.format.layout.ArrayLayout.shard_file`."""


@contextlib.contextmanager
def _as_damage(where: str) -> Iterator[None]:
    """Translate the errors of a sealed file whose values are not those of a manifest."""
    try:
        yield
    except (KeyError, TypeError, ValueError, AttributeError, AssertionError) as error:
        raise StoreDamaged(f"{where}: not a manifest that this program wrote ({error!r})") from None


@dataclass(frozen=True)
class ViewContent:
    """SHA-256 (hex) of the source files of one view."""

    image: str
    mask: str | None


@dataclass(frozen=True)
class SampleContent:
    """SHA-256 (hex) of the source files of one sample."""

    views: tuple[ViewContent | None, ...]
    """One slot per view number; None if the view is absent."""
    inputs: Mapping[str, str | None] = field(default_factory=dict)
    """{per-sample input: hash of its file}; None if it is absent."""

    def to_json(self) -> Any:
        """A JSON value from which `from_json` makes an equal object; a list if there are only views."""
        views = [None if view is None else asdict(view) for view in self.views]
        return {"views": views, "inputs": dict(self.inputs)} if self.inputs else views

    @classmethod
    def from_json(cls, data: Any) -> Self:
        """The content that `to_json` wrote."""
        views, inputs = (data["views"], data["inputs"]) if isinstance(data, dict) else (data, {})
        return cls(tuple(None if view is None else ViewContent(**view) for view in views), inputs)


@dataclass(frozen=True)
class ShardRecord:
    """A finished shard; recorded only after all its files are written."""

    shard: int
    files: dict[str, FileRecord]
    """Path relative to the group -> size and digest."""
    crc32c: dict[str, tuple[int, ...]]
    """Array -> CRC-32C of each row's values in memory, which every read checks."""
    sources: list[Any]
    """Content of each row as raw JSON, since most readers do not need it as objects."""

    @classmethod
    def of(
        cls,
        shard: int,
        files: dict[str, FileRecord],
        crc32c: dict[str, tuple[int, ...]],
        content: tuple[SampleContent, ...],
    ) -> Self:
        """The record of a shard built from ``content``."""
        return cls(shard, files, crc32c, [row.to_json() for row in content])

    @cached_property
    def content(self) -> tuple[SampleContent, ...]:
        """Hashes of each row's source files."""
        return tuple(SampleContent.from_json(row) for row in self.sources)

    def to_json(self) -> dict[str, Any]:
        """A JSON object from which `from_json` makes an equal record."""
        files = {name: asdict(record) for name, record in self.files.items()}
        return {"shard": self.shard, "files": files, "crc32c": self.crc32c, "content": self.sources}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Self:
        """The record that `to_json` wrote.

        Raises:
            ValueError: a file's name is not that of a shard, so that it could lie outside the group.
        """
        for name in data["files"]:
            if not _SHARD_FILE.fullmatch(name) or not is_portable_name(name.partition("/")[0]):
                raise ValueError(f"file {shown(name)}: expected <array>/c/<shard>/0/...")
        return cls(
            shard=data["shard"],
            files={name: FileRecord(**record) for name, record in data["files"].items()},
            crc32c={name: tuple(values) for name, values in data["crc32c"].items()},
            sources=data["content"],
        )


@dataclass(frozen=True)
class GroupPlan:
    """The rows and settings of a group, complete before the first image is read."""

    group: GroupName
    spec_fingerprint: str
    index: Index
    """The rows of the group, ordered by sample id."""
    shard_rows: int
    batch_size: int
    """Samples encoded at once; recorded so that rebuilding a shard repeats the same arithmetic."""

    @property
    def bounds(self) -> list[tuple[int, int]]:
        """(start, stop) rows of every shard."""
        return shard_bounds(len(self.index), self.shard_rows)

    def array_layouts(self, spec: FeatureSpec) -> tuple[ArrayLayout, ...]:
        """All arrays of the group: the encoders', scales, images, masks, presence and labels."""
        return (*value_layouts(spec, len(self.index.view_numbers)), *truth_layouts(spec, self.index))

    def truth_arrays(self, spec: FeatureSpec, start: int, stop: int) -> dict[str, Array]:
        """Presence and labels of the rows from ``start`` to ``stop``, bool, by array."""
        samples = self.index.samples[start:stop]
        values = {
            VIEW_MASK: [sample.present for sample in samples],
            LABELS: [sample.labels for sample in samples],
            SAMPLE_LABELS: [sample.label for sample in samples],
        }
        for name in spec.inputs:
            values[present_name(name)] = [sample.inputs[name] is not None for sample in samples]
        names = [array.name for array in truth_layouts(spec, self.index)]
        return {name: np.array(values[name], np.bool_) for name in names}

    def metadata_files(self, spec: FeatureSpec) -> dict[str, bytes]:
        """Path relative to the group -> content of its Zarr metadata."""
        files = {ZARR_JSON: group_metadata()}
        for array in self.array_layouts(spec):
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
    sealed: str = field(default="", compare=False)
    """Digest of the file that it was loaded from, by which the root lists it; empty before it is written."""

    @cached_property
    def content(self) -> tuple[SampleContent, ...]:
        """Hashes of each row's source files."""
        return tuple(row for shard in self.shards for row in shard.content)

    def crc32c(self, array: str, row: int) -> int:
        """CRC-32C of one row's values in memory."""
        shard, position = divmod(row, self.plan.shard_rows)
        return self.shards[shard].crc32c[array][position]

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 (hex) over ids, view numbers, classes and content; independent of paths and times."""
        rows = [
            _row_identity(sample, content)
            for sample, content in zip(self.plan.index.samples, self.content, strict=True)
        ]
        return digest(rows)

    def to_bytes(self) -> bytes:
        """The group's ``manifest.json``."""
        shards = [shard.to_json() for shard in self.shards]
        return seal({"fingerprint": self.fingerprint, **self.plan.to_json(), "shards": shards})

    @classmethod
    def load(cls, folder: StorePath) -> Self:
        """Load the manifest in a group's folder; raises as `unseal`."""
        return cls.from_json(unseal(folder / MANIFEST), str(folder / MANIFEST))

    @classmethod
    def from_json(cls, data: dict[str, Any], where: str) -> Self:
        """The manifest whose ``to_bytes`` were unsealed.

        Raises:
            StoreDamaged: they are whole, but of another kind of file, or name files outside the group;
                ``where`` is named.
            StoreError: the category cannot be a folder's name.
        """
        if "shards" not in data:
            raise StoreDamaged(f"{where}: not the manifest of a category and split")
        with _as_damage(where):
            shards = tuple(ShardRecord.from_json(shard) for shard in data["shards"])
            return cls(GroupPlan.from_json(data), shards, data["sha256"])

    def check_complete(self, spec: FeatureSpec, where: str) -> None:
        """Refuse a manifest that does not describe every row of every array of the group.

        Raises:
            StoreDamaged: ``where`` and the first gap are named.
        """
        arrays, bounds = self.plan.array_layouts(spec), self.plan.bounds
        if [record.shard for record in self.shards] != list(range(len(bounds))):
            raise StoreDamaged(f"{where}: does not list every shard once, in order")
        for record, (start, stop) in zip(self.shards, bounds, strict=True):
            rows = {name: len(checks) for name, checks in record.crc32c.items()}
            if rows != {array.name: stop - start for array in arrays} or len(record.sources) != stop - start:
                raise StoreDamaged(f"{where}: shard {record.shard} does not list every row of every array")
            if record.files.keys() != {array.shard_file(record.shard) for array in arrays}:
                raise StoreDamaged(f"{where}: shard {record.shard} does not list the file of every array")


@dataclass(frozen=True)
class RootManifest:
    """The settings that all groups of a store share."""

    spec: FeatureSpec
    view_numbers: tuple[int, ...]
    files: dict[str, FileRecord]
    """The other files at the root: the encoders' weights and the root's ``zarr.json``."""
    groups: Mapping[str, str] | None = field(default_factory=dict)
    """{finished group: digest of its manifest}; None in stores of versions that listed none."""

    def with_group(self, group: GroupName, sealed: str) -> Self:
        """The manifest that lists a finished group, in the place of an earlier state of it."""
        if self.groups is None:
            return self
        groups = {**self.groups, str(group): sealed}
        order = sorted(map(GroupName.parse, groups))
        return replace(self, groups={str(name): groups[str(name)] for name in order})

    def lists(self, group: GroupName, sealed: str) -> bool:
        """Whether a group's manifest with this digest is one of the store."""
        return self.groups is None or self.groups.get(str(group)) == sealed

    def to_bytes(self) -> bytes:
        """The root's ``manifest.json``."""
        no_rows = Index(self.view_numbers, ())
        arrays = (*value_layouts(self.spec, len(self.view_numbers)), *truth_layouts(self.spec, no_rows))
        value = {
            "spec": self.spec.to_json(),
            "view_numbers": list(self.view_numbers),
            "files": {name: asdict(record) for name, record in self.files.items()},
            **({} if self.groups is None else {"groups": dict(self.groups)}),
            # informative only: derived from the spec, and also in each array's zarr.json
            "codecs": {array.name: [codec["name"] for codec in array.codecs] for array in arrays},
        }
        return seal(value)

    @classmethod
    def load(cls, store: StorePath) -> Self:
        """Load the manifest at a store's root; raises as `unseal`."""
        return cls.from_json(unseal(store / MANIFEST), str(store / MANIFEST))

    @classmethod
    def from_json(cls, data: dict[str, Any], where: str) -> Self:
        """The manifest whose ``to_bytes`` were unsealed.

        Raises:
            StoreDamaged: they are whole, but of another kind of file, or name files outside the store;
                ``where`` is named.
        """
        if "files" not in data:
            raise StoreDamaged(f"{where}: not the manifest of a store's root")
        with _as_damage(where):
            files = {name: FileRecord(**record) for name, record in data["files"].items()}
            for name in files:
                if not is_portable_name(name):
                    raise ValueError(f"file {shown(name)}: expected one of the store's root")
            groups = data.get("groups")
            for name in groups or ():
                GroupName.parse(name)
            return cls(FeatureSpec.from_json(data["spec"]), tuple(data["view_numbers"]), files, groups)


def _row_identity(sample: Sample, content: SampleContent) -> list[Any]:
    views = [
        None if v is None or c is None else [v.number, v.anomaly_class, c.image, c.mask]
        for v, c in zip(sample.views, content.views, strict=True)
    ]
    once = [sample.sample_class, dict(content.inputs)]
    return [sample.sample_id, views, *(once if any(once) else ())]


def select_inputs(index: Index, inputs: Sequence[str]) -> Index:
    """The index restricted to the given inputs of every sample, i.e. those of a store's encoders."""

    def select(sample: Sample) -> Sample:
        if tuple(sample.inputs) == tuple(inputs):
            return sample
        return replace(sample, inputs={name: sample.inputs.get(name) for name in inputs})

    return replace(index, samples=tuple(select(sample) for sample in index.samples))


def sorted_groups(index: Index) -> dict[GroupName, Index]:
    """One index per group, ordered by sample id; groups in the store's order."""
    rows: dict[GroupName, list[int]] = {}
    for row, sample in enumerate(index.samples):
        rows.setdefault(GroupName.of(sample.category, sample.split), []).append(row)
    return {
        group: index.take(sorted(rows[group], key=lambda row: index.samples[row].sample_id))
        for group in sorted(rows)
    }
