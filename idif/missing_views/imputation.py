"""Filling missing views in: a `FeatureSource` whose hidden views hold what somebody else puts there."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from idif.data.batch import Batch
from idif.data.features import FeatureSource, FeatureSpec
from idif.data.index import Index


class ImputedViews(NamedTuple):
    """What stands in for some views of a batch."""

    images: Tensor
    """uint8 [P,3,H,W], in the order of ``missing.nonzero()``."""
    features: dict[str, Tensor]
    """{layer: [P,C,h,w]} of these images."""
    known: Tensor
    """bool [P]: false where nothing could be found for a view; it stays missing."""


class Imputer(Protocol):
    """Makes missing views up from the ones that are there."""

    def fill(self, batch: Batch, missing: Tensor) -> ImputedViews:
        """Something for every view of ``missing`` bool [B,V]; of the batch only ``view_mask`` may be seen."""
        ...


@dataclass(frozen=True)
class ImputedSource:
    """``source`` with only the ``visible`` views, and in place of the rest what a filler makes of them."""

    source: FeatureSource
    visible: npt.NDArray[np.bool_]
    """[N,V]."""
    filler: Imputer | None
    """None leaves the rest missing."""

    @property
    def spec(self) -> FeatureSpec:
        """The source's."""
        return self.source.spec

    @property
    def index(self) -> Index:
        """The source's: labels are those of the real views."""
        return self.source.index

    def batches(self, order: Sequence[int], batch_size: int) -> Iterator[Batch]:
        """See `FeatureSource.batches`; ``view_mask`` is true where a view is seen or filled in."""
        for batch in self.source.batches(order, batch_size):
            rows = batch.rows.cpu().numpy()
            seen = torch.from_numpy(self.visible[rows]).to(batch.view_mask.device) & batch.view_mask
            yield self._filled(hide(batch, seen))

    def _filled(self, batch: Batch) -> Batch:
        # a sample of which nothing is seen gives nothing to fill from
        missing = ~batch.view_mask & batch.view_mask.any(dim=1, keepdim=True)
        if self.filler is None or not missing.any():
            return batch
        found = self.filler.fill(batch, missing)
        images, view_mask = batch.images.clone(), batch.view_mask.clone()
        known = found.known.to(view_mask.device)
        sample, slot = (part[known] for part in missing.nonzero(as_tuple=True))
        images[sample, slot] = found.images.to(images.device)[known]
        view_mask[sample, slot] = True
        features = {}
        for name, stored in batch.features.items():
            features[name] = stored.clone()
            features[name][sample, slot] = found.features[name].to(stored)[known]
        return Batch(batch.rows, images, features, view_mask, batch.labels, batch.masks)


def hide(batch: Batch, seen: Tensor) -> Batch:
    """``batch`` with every view that is not ``seen`` bool [B,V] absent: zeros, not in ``view_mask``.

    Labels and masks stay: the sample is still what it is.
    """

    def kept(x: Tensor) -> Tensor:
        return x * seen.view(*seen.shape, *(1,) * (x.ndim - 2)).to(x.dtype)

    features = {name: kept(f) for name, f in batch.features.items()}
    return Batch(batch.rows, kept(batch.images), features, seen, batch.labels, batch.masks)
