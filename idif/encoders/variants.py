"""Image variants that a store may contain besides the plain one: augmentation before the encoder."""

from collections.abc import Callable

import torch
from torch import Tensor


def _plain(images: Tensor) -> Tensor:
    return images


def _rotated180(images: Tensor) -> Tensor:
    return torch.flip(images, dims=(-2, -1))


VARIANTS: dict[str, Callable[[Tensor], Tensor]] = {
    "plain": _plain,
    "rotated180": _rotated180,
}
"""Name -> function of decoded images [...,H,W], on their device; each returns images of the same shape."""
