"""The category nearest to an uploaded part, by pooled features of the frozen encoder."""

from dataclasses import dataclass
from typing import NamedTuple, Self

import numpy as np
import torch
from torch import Tensor

from idif.data.features import FeatureSource
from idif.encoders.encode import EncoderSet
from idif.inference.photo_grouping import PredictInput
from idif.inference.predict import decode_part
from idif.missing_views.retrieval import distances, pool_views
from idif.progress import Progress, silent

SAMPLES_EACH = 24
"""Training samples of a category to compare with: enough to distinguish kinds of parts."""
_BATCH = 8


class CategoryDistance(NamedTuple):
    """The distance of a part from a category."""

    category: str
    distance: float
    """Mean over views of 1 - cosine to the category's nearest training sample, 0..2."""


@dataclass(frozen=True)
class CategoryMatcher:
    """Pooled features of a few training samples of every category."""

    layer: str
    categories: tuple[str, ...]
    """[N]: the category of each sample."""
    pooled: Tensor
    """float32 [N,V,C], see `pool_views`."""
    present: Tensor
    """bool [N,V]."""

    @classmethod
    def build(cls, source: FeatureSource, layer: str, progress: Progress = silent) -> Self:
        """Pool at most `SAMPLES_EACH` training samples per category, evenly spaced over its rows."""
        rows: list[int] = []
        by_category: dict[str, list[int]] = {}
        for row, sample in enumerate(source.index.samples):
            by_category.setdefault(sample.category, []).append(row)
        for members in by_category.values():
            spread = np.linspace(0, len(members) - 1, min(SAMPLES_EACH, len(members))).round().astype(int)
            rows += [members[position] for position in spread]
        pooled, present = [], []
        for batch in source.batches(rows, _BATCH):
            pooled.append(pool_views(batch.arrays[layer]).cpu())
            present.append(batch.view_mask.cpu())
            progress(sum(map(len, pooled)), len(rows), "pooling stored features")
        names = tuple(source.index.samples[row].category for row in rows)
        return cls(layer, names, torch.cat(pooled), torch.cat(present))

    @torch.inference_mode()
    def match(self, part: PredictInput, encoders: EncoderSet, device: torch.device) -> list[CategoryDistance]:
        """Every category's distance, nearest first; empty if no photograph can be read."""
        decoded = decode_part(part, encoders)
        if not decoded.present.any():
            return []
        arrays = {name: torch.from_numpy(x[None]).to(device) for name, x in decoded.arrays.items()}
        present = torch.from_numpy(decoded.present[None])
        features = encoders.to(device).encode(arrays, {"image": present})
        pooled = pool_views(features[self.layer]).cpu()
        to_samples = distances(pooled, present, self.pooled, self.present)[0].tolist()
        nearest: dict[str, float] = {}
        for category, distance in zip(self.categories, to_samples, strict=True):
            nearest[category] = min(distance, nearest.get(category, torch.inf))
        return sorted((CategoryDistance(*item) for item in nearest.items()), key=lambda match: match.distance)
