"""Connected regions of masks, and the weight that makes every region count the same whatever its size."""

from typing import Literal, NamedTuple

import cv2
import numpy as np

from idif.metrics.score_counts import BoolArray, IntArray
from idif.metrics.threads import map_in_threads

Connectivity = Literal[4, 8]

REGION_UNIT = 1 << 40
"""Weight of a whole region. Whole numbers add up the same in every order, which floats do not; rounding
1/size to 2^-40 moves a region of 65,536 pixels by at most 3e-8."""
MAX_REGIONS = (1 << 63) // REGION_UNIT - 1
"""More would overflow the sum of weights."""


class Regions(NamedTuple):
    """The anomalous pixels of some masks."""

    at: IntArray
    """[A]: place of each in the flattened masks, ascending."""
    weights: IntArray
    """[A]: `REGION_UNIT` over the size of its region, rounded to nearest."""
    regions: int
    """How many there are in all."""


def find_regions(masks: BoolArray, connectivity: Connectivity, threads: int = 1) -> Regions:
    """The connected regions of masks [N,H,W], each within its image, found in at most so many threads."""

    def work(_: int, part: slice) -> list[Regions]:
        anomalous = masks[part].reshape(part.stop - part.start, -1).any(axis=1)
        return [_regions_of(masks[i], i, connectivity) for i in part.start + np.flatnonzero(anomalous)]

    found = [one for part in map_in_threads(work, len(masks), masks.size, threads) for one in part]
    none = np.empty(0, np.int64)
    return Regions(
        np.concatenate([none, *(one.at for one in found)]),
        np.concatenate([none, *(one.weights for one in found)]),
        sum(one.regions for one in found),
    )


def _regions_of(mask: BoolArray, number: int, connectivity: Connectivity) -> Regions:
    # Anomalies mostly fill a small part of the image: labeling all of it would take twice as long.
    x, y, width, height = cv2.boundingRect(mask.view(np.uint8))
    part = np.ascontiguousarray(mask[y : y + height, x : x + width])
    found, labelled = cv2.connectedComponents(
        part.view(np.uint8), connectivity=connectivity, ltype=cv2.CV_32S
    )
    inside = np.flatnonzero(part)
    labels = labelled.ravel()[inside]
    sizes = np.bincount(labels, minlength=found)
    sizes[0] = 1  # the background, which no anomalous pixel has
    # Rounded to nearest: (2 unit + size) // (2 size).
    weights = ((2 * REGION_UNIT + sizes) // (2 * sizes))[labels]
    rows, columns = np.divmod(inside, width)
    at = (number * len(mask) + rows + y) * mask.shape[1] + columns + x
    return Regions(at, weights, found - 1)
