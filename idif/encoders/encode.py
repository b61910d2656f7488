"""Runs a frozen encoder on the present views of whole samples."""

import torch
from torch import Tensor

from idif.encoders.frozen import FrozenEncoder
from idif.errors import ConfigError


def check_image_size(encoder: FrozenEncoder, image_size: int) -> None:
    """Refuse an image size that the encoder's strides do not divide.

    Raises:
        ConfigError: it is not a positive multiple of the largest stride.
    """
    stride = max(layer.stride for layer in encoder.layers)
    if image_size < stride or image_size % stride:
        raise ConfigError(f"image_size: expected a positive multiple of {stride}, got {image_size}")


def encode_views(encoder: FrozenEncoder, images: Tensor, present: Tensor) -> dict[str, Tensor]:
    """Features of whole samples; only the views that are there are encoded.

    Args:
        images: uint8 [B,V,3,S,S], or float32 in 0..1, on the encoder's device.
        present: bool [B,V], on the CPU or the same device.

    Returns:
        {layer: float32 [B,V,C,h,w]} on the same device, zeros for absent views.
    """
    kept = present.to(images.device)
    # a store promises float32: TF32, on by default for convolutions, would keep ten bits of it
    with torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False):
        encoded = encoder(images[kept])
    if bool(kept.all()):
        return {name: x.view(*kept.shape, *x.shape[1:]) for name, x in encoded.items()}
    features = {}
    for name, x in encoded.items():
        features[name] = x.new_zeros(*kept.shape, *x.shape[1:])
        features[name][kept] = x
    return features
