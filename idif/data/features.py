"""What features are (`FeatureSpec`) and where they come from (`FeatureSource`)."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, Protocol, Self

from idif.data.batch import Batch
from idif.data.index import Index
from idif.fingerprint import digest

StorageType = Literal["float16", "float32", "uint8"]


@dataclass(frozen=True)
class LayerSpec:
    """One layer of a frozen encoder."""

    name: str
    channels: int
    stride: int
    """Image pixels per feature position along each axis."""


@dataclass(frozen=True)
class FeatureSpec:
    """Everything that decides a feature's value, the image's content aside.

    Two sources with equal specs give equal features for equal images, to the tolerance of ``storage``.
    """

    encoder: str
    weights: str
    """Where the weights came from, for people: ``imagenet``, ``untrained`` or ``file``. Not fingerprinted."""
    weights_sha256: str
    layers: tuple[LayerSpec, ...]
    image_size: int
    """Side in pixels of the square images the encoder sees."""
    resize: str
    """Name of the decode-and-resize rule, see `idif.data.images.RESIZE_RULE`."""
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    precision: str
    """Arithmetic the encoder ran in."""
    storage: StorageType
    """Type the features are kept in; a live encoder hands out float32."""

    def shape(self, layer: LayerSpec) -> tuple[int, int, int]:
        """(C, h, w) of one view's features of ``layer``."""
        side = self.image_size // layer.stride
        return layer.channels, side, side

    def fingerprint_parts(self) -> dict[str, Any]:
        """The named parts of the fingerprint, so that a difference can be named."""
        parts = asdict(self)
        del parts["weights"]
        return parts

    @property
    def fingerprint(self) -> str:
        """SHA-256 (hex) over `fingerprint_parts`."""
        return digest(self.fingerprint_parts())

    def differences(self, other: "FeatureSpec") -> list[str]:
        """One phrase per part in which the two fingerprints differ: ``part: mine, not theirs``."""
        mine, theirs = self.fingerprint_parts(), other.fingerprint_parts()
        return [f"{key}: {mine[key]!r}, not {theirs[key]!r}" for key in mine if mine[key] != theirs[key]]

    def to_json(self) -> dict[str, Any]:
        """A JSON object from which `from_json` makes an equal spec."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Self:
        """The spec that `to_json` wrote."""
        fields = dict(data)
        fields["layers"] = tuple(LayerSpec(**layer) for layer in data["layers"])
        fields["mean"], fields["std"] = tuple(data["mean"]), tuple(data["std"])
        return cls(**fields)


class FeatureSource(Protocol):
    """Whole samples with their clean images and frozen features.

    The source decides where work happens: a store reads ahead in threads, a live encoder runs on the
    device, resident data is indexed where it lies. Nothing behind this seam may ask which it has.
    """

    @property
    def spec(self) -> FeatureSpec:
        """What the features are."""
        ...

    @property
    def index(self) -> Index:
        """Row -> sample."""
        ...

    def batches(self, order: Sequence[int], batch_size: int) -> Iterator[Batch]:
        """The rows of ``order``, in that order, ``batch_size`` at a time (the last may be smaller)."""
        ...
