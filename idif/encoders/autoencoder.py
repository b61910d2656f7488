"""Parts that autoencoders have in common: the options they accept, and the names of their arrays."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from idif.data.arrays import ArraySpec, feature_map
from idif.encoders.options import NO_OPTIONS, EncoderOptions
from idif.encoders.preparation import Normalization, preparation_record
from idif.errors import ConfigError

MU, LOGVAR = "mu", "logvar"
"""Names of the arrays of an autoencoder: mean and logarithm of the variance of the latents."""

STRIDE = 8
"""Pixels of the image along a side of one latent position."""


def require_plain(options: EncoderOptions, encoder: str) -> None:
    """Refuse options that an autoencoder does not have: all but the preparation of images.

    Raises:
        ConfigError: taps, neck or padding are set.
    """
    if replace(options, resize=NO_OPTIONS.resize, crop_from=NO_OPTIONS.crop_from) != NO_OPTIONS:
        raise ConfigError(f"taps, neck, padding: {encoder} has no such options")


def latent_maps(
    names: tuple[str, ...], channels: int, image_size: int, encoder: str
) -> tuple[ArraySpec, ...]:
    """The specs of an autoencoder's arrays, all of the size of its latents."""
    return tuple(feature_map(name, channels, image_size // STRIDE, encoder, signed=True) for name in names)


def latent_record(normalization: Normalization, options: EncoderOptions, factor: float) -> Mapping[str, Any]:
    """`EncoderSpec.preparation` of an autoencoder whose latents are multiplied by ``factor``."""
    return preparation_record(normalization, options) | {"factor": factor}
