"""Finds near-duplicate pictures and exchanged views by comparing gray thumbnails.

n pictures; a thumbnail is uint8 [T,T], T = `THUMBNAIL`, of the whole picture.
"""

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image

THUMBNAIL = 32
"""Side of a thumbnail in pixels."""
HASH_BITS = 6
"""Near-duplicates differ in at most this many of the 64 bits of their perceptual hashes,"""
MAX_GRAY_DIFFERENCE = 2.0
"""and their thumbnails, after removal of the mean, by at most this mean difference. The hash alone would
match all parts under one fixed camera."""
SWAP_MARGIN = 0.5
"""Two views count as exchanged where exchanging them reduces their distance to their cameras' usual pictures
below this share."""
MIN_PICTURES_FOR_SWAPS = 8
"""Pictures that a camera needs before one can count as unusual."""
UNUSUAL = 3.0
"""Factor of the usual distance by which both views of an exchanged pair must differ from their cameras' usual
pictures."""

Thumbnails = npt.NDArray[np.uint8]


def make_thumbnail(image: Image.Image) -> Thumbnails:
    """Gray thumbnail, uint8 [T,T], of an 8-bit image of any size."""
    return np.asarray(image.convert("L").resize((THUMBNAIL, THUMBNAIL), Image.Resampling.BOX))


def perceptual_hash(picture: Thumbnails) -> np.uint64:
    """Perceptual hash (pHash) of 64 bits, robust to encoding, scaling and brightness.

    The bits compare the lowest 8 x 8 coefficients of the cosine transform with their median.
    """
    low = cv2.dct(picture.astype(np.float32))[:8, :8].reshape(-1)
    bits = low > np.median(low[1:])
    return np.packbits(bits).view(np.uint64)[0]  # type: ignore[no-any-return]


def near_duplicates(
    thumbnails: Thumbnails, owners: npt.NDArray[np.int64], cameras: npt.NDArray[np.int64]
) -> list[tuple[int, int]]:
    """Pairs (i < j) of nearly equal pictures of one camera and different samples.

    Args:
        thumbnails: [n,T,T].
        owners: [n], number of the sample that each picture belongs to.
        cameras: [n], number of each picture's camera.
    """
    pairs: list[tuple[int, int]] = []
    for camera in np.unique(cameras):
        chosen = np.flatnonzero(cameras == camera)
        hashes = np.array([perceptual_hash(thumbnails[i]) for i in chosen])
        flat = thumbnails[chosen].reshape(len(chosen), -1).astype(np.float32)
        flat -= flat.mean(axis=1, keepdims=True)
        for k in range(len(chosen) - 1):
            close = np.flatnonzero(np.bitwise_count(hashes[k + 1 :] ^ hashes[k]) <= HASH_BITS) + k + 1
            close = close[owners[chosen[close]] != owners[chosen[k]]]
            same = np.abs(flat[close] - flat[k]).mean(axis=1) <= MAX_GRAY_DIFFERENCE
            pairs += [(int(chosen[k]), int(chosen[j])) for j in close[same]]
    return sorted(pairs)


def exchanged_views(
    thumbnails: Thumbnails, owners: npt.NDArray[np.int64], cameras: npt.NDArray[np.int64]
) -> list[tuple[int, int]]:
    """Pairs (i < j) of pictures of one sample that look as if their cameras were exchanged.

    A camera's usual picture is the median of its thumbnails. Both pictures of a pair must differ much from
    their own camera's usual picture (`UNUSUAL`) and, exchanged, less than half as much in sum
    (`SWAP_MARGIN`). Cameras with nearly the same picture cannot be distinguished and give no pairs. Arguments
    as for `near_duplicates`.
    """
    numbers = np.unique(cameras)
    if any(np.count_nonzero(cameras == number) < MIN_PICTURES_FOR_SWAPS for number in numbers):
        return []
    flat = thumbnails.reshape(len(thumbnails), -1).astype(np.float32)
    distance = np.empty((len(flat), len(numbers)), np.float32)
    for column, number in enumerate(numbers):
        usual = np.median(flat[cameras == number], axis=0)
        distance[:, column] = np.sqrt(((flat - usual) ** 2).mean(axis=1))
    column_of = np.searchsorted(numbers, cameras)
    own = distance[np.arange(len(flat)), column_of]
    typical = np.array([np.median(own[cameras == number]) for number in numbers])
    odd = np.flatnonzero(own > UNUSUAL * typical[column_of])
    pairs = []
    for number, i in enumerate(odd):
        for j in odd[number + 1 :]:
            if owners[i] == owners[j]:
                exchanged = distance[i, column_of[j]] + distance[j, column_of[i]]
                if exchanged < SWAP_MARGIN * (own[i] + own[j]):
                    pairs.append((int(i), int(j)))
    return pairs
