"""Specifications of named arrays, as computed by encoders, stored in a store and contained in batches.

An array belongs to a view or to a whole sample, depending on its axes. The dataset decides the sizes of the
axes ``variant`` and ``view``; all other axes belong to the array itself.
"""

import math
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, Self

from idif.paths import is_portable_name, shown

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
    """Names of all axes, in order: ``variant`` if the array has variants, ``view`` if each view has its own
    array, then the array's own axes, e.g. ``channel y x``, ``token channel`` or ``time channel``."""
    shape: tuple[int, ...]
    """Sizes of the array's own axes, i.e. without ``variant`` and ``view``."""
    dtype: ArrayType
    """Type of the values as computed, before storage."""
    origin: str
    """Name of the encoder that computes the array, or `DATA`."""
    signed: bool = False
    """Whether values below zero occur; compact storage stores such features as int8."""
    exact: bool = False
    """Whether the array is stored as computed, whatever the type of the other features."""

    def __post_init__(self) -> None:
        assert len(self.own_axes) == len(self.shape), self

    @property
    def per_view(self) -> bool:
        """Whether each view has its own array; otherwise the sample has one."""
        return VIEW in self.axes

    @property
    def has_variants(self) -> bool:
        """Whether the array has the axis ``variant``."""
        return VARIANT in self.axes

    @property
    def own_axes(self) -> tuple[str, ...]:
        """The axes without ``variant`` and ``view``."""
        return tuple(axis for axis in self.axes if axis not in (VARIANT, VIEW))

    @property
    def is_feature_map(self) -> bool:
        """Whether it is a map (channel, y, x) of every view, of any height and width."""
        return self.per_view and self.own_axes == ("channel", "y", "x")

    def row_shape(self, views: int, variants: int) -> tuple[int, ...]:
        """Shape of one sample's array, for this many views and variants."""
        sizes = {VARIANT: variants, VIEW: views}
        return (*(sizes[axis] for axis in self.axes if axis in sizes), *self.shape)

    @property
    def size(self) -> int:
        """Number of values per view, or per sample for arrays without the axis ``view``."""
        return math.prod(self.shape)

    def to_json(self) -> dict[str, Any]:
        """A JSON object from which `from_json` makes an equal spec."""
        fields = asdict(self) | {"axes": list(self.axes), "shape": list(self.shape)}
        if not self.exact:  # as in stores written before there were exact arrays
            del fields["exact"]
        return fields

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Self:
        """The spec that `to_json` wrote.

        Raises:
            ValueError: the name cannot be that of a folder, which an array has in a store.
        """
        if not is_portable_name(data["name"]):
            raise ValueError(f"array {shown(data['name'])}: expected a name that can be a folder's")
        return cls(**data | {"axes": tuple(data["axes"]), "shape": tuple(data["shape"])})


def feature_map(name: str, channels: int, side: int, origin: str, *, signed: bool = False) -> ArraySpec:
    """The spec of a square feature map of every view, [V,C,h,w] with h = w = ``side``."""
    return ArraySpec(name, (VIEW, "channel", "y", "x"), (channels, side, side), "float32", origin, signed)


def with_variants(array: ArraySpec) -> ArraySpec:
    """The same array with the axis ``variant`` in front."""
    return replace(array, axes=(VARIANT, *array.axes))
