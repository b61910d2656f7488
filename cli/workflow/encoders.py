"""Loads the encoders that options or a config name."""

from collections.abc import Sequence

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
        weights: ``imagenet``, ``untrained`` or a file for all encoders, or ``NAME=WEIGHTS`` for one of them.
        options: of the only encoder, or of the only one of images.
        reader: reads the training samples of ``data``, from which encoders learn that are given no file.

    Raises:
        DatasetError: as ``reader``, or a file that an encoder learns from cannot be used.
        ConfigError: there is no such encoder, one file is given for several, none for one of them, or options
            for several.
        WeightsError: as `load_encoder`.
    """
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
    optional = [name for name in names if len(names) == 1 or find_family(name).input == IMAGE_INPUT]
    if len(optional) != 1 and options != NO_OPTIONS:
        raise ConfigError(
            "teacher: taps, neck, padding, resize, crop_from, decoded are those of a single encoder"
        )

    def load(name: str) -> FrozenEncoder:
        own = options if name in optional else NO_OPTIONS
        if find_family(name, own).learn is None or name in for_one:
            return load_encoder(chosen[name], name, own)
        assert data.root is not None
        return learn_encoder(name, data.root, reader.read(data, "train"))

    return tuple(load(name) for name in names)


def image_size_of(encoders: Sequence[FrozenEncoder], wanted: int | None) -> int | None:
    """Side of the images: ``wanted``, else the first encoder's default; None without encoders of images."""
    families = [encoder.family for encoder in encoders if encoder.family.input == IMAGE_INPUT]
    return (wanted or families[0].image_size) if families else None
