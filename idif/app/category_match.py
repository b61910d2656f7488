"""Which category a part looks like: the nearest training sample by pooled features of the frozen encoder."""

from dataclasses import dataclass
from typing import NamedTuple, Self

import numpy as np
import torch
from torch import Tensor

from idif.data.features import FeatureSource
from idif.data.images import load_image
from idif.encoders.encode import encode_views
from idif.encoders.frozen import FrozenEncoder
from idif.errors import DatasetError
from idif.inference.photo_grouping import PredictInput
from idif.missing_views.retrieval import distances, pool_views
from idif.progress import Progress, silent

SAMPLES_EACH = 24
"""Training samples of a category that are compared with: enough to tell kinds of part from each other."""
_BATCH = 8


class CategoryDistance(NamedTuple):
    """How far a part is from a category."""

    category: str
    distance: float
    """Mean over views of 1 - cosine to the category's nearest training sample, 0..2."""


@dataclass(frozen=True)
class CategoryMatcher:
    """Pooled features of some training samples of every category."""

    layer: str
    categories: tuple[str, ...]
    """[N]: of each sample."""
    pooled: Tensor
    """float32 [N,V,C], see `pool_views`."""
    present: Tensor
    """bool [N,V]."""

    @classmethod
    def build(cls, source: FeatureSource, layer: str, progress: Progress = silent) -> Self:
        """Pool at most `SAMPLES_EACH` training samples of every category, evenly spread over its rows."""
        rows: list[int] = []
        by_category: dict[str, list[int]] = {}
        for row, sample in enumerate(source.index.samples):
            by_category.setdefault(sample.category, []).append(row)
        for mine in by_category.values():
            spread = np.linspace(0, len(mine) - 1, min(SAMPLES_EACH, len(mine))).round().astype(int)
            rows += [mine[place] for place in spread]
        pooled, present = [], []
        for batch in source.batches(rows, _BATCH):
            pooled.append(pool_views(batch.features[layer]).cpu())
            present.append(batch.view_mask.cpu())
            progress(sum(map(len, pooled)), len(rows), "pooling stored features")
        names = tuple(source.index.samples[row].category for row in rows)
        return cls(layer, names, torch.cat(pooled), torch.cat(present))

    @torch.inference_mode()
    def look(
        self, part: PredictInput, encoder: FrozenEncoder, image_size: int, device: torch.device
    ) -> list[CategoryDistance]:
        """Every category's distance, nearest first; none where no photograph can be read."""
        images = np.zeros((1, len(part.images), 3, image_size, image_size), np.uint8)
        seen = torch.zeros(1, len(part.images), dtype=torch.bool)
        for slot, path in enumerate(part.images):
            if path is not None:
                try:
                    images[0, slot], _ = load_image(path, image_size)
                    seen[0, slot] = True
                except DatasetError:
                    continue  # judging the part has told it
        if not seen.any():
            return []
        encoder.module.to(device)
        features = encode_views(encoder, torch.from_numpy(images).to(device), seen)
        pooled = pool_views(features[self.layer]).cpu()
        far = distances(pooled, seen, self.pooled, self.present)[0].tolist()
        nearest: dict[str, float] = {}
        for category, distance in zip(self.categories, far, strict=True):
            nearest[category] = min(distance, nearest.get(category, torch.inf))
        return sorted((CategoryDistance(*item) for item in nearest.items()), key=lambda look: look.distance)
