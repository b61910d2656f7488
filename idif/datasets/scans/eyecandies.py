"""Imports Eyecandies into the Real-IAD layout: depth maps become organized clouds and are rendered as scans.

The layout is the one its authors publish (eyecan-ai.github.io/eyecandies, "Download")::

    SRC/<category>/{train,test_public}/data/<number>_image_<0..5>.png     RGB under six lights
                                            <number>_depth.png            16-bit, 0..65535
                                            <number>_info_depth.yaml      normalization: {min, max}, metres
                                            <number>_normals.png          RGB, -1..1 -> 0..255
                                            <number>_mask.png             union of the four below
                                            <number>_{bumps,dents,colors,normals}_mask.png

``val`` and ``test_private`` (which has no masks) are left out. Tested with generated data in this layout, not
with the published data.
"""

import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import yaml

from idif.data.images import decode, load_photograph, load_whole_mask, read_file
from idif.data.index import TRAIN_AND_TEST, Split
from idif.datasets.realiad.writer import ImportRequest, ImportSummary
from idif.datasets.scans.cameras import NoObjectError, PictureKind, Scan, prepare_scan
from idif.datasets.scans.importer import MAX_SIZE, RenderSettings, find_scan_categories, import_scans
from idif.datasets.scans.point_cloud import Floats
from idif.errors import DatasetError
from idif.paths import shown
from idif.progress import Progress, silent

Modality = Literal["rgb", "normals", "both"]
KINDS: dict[Modality, tuple[PictureKind, ...]] = {
    "rgb": ("rgb",),
    "normals": ("normals",),
    "both": ("rgb", "normals"),
}

FOLDERS: dict[Split, str] = {"train": "train", "test": "test_public"}
DEFECTS = ("bumps", "dents", "colors", "normals")
COMBINED = "combined"
"""Class of samples with several kinds of defect."""
FOCAL_LENGTH = 711.11
"""Published focal length of the camera, in pixels; its axis meets the middle of the picture."""
SCALE = 0.1
"""Factor applied to all lengths: the scenes are about ten times as large as the objects of MVTec 3D-AD, to
which the cleaning of point clouds is tuned."""


@dataclass(frozen=True)
class EyecandiesFiles:
    """The files of one sample."""

    split: Split
    defect: str | None
    stem: str
    """Path of the sample's files before the underscore that follows its number."""
    light: int

    def path(self, item: str) -> Path:
        """The file of one item, e.g. ``depth.png``."""
        return Path(f"{self.stem}_{item}")

    @property
    def name(self) -> str:
        """End of the names of the pictures."""
        return Path(self.stem).name

    @property
    def paths(self) -> tuple[Path, ...]:
        """Every file that is read."""
        items = (f"image_{self.light}.png", "depth.png", "info_depth.yaml", "normals.png", "mask.png")
        return tuple(self.path(item) for item in items)

    def read(self, remove_background: bool) -> Scan:
        """The scan, ready to be rendered. Raises DatasetError."""
        return read_eyecandies(self, remove_background)


def import_eyecandies(
    request: ImportRequest,
    *,
    views: int = 5,
    align: bool = True,
    modality: Modality = "rgb",
    light: int = 0,
    progress: Progress = silent,
) -> ImportSummary:
    """Render every sample from ``views`` cameras and write the pictures in the Real-IAD layout.

    Args:
        request, views, align: as for `import_mvtec3d`.
        modality: ``rgb``; ``normals`` for the surface normals in each camera's axes; ``both`` for RGB as
            views 1..n and normals as views n+1..2n.
        light: which of the six pictures, 0 (all spotlights) to 5.

    Raises:
        DatasetError, CannotFinish: as for `import_mvtec3d`.
    """
    if modality not in KINDS:
        raise DatasetError(f"modality: expected 'rgb', 'normals' or 'both', got {modality!r}")
    if not 0 <= light <= 5:
        raise DatasetError(f"light: expected 0 to 5, got {light}")
    settings = RenderSettings(
        request.rendered_size(MAX_SIZE), views, align, remove_background=True, kinds=KINDS[modality]
    )
    categories = find_scan_categories(request, "train/data", "Eyecandies")
    scans = {category: list_eyecandies(request.src / category, light) for category in categories}
    return import_scans("eyecandies", request, scans, settings, progress)


def list_eyecandies(folder: Path, light: int) -> list[EyecandiesFiles]:
    """The samples of a category, training first. Masks are opened to determine the classes.

    Raises:
        DatasetError: a file of a sample is missing or cannot be read, or there is no training sample.
    """
    samples: list[EyecandiesFiles] = []
    for split in TRAIN_AND_TEST:
        for depth in sorted((folder / FOLDERS[split] / "data").glob("*_depth.png")):
            if re.fullmatch(r"[0-9]+_depth\.png", depth.name) is None:
                raise DatasetError(f"{shown(str(depth))}: expected a name <number>_depth.png")
            files = EyecandiesFiles(split, None, str(depth).removesuffix("_depth.png"), light)
            for path in files.paths:
                if not path.is_file():
                    raise DatasetError(f"{path}: is missing, but {depth.name} is there")
            defect = _defect(files)
            if split == "train" and defect is not None:
                raise DatasetError(f"{files.path('mask.png')}: a training sample's mask marks a defect")
            samples.append(replace(files, defect=defect))
    if not any(files.split == "train" for files in samples):
        raise DatasetError(f"{folder / 'train' / 'data'}: expected samples (*_depth.png), found none")
    return samples


def _defect(files: EyecandiesFiles) -> str | None:
    if not load_whole_mask(files.path("mask.png")).any():
        return None
    paths = {kind: files.path(f"{kind}_mask.png") for kind in DEFECTS}
    marked = [kind for kind, path in paths.items() if path.is_file() and load_whole_mask(path).any()]
    return marked[0] if len(marked) == 1 else COMBINED


def read_eyecandies(files: EyecandiesFiles, remove_background: bool) -> Scan:
    """Read one sample and prepare it for rendering.

    Raises:
        DatasetError: a file is unreadable or differs in size from the depth map, or there is no object.
    """
    points = read_depth(files)
    colors = load_photograph(files.path(f"image_{files.light}.png"))
    pixels = load_photograph(files.path("normals.png"))
    mask = load_whole_mask(files.path("mask.png"))
    for item, array in (("image", colors), ("normals", pixels), ("mask", mask)):
        if array.shape[:2] != points.shape[:2]:
            name = f"image_{files.light}" if item == "image" else item
            raise DatasetError(
                f"{files.path(f'{name}.png')}: is {array.shape[1]}x{array.shape[0]}, "
                f"its depth map is {points.shape[1]}x{points.shape[0]}"
            )
    normals: Floats = pixels.astype(np.float64) / 127.5 - 1
    normals /= np.maximum(np.linalg.norm(normals, axis=2, keepdims=True), 1e-6)
    # the data have y up and z towards the camera; camera axes have y down and z away from it
    normals *= np.array([1.0, -1.0, -1.0])
    try:
        return prepare_scan(points, colors, mask, remove_background=remove_background, normals=normals)
    except NoObjectError as error:
        raise DatasetError(f"{files.path('depth.png')}: {error}") from None


def read_depth(files: EyecandiesFiles) -> Floats:
    """The organized cloud [H,W,3], camera axes, meters times `SCALE`, NaN where the depth is 0 or less.

    Raises:
        DatasetError: the depth map or its bounds cannot be read or are invalid.
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
    """The depths in meters that the values 0 and 65535 stand for."""
    if path.stat().st_size > 2**16:
        raise DatasetError(f"{path}: expected a few numbers, got {path.stat().st_size:,} bytes")
    try:
        bounds = yaml.safe_load(path.read_bytes())["normalization"]
        low, high = float(bounds["min"]), float(bounds["max"])
    except (yaml.YAMLError, KeyError, TypeError, ValueError, RecursionError):
        raise DatasetError(f"{path}: expected 'normalization' with numbers 'min' and 'max'") from None
    if not 0 <= low < high < 1e6:
        raise DatasetError(f"{path}: expected 0 <= min < max, got {low} and {high}")
    return low, high
