"""Preparation of images for an encoder: reading, normalization, padding of convolutions, its record."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy.typing as npt
import torch
from torch import Tensor, nn

from idif.data.images import IMAGENET_MEAN, IMAGENET_STD, load_image, resize_rule
from idif.data.resize import Resize
from idif.encoders.options import EncoderOptions
from idif.errors import ConfigError

RGB = tuple[float, float, float]


@dataclass(frozen=True)
class SquareImage:
    """Reads an image as uint8 [3,S,S], see `idif.data.images.load_image`."""

    resize: Resize = "bilinear"
    crop_from: int | None = None

    def __call__(self, path: Path, size: int) -> npt.NDArray[Any]:
        """The image of a file; raises DatasetError if it cannot be used."""
        return load_image(path, size, self.resize, self.crop_from)[0]


@dataclass(frozen=True)
class Normalization:
    """uint8 [...,3,H,W] in 0..255 or float in 0..1 -> float32, less ``mean`` and divided by ``std``."""

    mean: RGB
    std: RGB

    def __call__(self, images: Tensor) -> Tensor:
        """The normalized images, on their device."""
        scaled = images.float() / 255 if images.dtype == torch.uint8 else images
        mean = scaled.new_tensor(self.mean).view(3, 1, 1)
        std = scaled.new_tensor(self.std).view(3, 1, 1)
        return (scaled - mean) / std


normalize = Normalization(IMAGENET_MEAN, IMAGENET_STD)
"""Normalization by ImageNet's mean and standard deviation."""


def preparation_record(
    normalization: Normalization, options: EncoderOptions, *, default: EncoderOptions | None = None
) -> dict[str, Any]:
    """The JSON values of `EncoderSpec.preparation` for an encoder of square images.

    Args:
        options: with all taps.
        default: options that are not recorded: those of stores made before there were options.
    """
    record: dict[str, Any] = {
        "resize": resize_rule(options.resize),
        "mean": list(normalization.mean),
        "std": list(normalization.std),
    }
    return record if options == default else record | {"options": options.to_json()}


def reflect_padding(module: nn.Module, name: str) -> None:
    """Replace the zero padding of all convolutions by reflection, in place.

    Args:
        name: the encoder's, for messages.

    Raises:
        ConfigError: no convolution is padded, or one pads unevenly, as TensorFlow's do.
    """
    convolutions = [layer for layer in module.modules() if isinstance(layer, nn.Conv2d)]
    for layer in convolutions:
        if type(layer).forward is not nn.Conv2d.forward:
            raise ConfigError(f"padding: {name} pads as TensorFlow does, which reflection cannot replace")
    padded = [layer for layer in convolutions if isinstance(layer.padding, str) or any(layer.padding)]
    if not padded:
        raise ConfigError(f"padding: {name} has no padded convolutions; leave it at zeros")
    for layer in padded:
        layer.padding_mode = "reflect"
