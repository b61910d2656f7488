"""Image variants that a store may contain besides the plain one: augmentation before the encoder."""

from dataclasses import dataclass

import torch
from torch import Tensor

from idif.data.images import center


@dataclass(frozen=True)
class Variant:
    """How a variant is cut out of the resized square image."""

    shifted: bool = False
    """Whether the content moves right and down before the center is cut out; real pixels of the margin take
    its place."""
    turned: bool = False
    """Whether the cut-out is turned by 180 degrees."""

    def __call__(self, whole: Tensor, size: int, shift: int) -> Tensor:
        """The variant [...,size,size] of square images [...,side,side], on their device.

        Args:
            shift: pixels by which the content of a shifted variant moves; at most half of the margin.
        """
        by = shift if self.shifted else 0
        rows, columns = center(whole.shape[-1], size)
        shown = slice(rows.start - by, rows.stop - by)
        part = whole[..., shown, slice(columns.start - by, columns.stop - by)]
        return torch.flip(part, dims=(-2, -1)) if self.turned else part


def shift_for(side: int, size: int) -> int:
    """DeCo-Diff's shift of training images in pixels: an eighth of the margin, 4 of 288 - 256."""
    return (side - size) // 8


SMALLEST_MARGIN = 8
"""Margin in pixels, of both sides together, that shifted variants need; with less the shift would be 0."""

VARIANTS: dict[str, Variant] = {
    "plain": Variant(),
    "rotated180": Variant(turned=True),
    "shifted": Variant(shifted=True),
    "shifted-rotated180": Variant(shifted=True, turned=True),
}
"""Name in configs and stores -> variant."""
