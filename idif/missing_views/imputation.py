"""`ImputedSource`: a `FeatureSource` whose missing views are imputed."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from idif.data.batch import Batch
from idif.data.features import MASKS, FeatureSource, FeatureSpec
from idif.data.index import Index


class ImputedViews(NamedTuple):
    """Replacements for some views of a batch."""

    arrays: dict[str, Tensor]
    """{name: [P,...]} for every per-view array, in the order of ``missing.nonzero()``."""
    known: Tensor
    """bool [P]: false if there is no replacement and the view stays missing."""


class Imputer(Protocol):
    """Computes replacements of missing views from the present ones."""

    def fill(self, batch: Batch, missing: Tensor) -> ImputedViews:
        """Impute every view of ``missing`` bool [B,V]; only views of ``view_mask`` may be read."""
        ...


@dataclass(frozen=True)
class ImputedSource:
    """A source with only the ``visible`` views of another, and imputed replacements for the others."""

    source: FeatureSource
    visible: npt.NDArray[np.bool_]
    """[N,V]: the views to keep."""
    imputer: Imputer | None
    """None leaves the other views missing."""

    @property
    def spec(self) -> FeatureSpec:
        """Specification of the source's arrays."""
        return self.source.spec

    @property
    def index(self) -> Index:
        """Index of the source, with the labels of the real views."""
        return self.source.index

    def batches(
        self, order: Sequence[int], batch_size: int, variants: Sequence[int] | None = None
    ) -> Iterator[Batch]:
        """See `FeatureSource.batches`; ``view_mask`` is true where a view is visible or imputed."""
        for batch in self.source.batches(order, batch_size, variants):
            rows = batch.rows.cpu().numpy()
            visible = torch.from_numpy(self.visible[rows]).to(batch.view_mask.device) & batch.view_mask
            yield self._impute(hide(batch, visible, per_view_arrays(self.spec)))

    def _impute(self, batch: Batch) -> Batch:
        # a sample without visible views cannot be imputed
        missing = ~batch.view_mask & batch.view_mask.any(dim=1, keepdim=True)
        if self.imputer is None or not missing.any():
            return batch
        imputed = self.imputer.fill(batch, missing)
        view_mask = batch.view_mask.clone()
        known = imputed.known.to(view_mask.device)
        sample, slot = (part[known] for part in missing.nonzero(as_tuple=True))
        view_mask[sample, slot] = True
        arrays = dict(batch.arrays)
        for name, values in imputed.arrays.items():
            arrays[name] = batch.arrays[name].clone()
            arrays[name][sample, slot] = values.to(arrays[name])[known]
        return replace(batch, arrays=arrays, view_mask=view_mask)


def per_view_arrays(spec: FeatureSpec) -> list[str]:
    """Names of the per-view arrays that a method may read, in order, i.e. all except masks."""
    return [name for name, array in spec.arrays.items() if array.per_view and name != MASKS]


def hide(batch: Batch, visible: Tensor, names: Sequence[str]) -> Batch:
    """Remove all views that are not ``visible`` bool [B,V] from a batch: zeros, not in ``view_mask``.

    Labels and masks are not changed.

    Args:
        names: result of `per_view_arrays`.
    """

    def shown(x: Tensor) -> Tensor:
        return x * visible.view(*visible.shape, *(1,) * (x.ndim - 2)).to(x.dtype)

    hidden = {name: shown(batch.arrays[name]) for name in names}
    return replace(batch, arrays=batch.arrays | hidden, view_mask=visible)
