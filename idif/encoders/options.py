"""`EncoderOptions`: choices that turn an architecture into the encoder of a store."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from itertools import pairwise
from typing import Any, Literal, Self

from idif.data.features import EncoderSpec
from idif.data.resize import Resize
from idif.errors import ConfigError

DECODED = "decoded"
"""Name of the array with an autoencoder's view of the image: the image that it decodes its latents to."""
NeckName = Literal["none", "aligned", "average-pool", "max-pool"]
"""Key of `idif.encoders.necks.NECKS`."""
Padding = Literal["zeros", "reflect"]


@dataclass(frozen=True)
class EncoderOptions:
    """Options of an encoder besides its weights and image size; part of a store's fingerprint."""

    taps: tuple[int, ...] = ()
    """Tapped layers, shallow to deep: strides of a convolutional network, block numbers (from 0) of a
    transformer; empty: the family's default."""
    neck: NeckName = "none"
    """Parameter-free layer between the taps and the arrays, see `idif.encoders.necks`."""
    padding: Padding = "zeros"
    """Padding of the convolutions; ``reflect`` replaces that of all padded convolutions."""
    resize: Resize = "bilinear"
    """Resampling of the images."""
    crop_from: int | None = None
    """Side that images are resized to before their center is cut out; None: no crop."""
    decoded: bool = False
    """Whether an autoencoder also gives the image that it decodes its own latents to. The other arrays do not
    depend on it, so it is recorded by that array alone."""

    def __post_init__(self) -> None:
        if any(first >= second for first, second in pairwise(self.taps)) or min(self.taps, default=0) < 0:
            raise ConfigError(f"taps: expected ascending numbers, got {list(self.taps)}")

    def to_json(self) -> dict[str, Any]:
        """A JSON object from which `from_json` makes equal options, but for ``decoded``."""
        fields = asdict(self) | {"taps": list(self.taps)}
        del fields["decoded"]
        return fields

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """The options that `to_json` wrote."""
        return cls(**{**data, "taps": tuple(data.get("taps", ()))})

    @classmethod
    def recorded(cls, spec: EncoderSpec) -> Self:
        """The options of a store's or run's encoder; the defaults where none were recorded."""
        decoded = any(array.name == DECODED for array in spec.arrays)
        return replace(cls.from_json(spec.preparation.get("options", {})), decoded=decoded)


NO_OPTIONS = EncoderOptions()
"""Every option at its default."""
