"""Missing views borrowed from the training samples that look most alike in the views that are there."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from torch import Tensor

from idif.data.batch import Batch
from idif.data.features import FeatureSource
from idif.errors import ConfigError
from idif.missing_views.imputation import ImputedViews
from idif.progress import Progress, silent

_BATCH = 16


@dataclass(frozen=True)
class Retriever:
    """A `Filler` that lends a missing view of the nearest training sample that has it.

    How alike two samples are is measured by `distances`; every training sample is compared, so the nearest
    is exact. Only stored features are read: no image file is opened and no encoder runs.
    """

    source: FeatureSource
    """The training samples."""
    layer: str
    neighbours: int
    """k: what is lent is the mean of the k nearest samples' views, images and features alike."""
    pooled: Tensor
    """float32 [N,V,C], unit length: ``layer`` averaged over positions; zero where a view is absent."""
    present: Tensor
    """bool [N,V]."""

    @classmethod
    def build(cls, source: FeatureSource, layer: str, neighbours: int, progress: Progress = silent) -> Self:
        """Pool every training sample once.

        Raises:
            ConfigError: the features have no such layer, or there are fewer samples than neighbours.
        """
        names = [spec.name for spec in source.spec.layers]
        if layer not in names:
            raise ConfigError(f"strategies.layer: expected one of {', '.join(names)}, got {layer!r}")
        count = len(source.index)
        if count < neighbours:
            raise ConfigError(f"strategies.neighbours: {neighbours}, but there are {count} training samples")
        pooled, present = [], []
        for batch in source.batches(range(count), _BATCH):
            pooled.append(pool_views(batch.features[layer]).cpu())
            present.append(batch.view_mask.cpu())
            progress(sum(map(len, pooled)), count, "pooling training features")
        return cls(source, layer, neighbours, torch.cat(pooled), torch.cat(present))

    def fill(self, batch: Batch, missing: Tensor) -> ImputedViews:
        """See `Filler.fill`. A view that fewer than k comparable training samples have stays missing."""
        seen = batch.view_mask.cpu()
        pooled = pool_views(batch.features[self.layer]).cpu()
        distance = distances(pooled, seen, self.pooled, self.present)
        sample, slot = missing.cpu().nonzero(as_tuple=True)
        candidates = distance[sample].masked_fill(~self.present.T[slot], torch.inf)
        near = candidates.topk(self.neighbours, dim=1, largest=False)
        images, features = self._lent(
            near.indices.flatten().tolist(), slot.repeat_interleave(self.neighbours)
        )
        known = near.values.isfinite().all(dim=1)
        means = {name: self._mean(f) for name, f in features.items()}
        return ImputedViews(self._mean(images).round().to(torch.uint8), means, known)

    def _mean(self, lent: Tensor) -> Tensor:
        """[P*k,...] -> float32 [P,...], over the k neighbours."""
        return lent.float().view(-1, self.neighbours, *lent.shape[1:]).mean(dim=1)

    def _lent(self, rows: Sequence[int], slots: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Images [P,3,H,W] and features {layer: [P,C,h,w]} of one view of each of P training rows."""
        distinct, where = np.unique(rows, return_inverse=True)
        read = list(self.source.batches(distinct.tolist(), _BATCH))
        images = torch.cat([b.images.cpu() for b in read])[where, slots]
        names = read[0].features
        features = {name: torch.cat([b.features[name].cpu() for b in read])[where, slots] for name in names}
        return images, features


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
