"""Decodes the images and masks of whole samples."""

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from idif.data.images import READER, FileReader, load_image, load_mask
from idif.data.index import Sample
from idif.data.resize import Resize
from idif.paths import resolve_inside

DECODED_AHEAD = 2
"""Batches decoded ahead of use; bounds the memory of every source that decodes."""


def decode_threads() -> int:
    """Number of decoding threads: one per core, at most 8."""
    return min(8, os.cpu_count() or 1)


def decode_views(
    images: Sequence[Path | None],
    masks: Sequence[Path | None],
    size: int,
    resize: Resize = "bilinear",
    crop_from: int | None = None,
    *,
    read: FileReader = READER,
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.bool_]]:
    """Decode images uint8 [V,3,S,S] and masks bool [V,S,S] of some views; absent files give zeros.

    Args:
        images: V files.
        masks: V files; the mask of an absent image is not read.
        resize: as that of `load_image`.
        crop_from: as that of `load_image`.
        read: reads the files.

    Raises:
        DatasetError: a file is missing or unreadable, or a mask does not fit its image.
    """
    pixels = np.zeros((len(images), 3, size, size), np.uint8)
    defects = np.zeros((len(images), size, size), np.bool_)
    for slot, (image, mask) in enumerate(zip(images, masks, strict=True)):
        if image is not None:
            pixels[slot], shape = load_image(image, size, resize, crop_from, read=read)
            if mask is not None:
                defects[slot] = load_mask(mask, size, shape, crop_from, read=read)
    return pixels, defects


def decode_sample(
    root: Path, sample: Sample, size: int
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.bool_]]:
    """Decode one sample's images uint8 [V,3,S,S] and masks bool [V,S,S]; absent views give zeros.

    Raises:
        DatasetError: a file is missing, unreadable or outside ``root``, or a mask does not fit its image.
    """
    return decode_views(*sample_files(root, sample), size)


def sample_files(root: Path, sample: Sample) -> tuple[list[Path | None], list[Path | None]]:
    """The files of a sample's V images and V masks, below ``root``.

    Raises:
        DatasetError: a path leads outside ``root``.
    """
    images = [None if view is None else resolve_inside(root, view.image) for view in sample.views]
    masks = [
        None if view is None or view.mask is None else resolve_inside(root, view.mask)
        for view in sample.views
    ]
    return images, masks
