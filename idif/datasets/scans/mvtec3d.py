"""Imports MVTec 3D-AD into the Real-IAD layout: views rendered from each organized point cloud with its RGB.

``SRC/<category>/{train,test}/<defect>/{rgb,xyz,gt}``: a PNG, a float32 TIFF [H,W,3] in metres with zeros
where nothing was measured, and a mask, all on one grid. Scans of ``validation`` are left out: published
results train without them.
"""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

from idif.data.index import NORMAL_CLASS, TRAIN_AND_TEST, Split
from idif.datasets.realiad.writer import ImportRequest, ImportSummary
from idif.datasets.scans.cameras import NoObjectError, PictureKind, Scan, prepare_scan
from idif.datasets.scans.importer import MAX_SIZE, RenderSettings, find_scan_categories, import_scans
from idif.datasets.scans.point_cloud import Floats
from idif.errors import DatasetError
from idif.progress import Progress, silent

Background = Literal["remove", "keep"]
Modality = Literal["rgb", "depth", "both"]
KINDS: dict[Modality, tuple[PictureKind, ...]] = {
    "rgb": ("rgb",),
    "depth": ("depth",),
    "both": ("rgb", "depth"),
}

GOOD = "good"


@dataclass(frozen=True)
class MVTecScanFiles:
    """The files of one scan."""

    split: Split
    defect: str | None
    rgb: Path
    xyz: Path
    gt: Path | None

    @property
    def paths(self) -> tuple[Path, ...]:
        """Every file that is read."""
        return (self.rgb, self.xyz) if self.gt is None else (self.rgb, self.xyz, self.gt)

    @property
    def name(self) -> str:
        """End of the names of the pictures."""
        return self.rgb.stem

    def read(self, remove_background: bool) -> Scan:
        """The scan, ready to be rendered. Raises DatasetError."""
        return read_scan(self, remove_background)


def import_mvtec3d(
    request: ImportRequest,
    *,
    views: int = 5,
    align: bool = True,
    background: Background = "remove",
    modality: Modality = "rgb",
    progress: Progress = silent,
) -> ImportSummary:
    """Render every scan from ``views`` cameras and write the pictures in the Real-IAD layout.

    Views are labeled by `idif.datasets.scans.importer.label_views`.

    Args:
        request: ``size`` is 32 to 2048.
        views: cameras, 1 to 9: the first along the sensor's own direction, the others leaning away from it.
        align: turn all objects to one pose; else they stay turned as they lie.
        background: ``remove`` shows the object alone; ``keep`` shows the table as well.
        modality: ``rgb``; ``depth`` for gray pictures of the same views, brighter where nearer, one range of
            depths for the category; ``both`` for RGB as views 1..n and depth as views n+1..2n.

    Raises:
        DatasetError: a folder, file or category is missing, unreadable or not what it should be, or ``out``
            cannot take the categories.
        CannotFinish: ``out`` cannot be written, or a rendering process died.
    """
    if background not in get_args(Background):
        raise DatasetError(f"background: expected 'remove' or 'keep', got {background!r}")
    if modality not in KINDS:
        raise DatasetError(f"modality: expected 'rgb', 'depth' or 'both', got {modality!r}")
    settings = RenderSettings(
        request.rendered_size(MAX_SIZE), views, align, background == "remove", KINDS[modality]
    )
    categories = find_scan_categories(request, "train/good", "MVTec 3D-AD")
    scans = {category: list_scans(request.src / category) for category in categories}
    return import_scans("mvtec3d", request, scans, settings, progress)


def list_scans(folder: Path) -> list[MVTecScanFiles]:
    """The scans of a category: training first, then test with the normal ones first.

    Raises:
        DatasetError: a scan has no cloud, a defective one has no mask, or there is no training scan.
    """
    scans: list[MVTecScanFiles] = []
    for split in TRAIN_AND_TEST:
        defects = sorted(path.name for path in (folder / split).glob("*") if (path / "rgb").is_dir())
        for name in sorted(defects, key=lambda name: (name != GOOD, name)):
            if not re.fullmatch(r"[A-Za-z0-9.-][\w.-]*", name) or name == NORMAL_CLASS:
                raise DatasetError(f"{folder / split / name}: cannot be the name of a defect")
            for rgb in sorted((folder / split / name / "rgb").glob("*.png")):
                xyz = rgb.parent.parent / "xyz" / f"{rgb.stem}.tiff"
                gt = rgb.parent.parent / "gt" / rgb.name if name != GOOD else None
                for path in (xyz, gt):
                    if path is not None and not path.is_file():
                        raise DatasetError(f"{path}: is missing, but {rgb} is there")
                scans.append(MVTecScanFiles(split, None if name == GOOD else name, rgb, xyz, gt))
    if not any(scan.split == "train" for scan in scans):
        raise DatasetError(f"{folder / 'train' / GOOD / 'rgb'}: expected training scans (*.png), found none")
    return scans


def read_scan(files: MVTecScanFiles, remove_background: bool) -> Scan:
    """Read one scan and prepare it for rendering.

    Raises:
        DatasetError: a file is unreadable or does not fit the others, or there is no object on a table.
    """
    points = read_cloud(files.xyz)
    rgb = _read_png(files.rgb, "RGB")
    mask = np.zeros(points.shape[:2], np.uint8) if files.gt is None else _read_png(files.gt, "L")
    for path, image in ((files.rgb, rgb), (files.gt, mask)):
        if image.shape[:2] != points.shape[:2]:
            raise DatasetError(
                f"{path}: is {image.shape[1]}x{image.shape[0]}, "
                f"its cloud {files.xyz.name} is {points.shape[1]}x{points.shape[0]}"
            )
    try:
        return prepare_scan(points, rgb, mask > 0, remove_background=remove_background)
    except NoObjectError as error:
        raise DatasetError(f"{files.xyz}: {error}") from None


def read_cloud(path: Path) -> Floats:
    """The organized cloud [H,W,3] in meters, camera axes (x, y, z), NaN where nothing was measured.

    Raises:
        DatasetError: the file is not a TIFF of three float32 channels, is damaged, or holds no point.
    """
    try:
        # not cv2.imread: on Windows OpenCV opens no path with letters beyond the system's code page
        decoded = cv2.imdecode(np.frombuffer(path.read_bytes(), np.uint8), cv2.IMREAD_UNCHANGED)
    except (OSError, cv2.error) as error:
        raise DatasetError(f"{path}: point cloud cannot be read ({error})") from None
    if decoded is None or decoded.dtype != np.float32 or decoded.ndim != 3 or decoded.shape[2] != 3:
        actual = "nothing readable" if decoded is None else f"{decoded.dtype} {list(decoded.shape)}"
        raise DatasetError(f"{path}: expected a TIFF of float32 [H,W,3], got {actual}")
    # OpenCV gives the channels in reverse order
    points: Floats = decoded[..., ::-1].astype(np.float64)
    points[~np.isfinite(points).all(2) | (points[..., 2] <= 0)] = np.nan
    if not np.isfinite(points).any():
        raise DatasetError(f"{path}: expected a point cloud, but no pixel holds a point")
    return points


def _read_png(path: Path, mode: Literal["RGB", "L"]) -> npt.NDArray[np.uint8]:
    try:
        with Image.open(path) as image:
            return np.asarray(image.convert(mode))
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError, EOFError) as error:
        raise DatasetError(f"{path}: image cannot be read ({error})") from None
