"""Loads the encoders that options or a config name."""

from collections.abc import Mapping, Sequence

from torch import nn

from idif.data.features import IMAGE_INPUT
from idif.datasets.config import DataConfig
from idif.datasets.readers import Reader
from idif.encoders.frozen import (
    ENCODER_SETS,
    ENCODERS,
    FrozenEncoder,
    find_family,
    is_known,
    learn_encoder,
    load_encoder,
)
from idif.encoders.options import NO_OPTIONS, EncoderOptions
from idif.encoders.timm_models import PREFIX
from idif.errors import ConfigError

LIVE_ENCODER = "resnet18"
"""Default encoder where no store and no config names one."""


def load_encoders(
    names: Sequence[str],
    weights: Sequence[str],
    options: EncoderOptions,
    reader: Reader,
    data: DataConfig,
) -> tuple[FrozenEncoder, ...]:
    """Load encoders with their weights.

    Args:
        weights: as that of `outline_encoders`.
        options: as that of `outline_encoders`.
        reader: reads the training samples of ``data``, from which encoders learn that are given no file.

    Raises:
        DatasetError: as ``reader``, or a file that an encoder learns from cannot be used.
        ConfigError: as `outline_encoders`.
        WeightsError: as `load_encoder`.
    """
    given = {value.partition("=")[0] for value in weights if "=" in value}

    def load(outline: FrozenEncoder) -> FrozenEncoder:
        if outline.family.learn is None or outline.name in given:
            return load_encoder(outline.weights, outline.name, outline.options)
        assert data.root is not None
        return learn_encoder(outline.name, data.root, reader.read(data, "train"))

    return tuple(load(outline) for outline in outline_encoders(names, weights, options))


def outline_encoders(
    names: Sequence[str], weights: Sequence[str], options: EncoderOptions
) -> tuple[FrozenEncoder, ...]:
    """The encoders without their networks: enough to know their arrays before any weights are read.

    Args:
        weights: ``imagenet``, ``untrained`` or a file for all encoders, or ``NAME=WEIGHTS`` for one of them.
        options: of the only encoder, or of the only one of images.

    Raises:
        ConfigError: there is no such encoder, one file is given for several, none for one of them, or options
            for several.
    """
    chosen = _weights_by_name(names, weights)
    optional = [name for name in names if len(names) == 1 or find_family(name).input == IMAGE_INPUT]
    if len(optional) != 1 and options != NO_OPTIONS:
        raise ConfigError(
            "teacher: taps, neck, padding, resize, crop_from, decoded are those of a single encoder"
        )
    return tuple(
        FrozenEncoder(name, chosen[name], "", nn.Identity(), options if name in optional else NO_OPTIONS)
        for name in names
    )


def _weights_by_name(names: Sequence[str], weights: Sequence[str]) -> Mapping[str, str]:
    """Encoder -> its weights; raises ConfigError as `outline_encoders`."""
    for_all: dict[str, str] = {}
    for_one: dict[str, str] = {}
    for value in weights:
        name, separator, named = value.partition("=")
        if separator and name in names:
            for_one[name] = named
        elif len(names) == 1 or value in ("imagenet", "untrained"):
            for_all |= dict.fromkeys(names, value)
        else:
            raise ConfigError(
                f"teacher.weights (--teacher-weights) {value}: expected NAME=FILE with one of the encoders "
                f"{', '.join(names)}"
            )
    chosen = for_all | for_one
    for name in names:
        if not is_known(name):
            known = ", ".join([*ENCODERS, *ENCODER_SETS, f"{PREFIX}NAME"])
            raise ConfigError(f"teacher.encoder (--encoder): there is no {name!r}; known: {known}")
        if name not in chosen:
            raise ConfigError(
                f"teacher.weights (--teacher-weights): expected weights of {name} too, e.g. {name}=untrained"
            )
    return chosen


def image_size_of(encoders: Sequence[FrozenEncoder], wanted: int | None) -> int | None:
    """Side of the images: ``wanted``, else the first encoder's default; None without encoders of images."""
    families = [encoder.family for encoder in encoders if encoder.family.input == IMAGE_INPUT]
    return (wanted or families[0].image_size) if families else None
