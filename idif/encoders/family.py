"""`EncoderFamily`: architecture, input and output arrays of a kind of frozen encoder."""

from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from numpy.typing import DTypeLike
from torch import Tensor, nn

from idif.data.arrays import ArraySpec
from idif.encoders.options import NO_OPTIONS, EncoderOptions
from idif.errors import ConfigError

DEFAULT_IMAGE_SIZE = 256


@dataclass(frozen=True)
class EncoderFamily:
    """Everything about an encoder except its weights."""

    build: Callable[[], nn.Module]
    """Creates the module with random weights; it maps a prepared input [N,...] to {array: [N,...]}."""
    arrays: Callable[[int], tuple[ArraySpec, ...]]
    """The output arrays for images of the given size (0 for encoders of other inputs), in order. Raises
    ConfigError if the encoder takes no images of this size."""
    preparation: Mapping[str, Any]
    """Preprocessing of the input, as JSON values; part of the fingerprint of every store."""
    read: Callable[[Path, int], npt.NDArray[Any]]
    """Decodes one file to the input of `prepare`, for images of the given size; runs in threads. Raises
    DatasetError if the file cannot be used."""
    prepare: Callable[[Tensor], Tensor]
    """Decoded inputs [N,...] -> input of the module, on the same device."""
    stride: int
    """The image size must be a multiple of this; 1 allows any size."""
    key_names: str
    """Library whose key names the weights use, for messages."""
    pretrained: Callable[[], Mapping[str, Tensor]] | None
    """Loads the ``imagenet`` weights or raises WeightsError naming alternatives; None if there are none."""
    absent_shape: Callable[[int], tuple[int, ...]]
    """Shape of one decoded input, for images of the given size."""
    absent_type: DTypeLike = np.float32
    """Type of one decoded input, so that samples with and without it are of one type."""
    input: str = "image"
    """``image`` for the image of each view, ``none`` for a constant of all samples, else the name of a
    per-sample input (`Sample.inputs`)."""
    image_size: int = DEFAULT_IMAGE_SIZE
    """The image size where none is given."""
    smallest: int = 1
    """The smallest image size."""
    options: EncoderOptions = NO_OPTIONS
    """The options of this encoder, with the taps that it has."""
    decode: Callable[[Any, Tensor], Tensor] | None = None
    """For autoencoders: (module, latents [N,C,h,w]) -> images float32 [N,3,S,S], RGB, about 0..1. None if the
    module has no decoder."""
    current_name: Callable[[str], str] = str
    """Name of a tensor by the name that it has in a weights file, where older versions used others."""
    whole_network: Callable[[], Set[str]] = frozenset
    """Key names of the complete network, whose layers after the last used one a weights file may have."""
    learn: Callable[[Sequence[Path]], Mapping[str, Tensor]] | None = None
    """Computes the weights from the input files of all training samples, where they are statistics of the
    data instead of a network's. Raises DatasetError if a file cannot be used."""


FamilyMaker = Callable[[EncoderOptions], EncoderFamily]
"""The family of one architecture with the given options. Raises ConfigError if they do not fit it."""


def fixed(family: EncoderFamily) -> FamilyMaker:
    """The maker of a family without options."""

    def make(options: EncoderOptions) -> EncoderFamily:
        if options != NO_OPTIONS:
            raise ConfigError("taps, neck, padding, resize, crop_from: this encoder has no such options")
        return family

    return make
