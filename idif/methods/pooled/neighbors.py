"""Nearest neighbors of pooled arrays: cosine distances to training samples, fused by their z-scores."""

from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor

from idif.data.batch import Batch
from idif.errors import CannotFinish
from idif.methods.pooled.config import PooledNeighborsConfig
from idif.methods.pooling import Pooled, Pooling
from idif.methods.protocol import FittedMethod, MethodContext, Needs, Scores
from idif.progress import Progress, silent


class PooledNeighbors(FittedMethod):
    """Mean cosine distance to the nearest training samples, for each array; the mean of their z-scores.

    An array's z-scores are relative to the distances of the training samples among each other, so no test
    sample takes part. A sample is scored by the arrays that it has.
    """

    draws_maps = False

    def __init__(self, config: PooledNeighborsConfig, context: MethodContext) -> None:
        super().__init__()
        self.neighbors = config.neighbors
        self.pooling = Pooling(config.arrays, context.features)
        self.needs = Needs(training=self.pooling.names, scoring=self.pooling.names)
        for name, size in self.pooling.channels.items():
            self.register_buffer(f"{name}_bank", torch.zeros(0, size))
            self.register_buffer(f"{name}_scale", torch.zeros(2))

    def fit(self, batches: Iterable[Batch], seed: int, progress: Progress = silent) -> None:
        """See `FittedMethod.fit`: the memory holds the unit vectors of all training samples."""
        fresh: dict[str, list[Tensor]] = {name: [] for name in self.pooling.names}
        for batch in batches:
            for name, pooled in self.pooling(batch).items():
                fresh[name].append(F.normalize(pooled.vectors[pooled.present], dim=1))
        for name, parts in fresh.items():
            bank = torch.cat([self._bank(name), *parts])
            if len(bank) < 2:
                raise CannotFinish(f"{name}: nearest neighbors need at least two training samples with it")
            # without its own vector, which is at distance 0
            distances = (1 - bank @ bank.T).fill_diagonal_(torch.inf)
            scores = self._nearest(distances, len(bank) - 1)
            setattr(self, f"{name}_bank", bank)
            setattr(self, f"{name}_scale", torch.stack([scores.mean(), scores.std(correction=0)]))

    def score(self, batch: Batch) -> Scores:
        """See `Method.score`; NaN for a sample that lacks all arrays."""
        total = torch.zeros(len(batch), device=batch.view_mask.device)
        count = torch.zeros_like(total)
        parts = {}
        for name, pooled in self.pooling(batch).items():
            scores = self._standard_scores(name, pooled)
            total = total + torch.where(pooled.present, scores, 0.0)
            count = count + pooled.present
            parts[f"z-score of {name}"] = scores.masked_fill(~pooled.present, torch.nan)
        return Scores(views=torch.zeros(batch.view_mask.shape), samples=total / count, parts=parts)

    def describe(self) -> dict[str, str]:
        """See `Method.describe`."""
        return {
            "head": "pooled-neighbors",
            "sample_score": f"mean cosine distance to the {self.neighbors} nearest training samples of "
            f"{', '.join(self.pooling.names)} each; the mean of their z-scores by training samples",
        }

    def _standard_scores(self, name: str, pooled: Pooled) -> Tensor:
        bank, (mean, spread) = self._bank(name), self.get_buffer(f"{name}_scale")
        distances = 1 - F.normalize(pooled.vectors, dim=1) @ bank.T
        scores: Tensor = (self._nearest(distances, len(bank)) - mean) / spread.clamp(min=1e-12)
        return scores

    def _nearest(self, distances: Tensor, most: int) -> Tensor:
        """Mean of the smallest distances of each row, of at most ``most``."""
        count = min(self.neighbors, most)
        return distances.topk(count, dim=1, largest=False).values.mean(dim=1)

    def _bank(self, name: str) -> Tensor:
        return self.get_buffer(f"{name}_bank")

    def _load_from_state_dict(self, state_dict: dict[str, Tensor], prefix: str, *others: object) -> None:
        """Take over the memories' sizes, which depend on the data."""
        for name in self.pooling.names:
            key = f"{prefix}{name}_bank"
            if key in state_dict:
                setattr(
                    self, f"{name}_bank", torch.empty_like(state_dict[key], device=self._bank(name).device)
                )
        super()._load_from_state_dict(state_dict, prefix, *others)
