"""Decode and resize: deterministic, and part of every fingerprint by `RESIZE_RULE`."""

import warnings
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

from idif.errors import DatasetError

RESIZE_RULE = "pillow-rgb-bilinear-antialias-square/mask-nearest-nonzero/v1"
"""Images: Pillow, RGB, bilinear with antialiasing to a square, aspect ratio given up. Masks: > 0, nearest."""

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


def _decode(path: Path, what: str) -> Image.Image:
    """The fully decoded image. A file cut short raises here, where OpenCV would return half a picture."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path) as image:
                image.load()
                return image.copy()
    except FileNotFoundError:
        raise DatasetError(f"{path}: {what} is missing") from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        limit = Image.MAX_IMAGE_PIXELS
        raise DatasetError(f"{path}: {what} has more than {limit:,} pixels and was not decoded") from None
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError, EOFError) as error:
        raise DatasetError(f"{path}: {what} cannot be read ({error})") from None


def load_image(path: Path, size: int) -> tuple[npt.NDArray[np.uint8], tuple[int, int]]:
    """Decode and resize one image.

    Returns:
        uint8 [3,size,size], RGB, 0..255, and the file's own (height, width).

    Raises:
        DatasetError: missing, unreadable or truncated; the message names the file.
    """
    rgb = _decode(path, "image").convert("RGB")
    height, width = rgb.height, rgb.width
    if (height, width) != (size, size):
        rgb = rgb.resize((size, size), Image.Resampling.BILINEAR)
    return np.ascontiguousarray(np.asarray(rgb).transpose(2, 0, 1)), (height, width)


def load_photograph(path: Path) -> npt.NDArray[np.uint8]:
    """Decode one image at its own size, for looking at: uint8 [H,W,3], RGB.

    Raises:
        DatasetError: as `load_image`.
    """
    return np.asarray(_decode(path, "image").convert("RGB"))


def load_mask(path: Path, size: int, image_shape: tuple[int, int]) -> npt.NDArray[np.bool_]:
    """Decode and resize one defect mask: any value above 0 is anomalous.

    Args:
        image_shape: (height, width) of the image it belongs to, which it must share.

    Returns:
        bool [size,size].

    Raises:
        DatasetError: missing, unreadable, or of another size than its image.
    """
    image = _decode(path, "mask")
    if (image.height, image.width) != image_shape:
        raise DatasetError(
            f"{path}: mask is {image.width}x{image.height}, its image is {image_shape[1]}x{image_shape[0]}"
        )
    pixels = np.asarray(image)
    channels = pixels.reshape(image.height, image.width, -1)
    # an alpha channel (the last of 2 or 4) says nothing about defects
    colours = channels[..., : channels.shape[2] - (channels.shape[2] in (2, 4))]
    binary = Image.fromarray((colours > 0).any(axis=2).astype(np.uint8))
    if image_shape != (size, size):
        binary = binary.resize((size, size), Image.Resampling.NEAREST)
    return np.asarray(binary).astype(np.bool_)
