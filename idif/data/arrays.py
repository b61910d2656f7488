"""Named arrays: what an encoder gives, a store holds and a batch carries.

An array belongs to a view or to a whole sample; its axes say which. The sizes of the axes ``variant`` and
``view`` are the dataset's, those of all other axes are the array's own.
"""

import math
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, Self

ArrayType = Literal["float32", "float16", "uint8", "int8", "bool"]
StorageType = Literal["float16", "float32", "uint8"]
"""Type in which a store keeps features. ``uint8`` is compact storage: unsigned arrays as uint8, signed as
int8, each with scales of its own (see `cache.format.quantize`)."""

VARIANT, VIEW = "variant", "view"
DATA = "data"
"""Origin of arrays that come from the dataset itself: images and masks."""


@dataclass(frozen=True)
class ArraySpec:
    """One named array of a sample, before it is stored.

    Example:
        ``ArraySpec("layer1", ("view", "channel", "y", "x"), (64, 64, 64), "float32", "resnet18")``
    """

    name: str
    axes: tuple[str, ...]
    """Names of its axes, in order: ``variant`` first where it has variants, then ``view`` where each view has
    its own, then the array's own axes, e.g. ``channel y x``, ``token channel`` or ``time channel``."""
    shape: tuple[int, ...]
    """Sizes of its own axes, i.e. without ``variant`` and ``view``."""
    dtype: ArrayType
    """Type of its values as they are computed."""
    origin: str
    """Name of the encoder that gives it, or `DATA`."""
    signed: bool = False
    """Whether values below zero occur; compact storage keeps such features as int8."""

    def __post_init__(self) -> None:
        assert len(self.own_axes) == len(self.shape), self

    @property
    def per_view(self) -> bool:
        """Whether every view has an array of its own; else the sample has one."""
        return VIEW in self.axes

    @property
    def has_variants(self) -> bool:
        """Whether the store holds one array for each variant."""
        return VARIANT in self.axes

    @property
    def own_axes(self) -> tuple[str, ...]:
        """Its axes without ``variant`` and ``view``."""
        return tuple(axis for axis in self.axes if axis not in (VARIANT, VIEW))

    def row_shape(self, views: int, variants: int) -> tuple[int, ...]:
        """Shape of one sample's array, for this many views and variants."""
        sizes = {VARIANT: variants, VIEW: views}
        return (*(sizes[axis] for axis in self.axes if axis in sizes), *self.shape)

    @property
    def size(self) -> int:
        """Number of values of one view, or of one sample where it has no views."""
        return math.prod(self.shape)

    def to_json(self) -> dict[str, Any]:
        """A JSON object from which `from_json` makes an equal spec."""
        return asdict(self) | {"axes": list(self.axes), "shape": list(self.shape)}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Self:
        """The spec that `to_json` wrote."""
        return cls(**data | {"axes": tuple(data["axes"]), "shape": tuple(data["shape"])})


def feature_map(name: str, channels: int, side: int, origin: str, *, signed: bool = False) -> ArraySpec:
    """The spec of a square feature map of every view, [V,C,h,w] with h = w = ``side``."""
    return ArraySpec(name, (VIEW, "channel", "y", "x"), (channels, side, side), "float32", origin, signed)


def with_variants(array: ArraySpec) -> ArraySpec:
    """The same array with the axis ``variant`` in front."""
    return replace(array, axes=(VARIANT, *array.axes))
