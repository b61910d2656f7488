"""Features: their specification (`FeatureSpec`) and their sources (`FeatureSource`)."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol, Self

from idif.data.arrays import DATA, VIEW, ArraySpec, StorageType, feature_map
from idif.data.index import Index
from idif.errors import StoreMismatch
from idif.fingerprint import digest
from idif.paths import is_portable_name, shown

if TYPE_CHECKING:
    from idif.data.batch import Batch  # imports torch, which reading a spec does not need

IMAGES, MASKS = "images", "masks"
"""Names of the arrays that hold the clean images and the defect masks."""
IMAGE_INPUT, NO_INPUT = "image", "none"
"""`EncoderSpec.input` of encoders of every view's image, and of those whose arrays depend on no file."""


FIRST_MASK_RULE = "nonzero"
"""The rule of masks before rules had names: every value above 0 marks. Not written, so that fingerprints of
existing stores do not change."""

FIRST_SHIFT = 4
"""Pixels of every shifted variant before the shift followed from the margin. Not written, as above."""

WEIGHTS_SUFFIX = ".safetensors"
TEACHER = f"teacher{WEIGHTS_SUFFIX}"
"""File name of the first encoder's weights."""


@dataclass(frozen=True)
class EncoderSpec:
    """One frozen encoder: everything its arrays depend on besides the input data."""

    name: str
    """As that of `idif.encoders.frozen.find_family`."""
    weights: str
    """Origin of the weights: ``imagenet``, ``untrained``, ``file``, or ``training`` where they are learned
    from the training samples. Not fingerprinted."""
    weights_sha256: str
    input: str
    """``image`` (every view's image), the name of a per-sample file, e.g. ``audio``, or ``none``."""
    preparation: Mapping[str, Any]
    """Preprocessing of the input file and options of the encoder, as JSON values: resize rule, mean, standard
    deviation, taps, neck."""
    arrays: tuple[ArraySpec, ...]
    """The arrays that the encoder computes, in order."""
    precision: str = "float32"
    """Arithmetic the encoder runs in."""

    @property
    def file_stem(self) -> str:
        """The name as part of a file's name."""
        return re.sub(r"[:/\\]", "-", self.name)

    def to_json(self) -> dict[str, Any]:
        """A JSON object from which `from_json` makes an equal spec."""
        return asdict(self) | {
            "preparation": dict(self.preparation),
            "arrays": [a.to_json() for a in self.arrays],
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Self:
        """The spec that `to_json` wrote.

        Raises:
            ValueError: its name, its input or an array has a name that cannot be part of a file's.
        """
        spec = cls(**data | {"arrays": tuple(ArraySpec.from_json(a) for a in data["arrays"])})
        for name in (spec.file_stem, spec.input):
            if not is_portable_name(name):
                raise ValueError(f"encoder {shown(name)}: expected a name that can be part of a file's")
        return spec


@dataclass(frozen=True)
class FeatureSpec:
    """Everything the arrays of a source depend on besides the data.

    Two sources with equal specs give equal arrays for equal data, within the tolerance of ``storage``.
    """

    encoders: tuple[EncoderSpec, ...]
    image_size: int | None
    """Side in pixels of the square images, masks and anomaly maps; None where samples have no images."""
    storage: StorageType
    """Type in which features are stored; a live encoder returns float32."""
    stores_images: bool = True
    """Whether the clean images are among the arrays."""
    variants: tuple[str, ...] = ()
    """Names of the input variants along the axis ``variant``; the first is the unmodified input. Empty if
    there is no such axis."""
    mask_rule: str = FIRST_MASK_RULE
    """Name of the rule by which pixels of masks are marked, see `idif.data.mask_levels`."""
    shift: int = FIRST_SHIFT
    """Pixels by which shifted variants are shifted; `FIRST_SHIFT` where there are none."""

    @cached_property
    def features(self) -> dict[str, ArraySpec]:
        """The encoders' arrays by name, in order."""
        return {array.name: array for encoder in self.encoders for array in encoder.arrays}

    @cached_property
    def arrays(self) -> dict[str, ArraySpec]:
        """All arrays by name: the encoders', then images and masks if there are any."""
        found = dict(self.features)
        if self.image_size is not None:
            side = (self.image_size, self.image_size)
            if self.stores_images:
                found[IMAGES] = ArraySpec(IMAGES, (VIEW, "rgb", "y", "x"), (3, *side), "uint8", DATA)
            found[MASKS] = ArraySpec(MASKS, (VIEW, "y", "x"), side, "bool", DATA)
        return found

    @property
    def inputs(self) -> tuple[str, ...]:
        """Names of the per-sample inputs, in order, e.g. ``video`` and ``audio``."""
        inputs = dict.fromkeys(encoder.input for encoder in self.encoders)
        return tuple(name for name in inputs if name not in (IMAGE_INPUT, NO_INPUT))

    @property
    def weights_files(self) -> tuple[str, ...]:
        """File name of each encoder's weights, in the folder of a store or run."""
        further = (f"{encoder.file_stem}{WEIGHTS_SUFFIX}" for encoder in self.encoders[1:])
        return (TEACHER, *further)[: len(self.encoders)]

    @property
    def untrained(self) -> tuple[str, ...]:
        """Names of the encoders whose weights are seeded random numbers."""
        return tuple(e.name for e in self.encoders if e.weights == "untrained")

    def fingerprint_parts(self) -> dict[str, Any]:
        """Named parts of the fingerprint, used to report differences."""
        parts = self.to_json()
        parts.pop("weights", None)
        for encoder in parts.get("encoders", []):
            del encoder["weights"]
        return parts

    @property
    def fingerprint(self) -> str:
        """SHA-256 (hex) over `fingerprint_parts`."""
        return digest(self.fingerprint_parts())

    def differences(self, other: "FeatureSpec") -> list[str]:
        """One phrase for each part in which the fingerprints differ: ``part: own value, not other value``."""
        ours, theirs = self.fingerprint_parts(), other.fingerprint_parts()
        if "encoders" in ours or "encoders" in theirs:
            return list(_phrases(self._parts_by_name(), other._parts_by_name()))
        return list(_phrases(dict.fromkeys(theirs) | ours, dict.fromkeys(ours) | theirs))

    def _parts_by_name(self) -> dict[str, Any]:
        """`fingerprint_parts` with defaults, and with encoders and arrays by name, as messages tell them."""
        encoders = {}
        for encoder in self.encoders:
            arrays = {array.name: asdict(array) for array in encoder.arrays}
            encoders[encoder.name] = asdict(encoder) | {"arrays": arrays}
            del encoders[encoder.name]["weights"]
        parts = {field.name: getattr(self, field.name) for field in fields(self)} | {"encoders": encoders}
        # one that was read from a file has lists for tuples
        return dict(json.loads(json.dumps(parts)))

    def to_json(self) -> dict[str, Any]:
        """A JSON object from which `from_json` makes an equal spec.

        A single encoder of plain image features is written flat, as in the first version, so that bytes and
        fingerprints of existing stores do not change.
        """
        rule = {} if self.mask_rule == FIRST_MASK_RULE else {"mask_rule": self.mask_rule}
        if (flat := _to_flat_json(self)) is not None:
            return flat | rule
        return rule | {
            "encoders": [encoder.to_json() for encoder in self.encoders],
            "image_size": self.image_size,
            "storage": self.storage,
            "stores_images": self.stores_images,
            "variants": list(self.variants),
            **({} if self.shift == FIRST_SHIFT else {"shift": self.shift}),
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Self:
        """The spec that `to_json` wrote.

        Raises:
            KeyError, TypeError: the object lacks a part or contains an unknown one.
            ValueError: a name in it could not be that of a file or folder.
        """
        if "encoders" not in data:
            data = _from_flat_json(data)
        encoders = tuple(EncoderSpec.from_json(encoder) for encoder in data["encoders"])
        return cls(**data | {"encoders": encoders, "variants": tuple(data["variants"])})


def _phrases(ours: Mapping[str, Any], theirs: Mapping[str, Any], where: str = "") -> Iterator[str]:
    """``part: own value, not other value`` for each part in which two nested mappings differ."""
    for name in (name for name in ours if name in theirs):
        own, other, part = ours[name], theirs[name], f"{where}{name}"
        if isinstance(own, Mapping) and isinstance(other, Mapping):
            if list(own) != list(other):
                yield f"{part}: {', '.join(own) or 'none'}, not {', '.join(other) or 'none'}"
            yield from _phrases(own, other, f"{part}.")
        elif own != other:
            yield f"{part}: {own!r}, not {other!r}"


_FLAT_PREPARATION = ("resize", "mean", "std")


def _to_flat_json(spec: FeatureSpec) -> dict[str, Any] | None:
    """The flat form of a spec; None if the spec cannot be written flat."""
    if len(spec.encoders) != 1 or spec.image_size is None or not spec.stores_images or spec.variants:
        return None
    (encoder,) = spec.encoders
    if encoder.input != "image" or tuple(encoder.preparation) != _FLAT_PREPARATION:
        return None
    layers = []
    for array in encoder.arrays:
        stride = spec.image_size // array.shape[-1]
        same = feature_map(array.name, array.shape[0], spec.image_size // stride, encoder.name)
        if array != same:
            return None
        layers.append({"name": array.name, "channels": array.shape[0], "stride": stride})
    prepared = encoder.preparation
    return {
        "encoder": encoder.name,
        "weights": encoder.weights,
        "weights_sha256": encoder.weights_sha256,
        "layers": layers,
        "image_size": spec.image_size,
        "resize": prepared["resize"],
        "mean": list(prepared["mean"]),
        "std": list(prepared["std"]),
        "precision": encoder.precision,
        "storage": spec.storage,
    }


def _from_flat_json(data: dict[str, Any]) -> dict[str, Any]:
    size = data["image_size"]
    arrays = [
        feature_map(layer["name"], layer["channels"], size // layer["stride"], data["encoder"]).to_json()
        for layer in data["layers"]
    ]
    encoder = {
        "name": data["encoder"],
        "weights": data["weights"],
        "weights_sha256": data["weights_sha256"],
        "input": "image",
        "preparation": {key: data[key] for key in _FLAT_PREPARATION},
        "arrays": arrays,
        "precision": data["precision"],
    }
    rule = {key: data[key] for key in ("mask_rule",) if key in data}
    return rule | {
        "encoders": [encoder],
        "image_size": size,
        "storage": data["storage"],
        "stores_images": True,
        "variants": [],
    }


def check_arrays(needed: Sequence[str], features: FeatureSpec) -> None:
    """Refuse a source that lacks arrays.

    Raises:
        StoreMismatch: names the missing arrays.
    """
    lacking = [name for name in needed if name not in features.arrays]
    if lacking:
        raise StoreMismatch(
            f"the method reads {', '.join(lacking)}, but there are {', '.join(features.arrays)}; build a "
            "store with `idif cache build --config`, which keeps what the config's method needs"
        )


class FeatureSource(Protocol):
    """Samples with their arrays.

    The source decides where the work is done: a store reads ahead in threads, a live encoder runs on the
    device, resident data is indexed in place. Callers must not depend on the kind of source.
    """

    @property
    def spec(self) -> FeatureSpec:
        """The specification of its arrays."""
        ...

    @property
    def index(self) -> Index:
        """Row -> sample."""
        ...

    def batches(
        self, order: Sequence[int], batch_size: int, variants: Sequence[int] | None = None
    ) -> Iterator["Batch"]:
        """Batches of the rows of ``order``, in order, ``batch_size`` at a time (the last may be smaller).

        Args:
            variants: variant of each entry of ``order``; the plain one (0) when None. Batches never have the
                axis ``variant``.
        """
        ...
