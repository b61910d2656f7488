"""The texture bank: textures are decoded and resized once, stored in one file and mapped into memory."""

import math
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, Self

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from idif.corruption.procedural import PROCEDURAL_COUNT, PROCEDURAL_RULE, procedural_texture
from idif.data.images import RESIZE_RULE, SUFFIXES, load_image
from idif.errors import DatasetError, PathError
from idif.files import is_writable, make_folder, replacing, require_space
from idif.fingerprint import digest, sha256_of_file
from idif.progress import Progress, silent

DTD_URL = "https://www.robots.ox.ac.uk/~vgg/data/dtd/"

_DECODED_AT_ONCE = 64
"""Files decoded between two writes, so that a large folder never fills the memory."""

_Pixels = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class TextureBank:
    """Textures of synthetic defects."""

    images: Tensor
    """uint8 [K,3,S,S], RGB, 0..255."""
    origin: str
    """For logs and reports: ``folder: 5640 images from dtd`` or ``procedural: 128 images``."""
    fingerprint: str
    """SHA-256 (hex) over the sources of the textures and their processing."""

    @property
    def caveat(self) -> str | None:
        """That the textures are generated, where they are."""
        return "the corruption textures are generated, not DTD's" if self.generated else None

    @property
    def generated(self) -> bool:
        """Whether they were generated instead of read from a folder."""
        return self.origin.startswith("procedural")

    def __deepcopy__(self, memo: object) -> Self:
        return self  # nothing changes a bank, and a copy of a module shall not copy its gigabyte

    def to(self, device: torch.device) -> Self:
        """The same bank on ``device``."""
        return replace(self, images=self.images.to(device))


def load_textures(
    source: Path | Literal["procedural"],
    size: int,
    cache_dir: Path,
    progress: Progress = silent,
    *,
    fallback: Path | None = None,
) -> TextureBank:
    """Load the bank of a folder of textures (DTD), or of generated textures for ``procedural``.

    The resized textures are stored as ``textures-<fingerprint>.npy`` in ``cache_dir`` for later runs. The
    fingerprint covers the files' names and contents, the size and the resize rule, so a changed folder gives
    another bank. Processes that build a bank at the same time write the same file, one after the other.

    Args:
        source: folder with images (`idif.data.images.SUFFIXES`) at any depth.
        size: height and width of the textures, that of the training images.
        cache_dir: created where missing.
        fallback: folder of the bank where ``cache_dir`` has none and cannot be written.

    Raises:
        DatasetError: the folder does not exist or holds no image, or an image is unreadable.
        PathError: the folder of the bank cannot be written. CannotFinish: no space is left for the bank.
    """
    folders = [cache_dir] if fallback is None else [cache_dir, fallback]
    if source == "procedural":
        recipe = {"rule": PROCEDURAL_RULE, "count": PROCEDURAL_COUNT, "size": size}
        origin = f"procedural: {PROCEDURAL_COUNT} images"

        def rows() -> Iterator[_Pixels]:
            return (procedural_texture(number, size) for number in range(PROCEDURAL_COUNT))

        return _load_or_build(digest(recipe), origin, PROCEDURAL_COUNT, size, rows, folders, progress)

    source = Path(source)
    files = texture_files(source)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        hashes = list(pool.map(_sha256, files))
        contents = [[p.relative_to(source).as_posix(), h] for p, h in zip(files, hashes, strict=True)]
        recipe = {"rule": RESIZE_RULE, "size": size, "files": contents}
        origin = f"folder: {len(files)} images from {source.resolve().name}"

        def decoded() -> Iterator[_Pixels]:
            for start in range(0, len(files), _DECODED_AT_ONCE):
                batch = files[start : start + _DECODED_AT_ONCE]
                yield from pool.map(lambda path: load_image(path, size)[0], batch)

        return _load_or_build(digest(recipe), origin, len(files), size, decoded, folders, progress)


def texture_files(source: Path) -> list[Path]:
    """The image files below ``source``, sorted by relative path."""
    instead = f"DTD is at {DTD_URL}; 'procedural' asks for generated textures"
    if not source.is_dir():
        raise DatasetError(
            f"corruption.textures: expected a folder of textures, {source} is none ({instead})"
        )
    paths = [p for p in source.rglob("*") if p.suffix.lower() in SUFFIXES and not p.name.startswith(".")]
    files = sorted((p for p in paths if p.is_file()), key=lambda p: p.relative_to(source).as_posix())
    if not files:
        raise DatasetError(f"corruption.textures: {source} holds no image ({', '.join(SUFFIXES)}; {instead})")
    return files


def _sha256(path: Path) -> str:
    try:
        return sha256_of_file(path)
    except OSError as error:
        raise DatasetError(f"{path}: texture cannot be read ({error.strerror})") from None


def _load_or_build(
    fingerprint: str,
    origin: str,
    count: int,
    size: int,
    rows: Callable[[], Iterator[_Pixels]],
    folders: Sequence[Path],
    progress: Progress,
) -> TextureBank:
    """Open the bank in the first folder that has it; else build it in the first that can be written."""
    name, shape = f"textures-{fingerprint[:16]}.npy", (count, 3, size, size)
    images = next((bank for folder in folders if (bank := _open(folder / name, shape)) is not None), None)
    if images is None:
        path = next((folder for folder in folders if is_writable(folder)), folders[-1]) / name
        _build(path, shape, rows(), progress)
        images = _open(path, shape)
        assert images is not None, path
    return TextureBank(images, origin, fingerprint)


def _open(path: Path, shape: tuple[int, ...]) -> Tensor | None:
    """The bank mapped into memory, or None where there is none or its file is truncated."""
    try:
        # copy-on-write: the file cannot change, and torch does not warn of read-only memory
        pixels = np.load(path, mmap_mode="c", allow_pickle=False)
    except (FileNotFoundError, NotADirectoryError, ValueError, EOFError):
        return None
    except OSError as error:
        raise DatasetError(f"{path}: the texture bank cannot be read ({error.strerror})") from None
    return torch.from_numpy(pixels) if (pixels.shape, pixels.dtype) == (shape, np.uint8) else None


def _build(path: Path, shape: tuple[int, ...], rows: Iterator[_Pixels], progress: Progress) -> None:
    """Write a bank to a temporary file, then rename it."""
    header = {"descr": "|u1", "fortran_order": False, "shape": shape}
    make_folder(path.parent)
    require_space(path.parent, math.prod(shape), "the texture bank")
    try:
        with replacing(path, unique=True) as partial, partial.open("wb") as file:
            np.lib.format.write_array_header_1_0(file, header)
            for done, row in enumerate(rows, start=1):
                file.write(row.tobytes())
                progress(done, shape[0], "textures")
    except PathError:
        # Windows does not replace a mapped file: another process has built the same bank first
        if _open(path, shape) is None:
            raise
