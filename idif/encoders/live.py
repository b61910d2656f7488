"""LiveFeatures: a `FeatureSource` that decodes and runs the frozen encoder now."""

import os
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from idif.data.batch import Batch
from idif.data.features import FeatureSpec
from idif.data.images import load_image, load_mask
from idif.data.index import Index, Sample
from idif.encoders.frozen import FrozenEncoder
from idif.errors import ConfigError
from idif.paths import resolve_inside
from idif.prefetch import ahead

DECODED_AHEAD = 2
"""Batches decoded before they are asked for; bounds the memory of every source that decodes."""


def decode_threads() -> int:
    """Threads that decode: one per core, at most 8."""
    return min(8, os.cpu_count() or 1)


def decode_sample(
    root: Path, sample: Sample, size: int
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.bool_]]:
    """One sample's images uint8 [V,3,S,S] and masks bool [V,S,S]; an absent view is zeros in both.

    Raises:
        DatasetError: a file is missing, unreadable or outside ``root``, or a mask does not fit its image.
    """
    images = np.zeros((len(sample.views), 3, size, size), np.uint8)
    masks = np.zeros((len(sample.views), size, size), np.bool_)
    for slot, view in enumerate(sample.views):
        if view is not None:
            images[slot], shape = load_image(resolve_inside(root, view.image), size)
            if view.mask is not None:
                masks[slot] = load_mask(resolve_inside(root, view.mask), size, shape)
    return images, masks


def check_image_size(encoder: FrozenEncoder, image_size: int) -> None:
    """Refuse an image size that the encoder's strides do not divide.

    Raises:
        ConfigError: it is not a positive multiple of the largest stride.
    """
    stride = max(layer.stride for layer in encoder.layers)
    if image_size < stride or image_size % stride:
        raise ConfigError(f"image_size: expected a positive multiple of {stride}, got {image_size}")


def encode_views(encoder: FrozenEncoder, images: Tensor, present: Tensor) -> dict[str, Tensor]:
    """Features of whole samples; only the views that are there are encoded.

    Args:
        images: uint8 [B,V,3,S,S], or float32 in 0..1, on the encoder's device.
        present: bool [B,V], on the CPU or the same device.

    Returns:
        {layer: float32 [B,V,C,h,w]} on the same device, zeros for absent views.
    """
    kept = present.to(images.device)
    # a store promises float32: TF32, on by default for convolutions, would keep ten bits of it
    with torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False):
        encoded = encoder(images[kept])
    if bool(kept.all()):
        return {name: x.view(*kept.shape, *x.shape[1:]) for name, x in encoded.items()}
    features = {}
    for name, x in encoded.items():
        features[name] = x.new_zeros(*kept.shape, *x.shape[1:])
        features[name][kept] = x
    return features


def truth(index: Index, rows: Sequence[int]) -> tuple[Tensor, Tensor]:
    """``view_mask`` and ``labels`` of these rows, both bool [B,V], on the CPU."""
    shape = (len(rows), len(index.view_numbers))
    samples = [index.samples[row] for row in rows]
    present = torch.tensor([sample.present for sample in samples], dtype=torch.bool).view(shape)
    labels = torch.tensor([sample.labels for sample in samples], dtype=torch.bool).view(shape)
    return present, labels


def check_rows(index: Index, rows: Sequence[int]) -> list[int]:
    """The rows as plain integers.

    Raises:
        IndexError: a row is not in the index; negative rows are not either.
    """
    plain = [int(row) for row in rows]
    for row in plain:
        if not 0 <= row < len(index):
            raise IndexError(f"row {row} of an index with {len(index)} rows")
    return plain


class LiveFeatures:
    """Decodes ahead in threads and encodes on ``device`` in the caller's thread; features are float32."""

    def __init__(
        self, root: Path, index: Index, encoder: FrozenEncoder, image_size: int, device: torch.device
    ) -> None:
        """Moves the encoder to ``device``.

        Raises:
            ConfigError: ``image_size`` does not fit the encoder.
        """
        check_image_size(encoder, image_size)
        encoder.module.to(device)
        self._root, self._index, self._encoder, self._device = root, index, encoder, device
        self._spec = encoder.spec(image_size, "float32")

    @property
    def spec(self) -> FeatureSpec:
        """What the features are."""
        return self._spec

    @property
    def index(self) -> Index:
        """Row -> sample."""
        return self._index

    def batches(self, order: Sequence[int], batch_size: int) -> Iterator[Batch]:
        """The rows of ``order``, in that order, on the device; see `FeatureSource.batches`.

        Raises:
            IndexError: a row is not in the index. DatasetError (in its turn): a file cannot be read.
        """
        assert batch_size > 0, batch_size
        return self._batches(check_rows(self._index, order), batch_size)

    def _batches(self, order: list[int], batch_size: int) -> Iterator[Batch]:
        def decode(row: int) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
            return decode_sample(self._root, self._index.samples[row], self._spec.image_size)

        decoded = ahead(decode, order, workers=decode_threads(), depth=DECODED_AHEAD * batch_size)
        try:
            for start in range(0, len(order), batch_size):
                rows = order[start : start + batch_size]
                images, masks = zip(*islice(decoded, len(rows)), strict=True)
                yield self._encode(rows, np.stack(images), np.stack(masks))
        finally:
            decoded.close()

    def _encode(self, rows: list[int], images: npt.NDArray[Any], masks: npt.NDArray[Any]) -> Batch:
        present, labels = truth(self._index, rows)
        on_device = torch.from_numpy(images).to(self._device)
        return Batch(
            rows=torch.tensor(rows, device=self._device),
            images=on_device,
            features=encode_views(self._encoder, on_device, present),
            view_mask=present.to(self._device),
            labels=labels.to(self._device),
            masks=torch.from_numpy(masks).to(self._device),
        )
