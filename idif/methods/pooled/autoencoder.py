"""An autoencoder of pooled arrays: one of stills alone, or of all inputs joined."""

from itertools import pairwise

import torch
from torch import Tensor, nn

from idif.data.batch import Batch
from idif.methods.pooled.config import PooledAutoencoderConfig
from idif.methods.pooling import Pooling
from idif.methods.protocol import MethodContext, Needs, Scores, TrainedMethod
from idif.randomness import Draws


class PooledAutoencoder(TrainedMethod):
    """Reconstructs the joined vectors; the mean squared error of those that a sample has is its score."""

    draws_maps = False

    def __init__(self, config: PooledAutoencoderConfig, context: MethodContext) -> None:
        super().__init__()
        self.pooling = Pooling(config.arrays, context.features)
        self.needs = Needs(training=self.pooling.names, scoring=self.pooling.names)
        sizes = (sum(self.pooling.channels.values()), *config.widths)
        self.encode = _layers(sizes)
        self.decode = _layers(sizes[::-1])

    def training_step(self, batch: Batch, draws: Draws) -> dict[str, Tensor]:
        """See `TrainedMethod.training_step`."""
        errors, known = self._errors(batch)
        return {"loss": errors.sum() / known.sum().clamp(min=1)}

    def score(self, batch: Batch) -> Scores:
        """See `Method.score`; NaN for a sample that lacks all arrays."""
        errors, known = self._errors(batch)
        mean = errors.sum(dim=1) / known.sum(dim=1)
        return Scores(views=torch.zeros(batch.view_mask.shape), samples=mean)

    def describe(self) -> dict[str, str]:
        """See `Method.describe`."""
        return {
            "head": "pooled-autoencoder",
            "sample_score": f"mean squared error of the rebuilt {', '.join(self.pooling.names)}",
        }

    def _errors(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Squared errors float32 [B,C], zero for missing inputs, and which are known, bool [B,C]."""
        pooled = self.pooling(batch)
        given = torch.cat([each.vectors for each in pooled.values()], dim=1)
        known = torch.cat([e.present[:, None].expand_as(e.vectors) for e in pooled.values()], dim=1)
        rebuilt = self.decode(self.encode(given)).float()
        return (rebuilt - given).square() * known, known


def _layers(sizes: tuple[int, ...]) -> nn.Sequential:
    """Linear layers of these widths with ReLU between them."""
    layers: list[nn.Module] = []
    for inward, outward in pairwise(sizes):
        layers += [nn.Linear(inward, outward), nn.ReLU()]
    return nn.Sequential(*layers[:-1])
