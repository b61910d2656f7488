"""Decode and resize images: deterministic, bounded in memory, fingerprinted through `resize_rule`."""

import contextlib
import hashlib
import io
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, UnidentifiedImageError

from idif.data.mask_levels import MarkedPixels, mark_pixels
from idif.data.resize import Resize
from idif.errors import DatasetError
from idif.files import replace_file
from idif.fingerprint import sha256_of_file

_RESAMPLING: dict[Resize, Image.Resampling] = {
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}


def resize_rule(resize: Resize) -> str:
    """Name of everything that `load_image` and `load_mask` do, for fingerprints.

    Images: Pillow, EXIF orientation applied, upper 8 of 16 bits, RGB, resized to a square (aspect ratio not
    preserved) with antialiasing. Masks: same orientation, nearest. Which pixels of a mask are marked has
    its own name, `idif.data.mask_levels.MASK_RULE`, so that a new rule for masks makes no other features.
    """
    return f"pillow-upright-rgb8-{resize}-antialias-square/mask-nearest-nonzero/v2"


RESIZE_RULE = resize_rule("bilinear")
"""The rule where none is chosen."""

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

MAX_FILE_BYTES = 512 * 2**20
"""Largest image file read; an uncompressed picture of as many pixels as Pillow decodes is smaller."""

_FORMATS = ("BMP", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
"""Accepted Pillow formats. Others run programs (EPS) or do not contain photographs."""

_BITS_PER_SAMPLE, _PHOTOMETRIC, _SAMPLE_FORMAT = 258, 262, 339
"""Tags of TIFF."""

What = Literal["image", "mask"]


def read_file(path: Path, what: What) -> bytes:
    """The bytes of an image file.

    Raises:
        DatasetError: missing, not a regular file (reading a pipe could block forever), too large, unreadable.
    """
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise DatasetError(f"{path}: {what} cannot be read (not a regular file)")
        if status.st_size > MAX_FILE_BYTES:
            raise DatasetError(
                f"{path}: {what} cannot be read (expected at most {MAX_FILE_BYTES:,} bytes, "
                f"got {status.st_size:,})"
            )
        return path.read_bytes()
    except FileNotFoundError:
        raise DatasetError(f"{path}: {what} is missing") from None
    except OSError as error:
        raise DatasetError(f"{path}: {what} cannot be read ({error.strerror or error})") from None


class FileReader:
    """Reads the files of samples."""

    def __call__(self, path: Path, what: What) -> bytes:
        """As `read_file`."""
        return read_file(path, what)

    @contextlib.contextmanager
    def watching(self, path: Path) -> Iterator[None]:
        """Context in which other code reads a file."""
        yield


class HashingReader(FileReader):
    """Keeps the SHA-256 of every file as it was read, and refuses one that changes meanwhile."""

    def __init__(self) -> None:
        self.sha256: dict[Path, str] = {}
        """File -> hash (hex) of the bytes that were decoded."""

    def __call__(self, path: Path, what: What) -> bytes:
        """As `read_file`; raises `DatasetError`, too, if the file was another one at the last reading."""
        content = super().__call__(path, what)
        self._keep(path, hashlib.sha256(content).hexdigest())
        return content

    @contextlib.contextmanager
    def watching(self, path: Path) -> Iterator[None]:
        """Context in which other code reads a file, which must be the same before and after.

        Raises:
            DatasetError: it changed, or cannot be read.
        """
        self._keep(path, self._hash(path))
        yield
        self._keep(path, self._hash(path))

    def _keep(self, path: Path, sha256: str) -> None:
        if self.sha256.setdefault(path, sha256) != sha256:
            raise DatasetError(f"{path}: changed while it was read")

    def _hash(self, path: Path) -> str:
        try:
            return sha256_of_file(path)
        except OSError as error:
            raise DatasetError(f"{path}: cannot be read ({error.strerror or error})") from None


READER = FileReader()
"""Reads files and keeps nothing."""


def decode(content: bytes, path: Path, what: What) -> Image.Image:
    """The fully decoded, upright image. A truncated file raises; OpenCV would return a partial image.

    Args:
        path: file of the content, for messages.

    Raises:
        DatasetError: not an image, damaged, or more pixels than `PIL.Image.MAX_IMAGE_PIXELS`.
    """
    limit = Image.MAX_IMAGE_PIXELS or 2**27
    too_many = f"{path}: {what} has more than {limit:,} pixels and was not decoded"
    try:
        with Image.open(io.BytesIO(content), formats=_FORMATS) as image:
            # Pillow only warns up to twice the limit, and warning filters are not per thread
            if image.width * image.height > limit:
                raise DatasetError(too_many)
            image.load()
            _check_sign(image, path, what)
            upright = ImageOps.exif_transpose(image)
            return _invert_16_bits(upright) if _is_white_zero(image) else upright
    except (DatasetError, MemoryError):
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise DatasetError(too_many) from None
    except UnidentifiedImageError:
        kinds = ", ".join(_FORMATS)
        raise DatasetError(f"{path}: {what} cannot be read (its bytes are none of {kinds})") from None
    except Exception as error:  # decoders may raise anything on malformed bytes
        raise DatasetError(f"{path}: {what} cannot be read ({str(error) or type(error).__name__})") from None


def _check_sign(image: Image.Image, path: Path, what: What) -> None:
    """Refuse an image of signed values, whose black and white are unknown; masks mark what is above 0."""
    tags = getattr(image, "tag_v2", {})
    if what == "image" and image.mode == "I" and 2 in tags.get(_SAMPLE_FORMAT, ()):
        bits = tags.get(_BITS_PER_SAMPLE, ("an unknown number of",))[0]
        raise DatasetError(
            f"{path}: expected an image of unsigned values of 8 or 16 bits, got signed ones of {bits}"
        )


def _is_white_zero(image: Image.Image) -> bool:
    """Whether 0 is white in a 16-bit TIFF; Pillow itself inverts those of 8 bits only."""
    return image.mode.startswith("I;16") and getattr(image, "tag_v2", {}).get(_PHOTOMETRIC) == 0


def _invert_16_bits(image: Image.Image) -> Image.Image:
    return Image.fromarray(0xFFFF - np.asarray(image).astype(np.uint16))


def to_rgb(image: Image.Image, path: Path) -> Image.Image:
    """Convert an image of any mode to 8-bit RGB: upper 8 of 16 bits, alpha channel dropped.

    Raises:
        DatasetError: 32-bit values, whose range is unknown.
    """
    if image.mode.startswith("I;16"):
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    elif image.mode in ("I", "F"):
        raise DatasetError(f"{path}: expected an image of 8 or 16 bits a channel, got 32")
    return image.convert("RGB")


def _load_rgb(path: Path, read: FileReader) -> Image.Image:
    return to_rgb(decode(read(path, "image"), path, "image"), path)


def load_image(
    path: Path,
    size: int,
    resize: Resize = "bilinear",
    crop_from: int | None = None,
    *,
    read: FileReader = READER,
) -> tuple[npt.NDArray[np.uint8], tuple[int, int]]:
    """Decode and resize one image.

    Args:
        crop_from: side to resize to before the center of ``size`` is cut out; None: no crop.
        read: reads the file.

    Returns:
        uint8 [3,size,size], RGB, 0..255, and the original (height, width).

    Raises:
        DatasetError: missing, unreadable or truncated; the message names the file.
    """
    rgb = _load_rgb(path, read)
    height, width = rgb.height, rgb.width
    side = crop_from or size
    if (height, width) != (side, side):
        rgb = rgb.resize((side, side), _RESAMPLING[resize])
    pixels = np.asarray(rgb)[center(side, size)].transpose(2, 0, 1)
    return np.ascontiguousarray(pixels), (height, width)


def center(side: int, size: int) -> tuple[slice, slice]:
    """Rows and columns of the central square of ``size`` in a square of ``side``."""
    start = round((side - size) / 2)
    part = slice(start, start + size)
    return part, part


def uncropped(values: npt.NDArray[Any], side: int | None, *, fill: float | None = None) -> npt.NDArray[Any]:
    """Pad a crop [...,S,S] to [...,side,side], the inverse of `center`; unchanged if ``side`` is None.

    Args:
        fill: value of the margin; the crop's edge is repeated when None.
    """
    size = values.shape[-1]
    if side is None or side == size:
        return values
    before = center(side, size)[0].start
    margin = [(0, 0)] * (values.ndim - 2) + [(before, side - size - before)] * 2
    return np.pad(values, margin, "edge") if fill is None else np.pad(values, margin, constant_values=fill)


def load_photograph(path: Path) -> npt.NDArray[np.uint8]:
    """Decode one image at its original size, for display: uint8 [H,W,3], RGB.

    Raises:
        DatasetError: as `load_image`.
    """
    return np.asarray(_load_rgb(path, READER))


def photograph_shape(path: Path) -> tuple[int, int]:
    """(height, width) of an image as its file says, before orientation; nothing is decoded.

    Raises:
        DatasetError: missing or not an image.
    """
    try:
        with Image.open(io.BytesIO(read_file(path, "image")), formats=_FORMATS) as image:
            return image.height, image.width
    except DatasetError:
        raise
    except Exception as error:  # as in `decode`
        raise DatasetError(f"{path}: image cannot be read ({str(error) or type(error).__name__})") from None


def picture_bytes(picture: Image.Image, suffix: str, **options: Any) -> bytes:
    """A picture in the format of a file's suffix.

    Args:
        options: those of the format, as `PIL.Image.Image.save` takes them.
    """
    content = io.BytesIO()
    picture.save(content, Image.registered_extensions()[suffix.lower()], **options)
    return content.getvalue()


def write_picture(path: Path, picture: Image.Image) -> None:
    """Write a picture in the format of the suffix, complete and durable or not at all.

    Raises:
        The exceptions of `idif.files.writing`.
    """
    # in memory first: Pillow's own writing to a file states no reason where it fails
    replace_file(path, picture_bytes(picture, path.suffix))


def load_mask(
    path: Path,
    size: int,
    image_shape: tuple[int, int],
    crop_from: int | None = None,
    *,
    read: FileReader = READER,
) -> npt.NDArray[np.bool_]:
    """Decode and resize one defect mask; `idif.data.mask_levels` decides which pixels are marked.

    Args:
        image_shape: (height, width) of the mask's image; must equal that of the mask.
        crop_from: as that of `load_image`.
        read: reads the file.

    Returns:
        bool [size,size].

    Raises:
        DatasetError: missing, unreadable, or not of the same size as the image.
    """
    return fit_mask(decode_mask(path, read).marked, path, size, image_shape, crop_from)


def fit_mask(
    marked: npt.NDArray[np.bool_],
    path: Path,
    size: int,
    image_shape: tuple[int, int],
    crop_from: int | None = None,
) -> npt.NDArray[np.bool_]:
    """Resize the marked pixels [H,W] of a mask to [size,size]; see `load_mask`.

    Args:
        path: file of the mask, for messages.

    Raises:
        DatasetError: not of the same size as the image.
    """
    check_mask_shape(marked, path, image_shape)
    side = crop_from or size
    if image_shape != (side, side):
        binary = Image.fromarray(marked.astype(np.uint8)).resize((side, side), Image.Resampling.NEAREST)
        marked = np.asarray(binary).astype(np.bool_)
    return marked[center(side, size)]


def check_mask_shape(marked: npt.NDArray[np.bool_], path: Path, image_shape: tuple[int, int]) -> None:
    """Raise `DatasetError` where a mask [H,W] is not of the (height, width) of its image."""
    if marked.shape != image_shape:
        height, width = marked.shape
        raise DatasetError(
            f"{path}: mask is {width}x{height}, its image is {image_shape[1]}x{image_shape[0]}"
        )


def load_whole_mask(path: Path) -> npt.NDArray[np.bool_]:
    """Decode one defect mask at its original size: bool [H,W].

    Raises:
        DatasetError: missing or unreadable.
    """
    return decode_mask(path).marked


def decode_mask(path: Path, read: FileReader = READER) -> MarkedPixels:
    """Decode one defect mask at its original size, with the grey values that it holds.

    Raises:
        DatasetError: missing or unreadable.
    """
    return mark_pixels(decode(read(path, "mask"), path, "mask"))


SUFFIXES = (".png", ".jpg", ".jpeg", ".jfif", ".bmp", ".tif", ".tiff", ".webp")
"""Suffixes of the files of a folder that count as photographs, case-insensitive."""
