"""Perturbation of clean samples before a training step of IDIF: synthetic defects and dropped views."""

from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor

from idif.corruption.synthesis import corrupt
from idif.corruption.textures import TextureBank
from idif.data.batch import Batch
from idif.methods.protocol import MethodContext
from idif.methods.section import ViewDropoutConfig
from idif.methods.view_dropout import drop_views
from idif.randomness import Draws


class PerturbedBatch(NamedTuple):
    """The student's input."""

    images: Tensor
    """float32 [B,V,3,H,W] in 0..1, corrupted."""
    defects: Tensor
    """bool [B,V,H,W]: true on corrupted pixels."""
    view_mask: Tensor
    """bool [B,V]: the views kept; at least one of each sample."""


@dataclass(frozen=True)
class Perturbation:
    """Corruption of the images and view-wise dropout."""

    textures: TextureBank
    probability: float
    """Probability that a view is corrupted."""
    view_dropout: ViewDropoutConfig

    @classmethod
    def of(cls, context: MethodContext) -> "Perturbation | None":
        """The perturbation for training; None outside training, when there are no textures."""
        textures = context.resources.get("textures")
        if textures is None:
            return None
        return cls(textures, context.corruption.probability, context.view_dropout)

    def __call__(self, batch: Batch, draws: Draws) -> PerturbedBatch:
        """Perturb ``batch``; the result is a deterministic function of ``draws``."""
        seeds = draws.view_seeds()
        images, defects = corrupt(batch.images, seeds, self.textures, self.probability)
        dropout = self.view_dropout
        kept = drop_views(batch.view_mask, seeds, dropout.probability, dropout.per)
        return PerturbedBatch(images, defects, kept)
