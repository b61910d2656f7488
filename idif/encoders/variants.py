"""Image variants that a store may contain besides the plain one: augmentation before the encoder."""

from dataclasses import dataclass

import torch
from torch import Tensor

from idif.data.images import center


@dataclass(frozen=True)
class Variant:
    """How a variant is cut out of the resized square image."""

    shift: int = 0
    """Pixels by which the content moves right and down before the center is cut out; real pixels of the
    margin take its place."""
    turned: bool = False
    """Whether the cut-out is turned by 180 degrees."""

    def __call__(self, whole: Tensor, size: int) -> Tensor:
        """The variant [...,size,size] of square images [...,side,side], on their device."""
        rows, columns = center(whole.shape[-1], size)
        shown = slice(rows.start - self.shift, rows.stop - self.shift)
        part = whole[..., shown, slice(columns.start - self.shift, columns.stop - self.shift)]
        return torch.flip(part, dims=(-2, -1)) if self.turned else part

    def smallest_side(self, size: int) -> int:
        """Side of the smallest square image whose margin covers the shift."""
        return size + 2 * abs(self.shift)


SHIFT = 4
"""Pixels that DeCo-Diff's training images are shifted by: an eighth of the margin of 288 - 256."""

VARIANTS: dict[str, Variant] = {
    "plain": Variant(),
    "rotated180": Variant(turned=True),
    "shifted": Variant(shift=SHIFT),
    "shifted-rotated180": Variant(shift=SHIFT, turned=True),
}
"""Name in configs and stores -> variant."""
