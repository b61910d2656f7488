"""Decodes the images and masks of whole samples."""

import os
from pathlib import Path

import numpy as np
import numpy.typing as npt

from idif.data.images import load_image, load_mask
from idif.data.index import Sample
from idif.paths import resolve_inside

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
