"""Runs frozen encoders on whole samples: decodes in threads, encodes the inputs that are present."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from idif.data.arrays import StorageType
from idif.data.decode import decode_views, sample_files
from idif.data.features import FIRST_MASK_RULE, FIRST_SHIFT, IMAGE_INPUT, IMAGES, MASKS, NO_INPUT, FeatureSpec
from idif.data.images import READER, FileReader, center
from idif.data.index import Sample
from idif.data.mask_levels import MASK_RULE
from idif.encoders.frozen import FrozenEncoder
from idif.encoders.preparation import SquareImage
from idif.encoders.variants import SMALLEST_MARGIN, VARIANTS, shift_for
from idif.errors import ConfigError
from idif.paths import resolve_inside

Array = npt.NDArray[Any]

UNCUT = "uncut images"
"""Key of the decoded square images, before their center is cut out, of a set with variants."""


@dataclass(frozen=True)
class EncoderSet:
    """Frozen encoders whose arrays form one source, with the image settings of that source."""

    encoders: tuple[FrozenEncoder, ...]
    image_size: int | None
    """Side in pixels of the square images, masks and anomaly maps; None where samples have no images."""
    stores_images: bool = True
    """Whether the clean images are among the arrays."""
    variants: tuple[str, ...] = ()
    """Keys of `idif.encoders.variants.VARIANTS`, ``plain`` first; empty: no axis ``variant``."""
    recorded_shift: int | None = None
    """Shift of the shifted variants of an existing store; None: `shift_for` of the margin."""

    def __post_init__(self) -> None:
        for encoder in self.encoders:
            check_image_size(encoder, self.image_size)
        crop = self.image_reader.crop_from
        if crop is not None and self.image_size is not None and crop < self.image_size:
            raise ConfigError(f"crop_from: expected at least the image size {self.image_size}, got {crop}")
        if any(read.crop_from != crop for read in self._image_readers):
            raise ConfigError("crop_from: expected the same for all encoders of one store")
        if self.variants and any(encoder.options.decoded for encoder in self.encoders):
            raise ConfigError(
                "decoded: a store with variants is for training, which does not need the decoded images; "
                "build another one of the split test, with cache.variants=[]"
            )
        if self.variants and self.variants[0] != "plain":
            raise ConfigError(f"variants: expected 'plain' first, got {list(self.variants)}")
        unknown = [name for name in self.variants if name not in VARIANTS]
        if unknown:
            raise ConfigError(f"variants: there is no {unknown[0]!r}; known: {', '.join(VARIANTS)}")
        size = self.image_size or 0
        for name in self.variants:
            if VARIANTS[name].shifted and (needed := size + SMALLEST_MARGIN) > (crop or size):
                raise ConfigError(
                    f"variants: {name} needs a margin around the images: expected crop_from of at least "
                    f"{needed}, got {crop}"
                )

    def spec(self, storage: StorageType) -> FeatureSpec:
        """The specification of the arrays, with features stored as ``storage``."""
        size = self.image_size or 0
        return FeatureSpec(
            encoders=tuple(e.spec(size, variants=self._varied(e)) for e in self.encoders),
            image_size=self.image_size,
            storage=storage,
            stores_images=self.stores_images,
            variants=self.variants,
            mask_rule=FIRST_MASK_RULE if self.image_size is None else MASK_RULE,
            shift=self.shift,
        )

    @property
    def shift(self) -> int:
        """Pixels by which shifted variants are shifted; `FIRST_SHIFT` where there are none."""
        if not any(VARIANTS[name].shifted for name in self.variants):
            return FIRST_SHIFT
        if self.recorded_shift is not None:
            return self.recorded_shift
        size = self.image_size or 0
        return shift_for(self.image_reader.crop_from or size, size)

    def to(self, device: torch.device) -> "EncoderSet":
        """The same set, its modules moved to ``device``."""
        for encoder in self.encoders:
            encoder.module.to(device)
        return self

    def decode(self, root: Path, sample: Sample, read: FileReader = READER) -> dict[str, Array]:
        """One sample's decoded files, see `decode_files`.

        Args:
            read: reads the files.

        Raises:
            DatasetError: a file is missing, unreadable or outside ``root``, or a mask does not fit its image.
        """
        inputs = {
            name: None if path is None else resolve_inside(root, path) for name, path in sample.inputs.items()
        }
        return self.decode_files(*sample_files(root, sample), inputs, read)

    def decode_files(
        self,
        images: Sequence[Path | None],
        masks: Sequence[Path | None],
        inputs: Mapping[str, Path | None],
        read: FileReader = READER,
    ) -> dict[str, Array]:
        """Decode the files of one sample; None stands for an absent file.

        Args:
            images: V files.
            masks: V files.
            inputs: {input: file} of the per-sample inputs.
            read: reads the files.

        Returns:
            ``images`` uint8 [V,3,S,S] and ``masks`` bool [V,S,S] if samples have images; under an encoder's
            name its decoded input, [V,...] for images and [...] for others. Absent inputs are zeros. With
            variants, images that encoders read are squares before their center is cut out, those of the
            source under `UNCUT`.

        Raises:
            DatasetError: a file is missing or unreadable, or a mask does not fit its image.
        """
        decoded: dict[str, Array] = {}
        reader, size = self.image_reader, self.image_size
        if size is not None and self.variants:
            side = reader.crop_from or size
            decoded[UNCUT], defects = decode_views(images, masks, side, reader.resize, read=read)
            rows, columns = center(side, size)
            decoded[IMAGES] = np.ascontiguousarray(decoded[UNCUT][..., rows, columns])
            decoded[MASKS] = np.ascontiguousarray(defects[..., rows, columns])
        elif size is not None:
            decoded[IMAGES], decoded[MASKS] = decode_views(
                images, masks, size, reader.resize, reader.crop_from, read=read
            )
        for encoder in self._own_inputs:
            if encoder.family.input == IMAGE_INPUT:
                decoded[encoder.name] = self._read(encoder, images, read)
            else:
                decoded[encoder.name] = self._read(encoder, [inputs.get(encoder.family.input)], read)[0]
        return decoded

    def encode(self, decoded: Mapping[str, Tensor], present: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """All arrays of some samples, from the stacked results of `decode`, on the encoders' device.

        Args:
            decoded: {name: [B,...]}.
            present: {input: bool}; ``image`` [B,V], others [B].

        Returns:
            {array: [B,(A,)(V,)...]}: features float32, zeros for absent views and inputs; images and masks as
            decoded, without images if these are not stored.
        """
        arrays: dict[str, Tensor] = {}
        for encoder in self.encoders:
            own = encoder.name in decoded
            # stored images are cut out already, which variants without a shift can be made from
            shared = UNCUT if UNCUT in decoded else IMAGES
            inputs = decoded[encoder.name if own else shared]
            constant = encoder.family.input == NO_INPUT
            shown = torch.ones(len(inputs), dtype=torch.bool) if constant else present[encoder.family.input]
            if not self._varied(encoder):
                arrays |= encode_present(encoder, inputs, shown)
                continue
            size = self.image_size or 0
            cut = [VARIANTS[name](inputs, size, self.shift) for name in self.variants]
            each = [encode_present(encoder, images, shown) for images in cut]
            arrays |= {name: torch.stack([one[name] for one in each], dim=1) for name in each[0]}
        if self.image_size is not None:
            if self.stores_images:
                arrays[IMAGES] = decoded[IMAGES]
            arrays[MASKS] = decoded[MASKS]
        return arrays

    @cached_property
    def image_reader(self) -> SquareImage:
        """Reads the images of the source: as its first encoder of square images does."""
        return next(iter(self._image_readers), SquareImage())

    @property
    def _image_readers(self) -> tuple[SquareImage, ...]:
        return tuple(e.family.read for e in self.encoders if isinstance(e.family.read, SquareImage))

    @cached_property
    def _own_inputs(self) -> tuple[FrozenEncoder, ...]:
        """The encoders whose input is not the images of the source."""
        return tuple(e for e in self.encoders if e.family.read != self.image_reader)

    def _varied(self, encoder: FrozenEncoder) -> bool:
        return bool(self.variants) and encoder.family.input == IMAGE_INPUT

    def _read(self, encoder: FrozenEncoder, files: Sequence[Path | None], read: FileReader) -> Array:
        """The decoded inputs of an encoder, stacked; zeros for absent ones."""
        family, size = encoder.family, self.image_size or 0
        decode = family.read
        if self._varied(encoder):
            assert isinstance(decode, SquareImage), "variants are cut out of square images"
            decode, size = replace(decode, crop_from=None), decode.crop_from or size

        def watched(file: Path) -> Array:
            with read.watching(file):
                return decode(file, size)

        values = [None if file is None else watched(file) for file in files]
        known = [value for value in values if value is not None]
        absent = np.zeros_like(known[0]) if known else np.zeros(family.absent_shape(size), family.absent_type)
        return np.stack([absent if value is None else value for value in values])


def check_image_size(encoder: FrozenEncoder, image_size: int | None) -> None:
    """Refuse an image size that the encoder does not take.

    Raises:
        ConfigError: not a positive multiple of the encoder's stride, too small, or missing for an encoder of
            images.
    """
    family = encoder.family
    if family.input != IMAGE_INPUT:
        return
    if image_size is None or image_size < family.stride or image_size % family.stride:
        raise ConfigError(f"image_size: expected a positive multiple of {family.stride}, got {image_size}")
    if image_size < family.smallest:
        raise ConfigError(f"image_size: {encoder.name} needs at least {family.smallest}, got {image_size}")
    family.arrays(image_size)


def encode_present(encoder: FrozenEncoder, inputs: Tensor, present: Tensor) -> dict[str, Tensor]:
    """Features of the present inputs; features of absent ones are zeros, whatever the inputs hold.

    Args:
        inputs: [*P,...] decoded inputs on the encoder's device, e.g. uint8 images [B,V,3,S,S], or float32
            in 0..1.
        present: bool [*P], e.g. [B,V] for views; on the CPU or the same device.

    Returns:
        {array: float32 [*P,...]} on the same device, zeros for absent inputs; computed in float32 inside
        ``torch.autocast`` too, like stored features.
    """
    chosen = present.to(inputs.device)
    # features must be exact float32: TF32, on by default for convolutions, has only a 10-bit mantissa; the
    # bfloat16 of a training step that encodes has 7 bits
    with (
        torch.autocast(inputs.device.type, enabled=False),
        torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False),
    ):
        if bool(chosen.any()):
            encoded = encoder(inputs[chosen])
        else:  # some networks take no empty batch: one absent input tells the shapes
            encoded = {name: x[:0] for name, x in encoder(inputs[(0,) * chosen.ndim][None]).items()}
    if bool(chosen.all()):
        return {name: x.view(*chosen.shape, *x.shape[1:]) for name, x in encoded.items()}
    features = {}
    for name, x in encoded.items():
        features[name] = x.new_zeros(*chosen.shape, *x.shape[1:])
        features[name][chosen] = x
    return features
