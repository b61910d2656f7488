"""Impute missing views from the nearest training samples."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from torch import Tensor

from idif.data.batch import Batch
from idif.data.features import FeatureSource
from idif.errors import ConfigError
from idif.missing_views.imputation import ImputedViews, per_view_arrays
from idif.progress import Progress, silent

_BATCH = 16


@dataclass(frozen=True)
class Retriever:
    """An `Imputer` that takes a missing view from the nearest training sample that has it.

    Each sample is compared with every training sample by `distances`, so the search is exact. Only stored
    arrays are read; no image files are opened and no encoder runs.
    """

    source: FeatureSource
    """The training samples."""
    layer: str
    neighbors: int
    """k: the replacement is the mean of the views of the k nearest samples, for every array."""
    pooled: Tensor
    """float32 [N,V,C], unit length: ``layer`` averaged over positions; zero for absent views."""
    present: Tensor
    """bool [N,V]: presence of the training views."""

    @classmethod
    def build(
        cls, source: FeatureSource, layer: str | None, neighbors: int, progress: Progress = silent
    ) -> Self:
        """Pool every training sample once.

        Args:
            source: the training samples.
            layer: a feature map of every view; None takes the last one of ``source``.
            neighbors: k.
            progress: called with the number of samples pooled.

        Raises:
            ConfigError: the features have no such layer, or there are fewer samples than neighbors.
        """
        names = [name for name, array in source.spec.features.items() if array.is_feature_map]
        if not names:
            raise ConfigError("strategies.layer: the store holds no feature map of every view to compare by")
        layer = names[-1] if layer is None else layer
        if layer not in names:
            raise ConfigError(f"strategies.layer: expected one of {', '.join(names)}, got {layer!r}")
        count = len(source.index)
        if count < neighbors:
            raise ConfigError(f"strategies.neighbours: {neighbors}, but there are {count} training samples")
        pooled, present = [], []
        for batch in source.batches(range(count), _BATCH):
            pooled.append(pool_views(batch.arrays[layer]).cpu())
            present.append(batch.view_mask.cpu())
            progress(sum(map(len, pooled)), count, "pooling training features")
        return cls(source, layer, neighbors, torch.cat(pooled), torch.cat(present))

    def fill(self, batch: Batch, missing: Tensor) -> ImputedViews:
        """See `Imputer.fill`. A view stays missing if fewer than k comparable training samples have it."""
        seen = batch.view_mask.cpu()
        pooled = pool_views(batch.arrays[self.layer]).cpu()
        distance = distances(pooled, seen, self.pooled, self.present)
        sample, slot = missing.cpu().nonzero(as_tuple=True)
        candidates = distance[sample].masked_fill(~self.present.T[slot], torch.inf)
        near = candidates.topk(self.neighbors, dim=1, largest=False)
        arrays = self._neighbor_views(near.indices.flatten().tolist(), slot.repeat_interleave(self.neighbors))
        known = near.values.isfinite().all(dim=1)
        return ImputedViews({name: self._mean(values) for name, values in arrays.items()}, known)

    def _mean(self, views: Tensor) -> Tensor:
        """Mean over the k neighbors, [P*k,...] -> [P,...]: float32; integers rounded to their own type."""
        mean = views.float().view(-1, self.neighbors, *views.shape[1:]).mean(dim=1)
        return mean if views.is_floating_point() else mean.round().to(views.dtype)

    def _neighbor_views(self, rows: Sequence[int], slots: Tensor) -> dict[str, Tensor]:
        """{array: [P,...]} of one view of each of P training rows."""
        distinct, where = np.unique(rows, return_inverse=True)
        read = list(self.source.batches(distinct.tolist(), _BATCH))
        names = per_view_arrays(self.source.spec)
        return {name: torch.cat([b.arrays[name].cpu() for b in read])[where, slots] for name in names}


def distances(pooled: Tensor, seen: Tensor, known: Tensor, present: Tensor) -> Tensor:
    """Distances float32 [B,N]: the mean of 1 - cosine over the views that both samples have.

    Args:
        pooled: [B,V,C], as `pool_views` gives.
        seen: bool [B,V].
        known: [N,V,C], zero where a view is absent.
        present: bool [N,V].

    Returns:
        Infinite where two samples have no view in common.
    """
    shared = seen.float() @ present.float().T
    alike = (pooled * seen[..., None]).flatten(1) @ known.flatten(1).T
    return torch.where(shared > 0, 1 - alike / shared, torch.inf)


def pool_views(features: Tensor) -> Tensor:
    """[B,V,C,h,w] -> float32 [B,V,C] of unit length, zero where the view is absent."""
    return torch.nn.functional.normalize(features.float().mean(dim=(3, 4)), dim=2)
