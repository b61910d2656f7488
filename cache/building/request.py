"""`BuildRequest`: arguments of a build, and the groups planned from them."""

from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path

import torch

from cache.format.layout import check_names, choose_shard_rows, value_layouts
from cache.format.manifest import GroupPlan, select_inputs, sorted_groups
from cache.format.object_store import StorePath
from idif.data.arrays import StorageType
from idif.data.decode import decode_threads
from idif.data.features import FeatureSpec
from idif.data.index import Index
from idif.encoders.encode import EncoderSet
from idif.errors import DatasetError


@dataclass(frozen=True)
class BuildRequest:
    """A requested store: its data, its encoders and build settings."""

    root: Path
    """Folder of the dataset; the index's paths are relative to it."""
    index: Index
    """The samples of the store."""
    store: StorePath
    """Location of the store; created if missing, extended if it contains a store with the same settings."""
    encoders: EncoderSet
    storage: StorageType = "float16"
    batch_size: int = 8
    """Samples encoded at once. An unfinished group keeps its original batch size."""
    workers: int | None = None
    """Number of decoding threads; one per core (at most 8) when None."""
    shard_rows: int | None = None
    """Rows per shard; chosen by size when None."""
    device: torch.device | None = None
    """Device of the encoders; the CPU when None."""

    @property
    def threads(self) -> int:
        """Number of decoding threads."""
        return self.workers or decode_threads()

    @cached_property
    def spec(self) -> FeatureSpec:
        """The specification of the store's arrays.

        Raises:
            ConfigError: two encoders have an array or file of the same name.
        """
        spec = self.encoders.spec(self.storage)
        check_names(spec)
        return spec

    def plan_groups(self) -> list[GroupPlan]:
        """Plan the groups of the dataset, in a store's order.

        Raises:
            ConfigError: as `spec`. DatasetError: no rows, a duplicate sample id, or no views for an
            encoder of images. StoreError: a category that is not a valid folder name.
        """
        spec, index = self.spec, select_inputs(self.index, self.spec.inputs)
        if not len(index):
            raise DatasetError("the dataset has no samples to build a store from")
        if spec.image_size is not None and not index.view_numbers:
            raise DatasetError("the dataset has no views, and images are asked for")
        groups = sorted_groups(index)
        for group, rows in groups.items():
            ids = [sample.sample_id for sample in rows.samples]
            for first, second in pairwise(ids):
                if first == second:
                    raise DatasetError(f"{group}: sample id {first} occurs twice")
        chosen = self.shard_rows or choose_shard_rows(value_layouts(spec, len(index.view_numbers)))
        fingerprint = spec.fingerprint
        return [
            GroupPlan(group, fingerprint, rows, chosen, self.batch_size) for group, rows in groups.items()
        ]
