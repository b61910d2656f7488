"""A family of frozen encoders: how to build one, what it takes and which arrays it gives."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy.typing as npt
from torch import Tensor, nn

from idif.data.arrays import ArraySpec
from idif.data.images import load_image


@dataclass(frozen=True)
class EncoderFamily:
    """Everything about an encoder but its weights."""

    build: Callable[[], nn.Module]
    """Makes the module with random weights; it maps a prepared input [N,...] to {array: [N,...]}."""
    arrays: Callable[[int], tuple[ArraySpec, ...]]
    """The arrays it gives for images of this size (0 where it takes no images), in order."""
    preparation: Mapping[str, Any]
    """How its input is made, as JSON values: part of the fingerprint of every store."""
    read: Callable[[Path, int], npt.NDArray[Any]]
    """Decodes one file to the array that `prepare` takes, for images of this size; runs in threads. Raises
    DatasetError where the file cannot be used."""
    prepare: Callable[[Tensor], Tensor]
    """Decoded inputs [N,...] -> what the module takes, on their device."""
    stride: int
    """The image size must be a multiple of it; 1 where any will do."""
    key_names: str
    """Whose key names its weights have, for messages."""
    pretrained: Callable[[], Mapping[str, Tensor]] | None
    """Loads the ``imagenet`` weights or raises WeightsError naming the alternatives; None: there are none."""
    absent_shape: Callable[[int], tuple[int, ...]]
    """Shape of one decoded input, for images of this size."""
    input: str = "image"
    """``image``: every view's; else the name of an input that a sample has once (`Sample.inputs`)."""


def read_square_image(path: Path, size: int) -> npt.NDArray[Any]:
    """An image as uint8 [3,S,S], by the rule `idif.data.images.RESIZE_RULE`."""
    return load_image(path, size)[0]
