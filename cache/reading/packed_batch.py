"""`PackedBatch`: a batch with features in their stored form, and its conversion to a plain batch."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Self

import torch
from torch import Tensor

from cache.format.layout import scaled_axes
from cache.format.quantize import dequantize
from idif.data.arrays import ArraySpec
from idif.data.batch import Batch
from idif.data.features import FeatureSpec


@dataclass(frozen=True)
class PackedBatch:
    """A batch with features in their stored form, on any device."""

    batch: Batch
    """Arrays with all their variants; features float16 or float32, or levels uint8 or int8."""
    scales: dict[str, Tensor]
    """{array: float16 [B,...]}: scales of the levels, see `cache.format.quantize`."""
    features: Mapping[str, ArraySpec]
    """Specifications of the encoders' arrays."""

    def map(self, change: Callable[[Tensor], Tensor]) -> Self:
        """Apply ``change`` to every tensor; it must keep the meaning of the first axis."""
        scales = {name: change(scale) for name, scale in self.scales.items()}
        return replace(self, batch=self.batch.map(change), scales=scales)

    def tensors(self) -> list[Tensor]:
        """Every tensor, in an order that depends only on the specification."""
        batch = self.batch
        parts = [batch.rows, batch.view_mask, batch.labels, batch.sample_labels]
        return [*parts, *batch.present.values(), *batch.arrays.values(), *self.scales.values()]

    def unpack(self, variants: Tensor | None = None, rows: Tensor | None = None) -> Batch:
        """Convert to a plain batch: one variant of each row, levels times scales as float16.

        Args:
            variants: int64 [B], the variant of each row; the plain one (0) when None.
            rows: int64 [B], positions in this batch to take, all when None; ``categories`` is not changed.
        """
        batch = self.batch if rows is None else _take_rows(self.batch, rows, self.features)
        arrays = dict(batch.arrays)
        for name, array in self.features.items():
            scales = self.scales.get(name)
            axes = [0, *(1 + axis for axis in scaled_axes(array))]
            if array.has_variants:
                positions = torch.arange(len(batch), device=batch.rows.device) if rows is None else rows
                chosen = 0 if variants is None else variants.to(positions.device)
                arrays[name] = arrays[name][positions, chosen]
                scales = None if scales is None else scales[positions, chosen]
                axes = [0, *(axis - 1 for axis in axes[2:])]
            elif scales is not None and rows is not None:
                scales = scales.index_select(0, rows)
            if scales is not None:
                arrays[name] = dequantize(arrays[name], scales, axes)
        return batch.with_arrays(arrays)


def _take_rows(batch: Batch, rows: Tensor, features: Mapping[str, ArraySpec]) -> Batch:
    """Some rows of a batch, without arrays with variants, of which only one variant per row is copied."""
    varied = {name for name in batch.arrays if name in features and features[name].has_variants}
    plain = batch.with_arrays({name: x for name, x in batch.arrays.items() if name not in varied})
    taken = plain.map(lambda x: x.index_select(0, rows))
    return taken.with_arrays({name: taken.arrays.get(name, x) for name, x in batch.arrays.items()})


def check_variants(
    spec: FeatureSpec, order: Sequence[int], variants: Sequence[int] | None
) -> list[int] | None:
    """The variant of each entry of ``order`` as plain integers; None if there is only the plain one.

    Raises:
        IndexError: there is no such variant.
    """
    if variants is None:
        return None
    assert len(variants) == len(order), (len(variants), len(order))
    plain, count = [int(variant) for variant in variants], max(1, len(spec.variants))
    for variant in plain:
        if not 0 <= variant < count:
            raise IndexError(f"variant {variant} of a source with {count}")
    return plain if spec.variants else None
