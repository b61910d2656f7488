"""`Batch`: the data that a feature source passes to a method.

Shape legend, used by every docstring of the project:

    B  samples in a batch       V  view slots of a sample    N  samples in all, or tokens
    C  channels                 H W  image height, width     h w  feature map height, width
    D  depth of the voxel grid  d  width of a voxel prototype                T  time
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Self

import torch
from torch import Tensor

from idif.data.index import Index


@dataclass(frozen=True)
class Batch:
    """Whole samples with everything a method needs; no further lookup in the source is necessary.

    An absent view is all zeros with ``view_mask`` false; so is an absent input with ``present`` false.
    """

    rows: Tensor
    """int64 [B]: rows of the source's index."""
    arrays: dict[str, Tensor]
    """{name: [B,V,...] or [B,...]} for the names of `idif.data.features.FeatureSpec.arrays`: features float16
    or float32, ``images`` uint8 [B,V,3,H,W] (RGB, 0..255), ``masks`` bool [B,V,H,W] (true on defects)."""
    view_mask: Tensor
    """bool [B,V]: true where the view is present."""
    labels: Tensor
    """bool [B,V]: true where the view is anomalous."""
    sample_labels: Tensor
    """bool [B]: true where the sample is anomalous."""
    categories: tuple[str, ...]
    """Category name of each of the B samples."""
    present: dict[str, Tensor] = field(default_factory=dict)
    """{input: bool [B]}: presence of the per-sample inputs."""

    def __len__(self) -> int:
        return int(self.rows.shape[0])

    @property
    def images(self) -> Tensor:
        """uint8 [B,V,3,H,W]: clean images, RGB, 0..255.

        Raises:
            KeyError: the source holds no images.
        """
        return self.arrays["images"]

    @property
    def masks(self) -> Tensor:
        """bool [B,V,H,W]: true on anomalous pixels.

        Raises:
            KeyError: the samples have no images, and so no masks.
        """
        return self.arrays["masks"]

    def features(self, names: Iterable[str]) -> dict[str, Tensor]:
        """The named arrays, in the given order."""
        return {name: self.arrays[name] for name in names}

    def with_arrays(self, arrays: dict[str, Tensor]) -> Self:
        """A copy of the batch with other arrays."""
        return replace(self, arrays=arrays)

    def map(self, change: Callable[[Tensor], Tensor]) -> Self:
        """Apply ``change`` to every tensor; it must keep the meaning of the first axis."""
        return replace(
            self,
            rows=change(self.rows),
            arrays={name: change(x) for name, x in self.arrays.items()},
            view_mask=change(self.view_mask),
            labels=change(self.labels),
            sample_labels=change(self.sample_labels),
            present={name: change(x) for name, x in self.present.items()},
        )

    def take(self, places: Tensor) -> Self:
        """The samples at the given positions, int64 [P] on the batch's device."""
        chosen = self.map(lambda x: x[places])
        return replace(chosen, categories=tuple(self.categories[place] for place in places.tolist()))

    def to(self, device: torch.device) -> Self:
        """A copy of the batch with every tensor on ``device``."""
        return self.map(lambda x: x.to(device, non_blocking=True))


def make_batch(
    index: Index, rows: Sequence[int], arrays: dict[str, Tensor], inputs: Sequence[str] = ()
) -> Batch:
    """Make a batch on the CPU: presence, labels and categories from the index, the values from ``arrays``.

    Args:
        inputs: names of the per-sample inputs, see `idif.data.features.FeatureSpec.inputs`.
    """
    samples = [index.samples[row] for row in rows]
    view_mask, labels = presence_and_labels(index, rows)
    present = input_presence(index, rows, inputs)
    return Batch(
        rows=torch.tensor(list(rows), dtype=torch.int64),
        arrays=arrays,
        view_mask=view_mask,
        labels=labels,
        sample_labels=torch.tensor([sample.label for sample in samples], dtype=torch.bool),
        categories=tuple(sample.category for sample in samples),
        present={name: present[name] for name in inputs},
    )


def presence_and_labels(index: Index, rows: Sequence[int]) -> tuple[Tensor, Tensor]:
    """``view_mask`` and ``labels`` of the given rows, both bool [B,V], on the CPU."""
    shape = (len(rows), len(index.view_numbers))
    samples = [index.samples[row] for row in rows]
    present = torch.tensor([sample.present for sample in samples], dtype=torch.bool).view(shape)
    labels = torch.tensor([sample.labels for sample in samples], dtype=torch.bool).view(shape)
    return present, labels


def input_presence(index: Index, rows: Sequence[int], inputs: Sequence[str] = ()) -> dict[str, Tensor]:
    """{input: bool} of the given rows: [B,V] for ``image``, [B] for each per-sample input of ``inputs``."""
    samples = [index.samples[row] for row in rows]
    once = {
        name: torch.tensor([s.inputs.get(name) is not None for s in samples], dtype=torch.bool)
        for name in inputs
    }
    return {"image": presence_and_labels(index, rows)[0], **once}
