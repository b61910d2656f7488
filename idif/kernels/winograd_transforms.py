"""The small transforms of Winograd's F(4x4, 3x3), compiled by numba: tiles of an image to products and back.

Every tile maps 6x6 numbers of the input, including its neighbors' margins, to 4x4 of the output. Tiles are
counted image by image, row by row; those at the right and lower edge may reach past the image. N images,
G groups of C channels, T tiles. Arguments are not checked; `idif.kernels.winograd` is the only caller.

Rows are selected by integer indexes only: numba cannot prove that a slice is contiguous and would not
vectorize the loops over channels (three times as slow).
"""

import numpy as np
from numba import njit
from numpy.typing import NDArray

Floats = NDArray[np.float32]


@njit(nogil=True, cache=True, error_model="numpy")
def input_tiles(images: Floats, group: int, first: int, tiles: Floats, scratch: Floats) -> None:
    """B' d B of the 6x6 neighborhood d of each tile.

    Args:
        images: [N,H,W,G,C].
        group: index of the group to read.
        first: number of the first tile.
        tiles: written, [36,T,C]: the tiles ``first`` to ``first + T``.
        scratch: [6,6,C].
    """
    height, width = images.shape[1], images.shape[2]
    down, across = (height + 3) // 4, (width + 3) // 4
    zero = np.zeros(tiles.shape[2], np.float32)
    for t in range(tiles.shape[1]):
        n, place = divmod(first + t, down * across)
        y, left = 4 * (place // across) - 1, 4 * (place % across) - 1
        for j in range(6):
            x = left + j
            if x < 0 or x >= width:
                scratch[:, j] = 0
                continue
            _six_of_six(
                images[n, y, x, group] if y >= 0 else zero,
                images[n, y + 1, x, group],
                images[n, y + 2, x, group] if y + 2 < height else zero,
                images[n, y + 3, x, group] if y + 3 < height else zero,
                images[n, y + 4, x, group] if y + 4 < height else zero,
                images[n, y + 5, x, group] if y + 5 < height else zero,
                scratch[0, j],
                scratch[1, j],
                scratch[2, j],
                scratch[3, j],
                scratch[4, j],
                scratch[5, j],
            )
        for i in range(6):
            _six_of_six(
                scratch[i, 0],
                scratch[i, 1],
                scratch[i, 2],
                scratch[i, 3],
                scratch[i, 4],
                scratch[i, 5],
                tiles[6 * i, t],
                tiles[6 * i + 1, t],
                tiles[6 * i + 2, t],
                tiles[6 * i + 3, t],
                tiles[6 * i + 4, t],
                tiles[6 * i + 5, t],
            )


@njit(nogil=True, cache=True, error_model="numpy")
def output_tiles(tiles: Floats, group: int, first: int, images: Floats, scratch: Floats) -> None:
    """A' m A of each tile of products m, written to the part inside the image.

    Args:
        tiles: [36,T,C]: the tiles ``first`` to ``first + T``.
        group, first, scratch: as `input_tiles` takes them.
        images: written, [N,H,W,G,C].
    """
    height, width = images.shape[1], images.shape[2]
    down, across = (height + 3) // 4, (width + 3) // 4
    outside = np.empty((4, tiles.shape[2]), np.float32)
    for t in range(tiles.shape[1]):
        n, place = divmod(first + t, down * across)
        y, x = 4 * (place // across), 4 * (place % across)
        for j in range(6):
            _four_of_six(
                tiles[j, t],
                tiles[j + 6, t],
                tiles[j + 12, t],
                tiles[j + 18, t],
                tiles[j + 24, t],
                tiles[j + 30, t],
                scratch[0, j],
                scratch[1, j],
                scratch[2, j],
                scratch[3, j],
            )
        for i in range(min(4, height - y)):
            _four_of_six(
                scratch[i, 0],
                scratch[i, 1],
                scratch[i, 2],
                scratch[i, 3],
                scratch[i, 4],
                scratch[i, 5],
                images[n, y + i, x, group],
                images[n, y + i, x + 1, group] if x + 1 < width else outside[1],
                images[n, y + i, x + 2, group] if x + 2 < width else outside[2],
                images[n, y + i, x + 3, group] if x + 3 < width else outside[3],
            )


@njit(nogil=True, cache=True, error_model="numpy")
def gradient_tiles(images: Floats, group: int, first: int, tiles: Floats, scratch: Floats) -> None:
    """A g A' of the 4x4 gradients g of each tile: the transpose of `output_tiles`.

    Args:
        images: [N,H,W,G,C], gradients of the output.
        group, first, tiles, scratch: as `input_tiles` takes them.
    """
    height, width = images.shape[1], images.shape[2]
    down, across = (height + 3) // 4, (width + 3) // 4
    zero = np.zeros(tiles.shape[2], np.float32)
    for t in range(tiles.shape[1]):
        n, place = divmod(first + t, down * across)
        y, left = 4 * (place // across), 4 * (place % across)
        for j in range(4):
            x = left + j
            if x >= width:
                scratch[:, j] = 0
                continue
            _six_of_four(
                images[n, y, x, group],
                images[n, y + 1, x, group] if y + 1 < height else zero,
                images[n, y + 2, x, group] if y + 2 < height else zero,
                images[n, y + 3, x, group] if y + 3 < height else zero,
                scratch[0, j],
                scratch[1, j],
                scratch[2, j],
                scratch[3, j],
                scratch[4, j],
                scratch[5, j],
            )
        for i in range(6):
            _six_of_four(
                scratch[i, 0],
                scratch[i, 1],
                scratch[i, 2],
                scratch[i, 3],
                tiles[6 * i, t],
                tiles[6 * i + 1, t],
                tiles[6 * i + 2, t],
                tiles[6 * i + 3, t],
                tiles[6 * i + 4, t],
                tiles[6 * i + 5, t],
            )


# The three matrices of F(4, 3) at the points 0, 1, -1, 2, -2 and infinity (Lavin and Gray 2016, section 4),
# along one axis and for all channels at once, written out: they have many zeros and common terms.


@njit(nogil=True, cache=True, error_model="numpy", inline="always")
def _six_of_six(a, b, c, d, e, f, o0, o1, o2, o3, o4, o5):  # type: ignore[no-untyped-def]
    """B': six inputs in a row to six factors of the products."""
    two, four, five = np.float32(2), np.float32(4), np.float32(5)
    for k in range(len(o0)):
        ak, bk, ck, dk, ek, fk = a[k], b[k], c[k], d[k], e[k], f[k]
        even, odd = ek - four * ck, dk - four * bk
        even2, odd2 = ek - ck, two * (dk - bk)
        o0[k] = four * ak - five * ck + ek
        o1[k] = even + odd
        o2[k] = even - odd
        o3[k] = even2 + odd2
        o4[k] = even2 - odd2
        o5[k] = four * bk - five * dk + fk


@njit(nogil=True, cache=True, error_model="numpy", inline="always")
def _four_of_six(a, b, c, d, e, f, o0, o1, o2, o3):  # type: ignore[no-untyped-def]
    """A': four outputs of six products."""
    two, four, eight = np.float32(2), np.float32(4), np.float32(8)
    for k in range(len(o0)):
        ak, bk, ck, dk, ek, fk = a[k], b[k], c[k], d[k], e[k], f[k]
        ones, signed, twos, signed2 = bk + ck, bk - ck, dk + ek, dk - ek
        o0[k] = ak + ones + twos
        o1[k] = signed + two * signed2
        o2[k] = ones + four * twos
        o3[k] = signed + eight * signed2 + fk


@njit(nogil=True, cache=True, error_model="numpy", inline="always")
def _six_of_four(a, b, c, d, o0, o1, o2, o3, o4, o5):  # type: ignore[no-untyped-def]
    """A, the transpose of `_four_of_six`."""
    two, four, eight = np.float32(2), np.float32(4), np.float32(8)
    for k in range(len(o0)):
        ak, bk, ck, dk = a[k], b[k], c[k], d[k]
        even, odd = ak + ck, bk + dk
        even2, odd2 = ak + four * ck, two * bk + eight * dk
        o0[k] = ak
        o1[k] = even + odd
        o2[k] = even - odd
        o3[k] = even2 + odd2
        o4[k] = even2 - odd2
        o5[k] = dk
