"""Bring Eyecandies into the Real-IAD layout: its depth maps become organised clouds, rendered as any scan.

The layout is the one its authors publish (eyecan-ai.github.io/eyecandies, "Download")::

    SRC/<category>/{train,test_public}/data/<number>_image_<0..5>.png     RGB under six lights
                                            <number>_depth.png            16-bit, 0..65535
                                            <number>_info_depth.yaml      normalization: {min, max}, metres
                                            <number>_normals.png          RGB, -1..1 -> 0..255
                                            <number>_mask.png             union of the four below
                                            <number>_{bumps,dents,colors,normals}_mask.png

``val`` and ``test_private`` (which has no masks) are left out. Made-up data in this layout were tried, the
published ones were not.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import yaml

from idif.data.images import decode, load_photograph, load_whole_mask, read_file
from idif.data.index import Split
from idif.datasets.realiad.writer import ImportSummary
from idif.datasets.scans.cameras import Kind, NoObject, Scan, prepare
from idif.datasets.scans.importer import Request, import_scans, scan_categories
from idif.datasets.scans.point_cloud import Floats
from idif.errors import DatasetError
from idif.paths import shown
from idif.progress import Progress, silent

Modality = Literal["rgb", "normals", "both"]
KINDS: dict[Modality, tuple[Kind, ...]] = {
    "rgb": ("rgb",),
    "normals": ("normals",),
    "both": ("rgb", "normals"),
}

FOLDERS: dict[Split, str] = {"train": "train", "test": "test_public"}
DEFECTS = ("bumps", "dents", "colors", "normals")
COMBINED = "combined"
"""Class of a sample with several kinds of defect."""
FOCAL_LENGTH = 711.11
"""Of the one camera, in pixels; its middle is that of the picture. Published with the data."""
SCALE = 0.1
"""The scenes are about ten times as large as the objects of MVTec 3D-AD, to which the cleaning is fitted."""


@dataclass(frozen=True)
class CandyFiles:
    """Where one sample lies."""

    split: Split
    defect: str | None
    stem: str
    """Path of the sample's files up to the underscore after its number."""
    light: int

    def path(self, item: str) -> Path:
        """The file of one item, e.g. ``depth.png``."""
        return Path(f"{self.stem}_{item}")

    @property
    def name(self) -> str:
        """Ends the names of the pictures."""
        return Path(self.stem).name

    @property
    def paths(self) -> tuple[Path, ...]:
        """All files that are read."""
        items = (f"image_{self.light}.png", "depth.png", "info_depth.yaml", "normals.png", "mask.png")
        return tuple(self.path(item) for item in items)

    def read(self, remove_background: bool) -> Scan:
        """See `read_candy`."""
        return read_candy(self, remove_background)


def import_eyecandies(
    src: Path,
    out: Path,
    *,
    categories: Sequence[str] = (),
    size: int = 256,
    align: bool = True,
    views: int = 5,
    modality: Modality = "rgb",
    light: int = 0,
    progress: Progress = silent,
) -> ImportSummary:
    """Render every sample from ``views`` cameras and write the pictures in the Real-IAD layout.

    Args:
        modality: ``rgb``; ``normals`` for the surface's directions as each camera sees them; ``both`` for RGB
            as views 1..n and normals as views n+1..2n.
        light: which of the six pictures, 0 (all spotlights) to 5.
        src, out, categories, size, align, views: as for `import_mvtec3d`.

    Raises:
        DatasetError, CannotFinish: as `import_mvtec3d`.
    """
    if modality not in KINDS:
        raise DatasetError(f"modality: expected 'rgb', 'normals' or 'both', got {modality!r}")
    if not 0 <= light <= 5:
        raise DatasetError(f"light: expected 0 to 5, got {light}")
    request = Request(size, views, align, remove_background=True, kinds=KINDS[modality])
    chosen = scan_categories(src, categories, "train/data", "Eyecandies")
    candies = {category: list_candies(src / category, light) for category in chosen}
    return import_scans("eyecandies", src, out, candies, request, progress)


def list_candies(folder: Path, light: int) -> list[CandyFiles]:
    """The samples of a category, training first. The masks of the test samples are opened for their class.

    Raises:
        DatasetError: a file of a sample is missing or cannot be read, or there is no training sample.
    """
    found: list[CandyFiles] = []
    for split in get_args(Split):
        for depth in sorted((folder / FOLDERS[split] / "data").glob("*_depth.png")):
            if re.fullmatch(r"[0-9]+_depth\.png", depth.name) is None:
                raise DatasetError(f"{shown(str(depth))}: expected a name <number>_depth.png")
            candy = CandyFiles(split, None, str(depth).removesuffix("_depth.png"), light)
            for path in candy.paths:
                if not path.is_file():
                    raise DatasetError(f"{path}: is missing, but {depth.name} is there")
            defect = _defect(candy)
            if split == "train" and defect is not None:
                raise DatasetError(f"{candy.path('mask.png')}: a training sample's mask marks a defect")
            found.append(CandyFiles(split, defect, candy.stem, light))
    if not any(candy.split == "train" for candy in found):
        raise DatasetError(f"{folder / 'train' / 'data'}: expected samples (*_depth.png), found none")
    return found


def _defect(candy: CandyFiles) -> str | None:
    if not load_whole_mask(candy.path("mask.png")).any():
        return None
    paths = {kind: candy.path(f"{kind}_mask.png") for kind in DEFECTS}
    marked = [kind for kind, path in paths.items() if path.is_file() and load_whole_mask(path).any()]
    return marked[0] if len(marked) == 1 else COMBINED


def read_candy(files: CandyFiles, remove_background: bool) -> Scan:
    """Read one sample and make it ready for its pictures.

    Raises:
        DatasetError: a file is unreadable or of another size than the depth map, or there is no object.
    """
    points = read_depth(files)
    colours = load_photograph(files.path(f"image_{files.light}.png"))
    pixels = load_photograph(files.path("normals.png"))
    mask = load_whole_mask(files.path("mask.png"))
    for item, array in (("image", colours), ("normals", pixels), ("mask", mask)):
        if array.shape[:2] != points.shape[:2]:
            name = f"image_{files.light}" if item == "image" else item
            raise DatasetError(
                f"{files.path(f'{name}.png')}: is {array.shape[1]}x{array.shape[0]}, "
                f"its depth map is {points.shape[1]}x{points.shape[0]}"
            )
    normals: Floats = pixels.astype(np.float64) / 127.5 - 1
    normals /= np.maximum(np.linalg.norm(normals, axis=2, keepdims=True), 1e-6)
    # published with y up and z towards the camera; camera axes have y down and z away
    normals *= np.array([1.0, -1.0, -1.0])
    try:
        return prepare(points, colours, mask, remove_background=remove_background, normals=normals)
    except NoObject as error:
        raise DatasetError(f"{files.path('depth.png')}: {error}") from None


def read_depth(files: CandyFiles) -> Floats:
    """The organised cloud [H,W,3], camera axes, in `SCALE` metres, NaN where the depth is 0 or less.

    Raises:
        DatasetError: the depth map or its bounds cannot be read or are not what they should be.
    """
    path = files.path("depth.png")
    image = decode(read_file(path, "image"), path, "image")
    if not image.mode.startswith("I"):
        raise DatasetError(f"{path}: expected a 16-bit grey depth map, got an image of mode {image.mode}")
    low, high = _bounds(files.path("info_depth.yaml"))
    depth = np.asarray(image).astype(np.float64) / 65535 * (high - low) + low
    H, W = depth.shape
    u, v = np.meshgrid(np.arange(W) - W / 2, np.arange(H) - H / 2)
    points: Floats = (
        SCALE * depth[..., None] * np.stack([u / FOCAL_LENGTH, v / FOCAL_LENGTH, np.ones_like(u)], axis=2)
    )
    points[depth <= 0] = np.nan
    return points


def _bounds(path: Path) -> tuple[float, float]:
    """The depths in metres that 0 and 65535 stand for."""
    if path.stat().st_size > 2**16:
        raise DatasetError(f"{path}: expected a few numbers, got {path.stat().st_size:,} bytes")
    try:
        told = yaml.safe_load(path.read_bytes())["normalization"]
        low, high = float(told["min"]), float(told["max"])
    except (yaml.YAMLError, KeyError, TypeError, ValueError, RecursionError):
        raise DatasetError(f"{path}: expected 'normalization' with numbers 'min' and 'max'") from None
    if not 0 <= low < high < 1e6:
        raise DatasetError(f"{path}: expected 0 <= min < max, got {low} and {high}")
    return low, high
