"""Renders scans of any source from several cameras into the Real-IAD layout."""

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from idif.data.index import Split
from idif.datasets.realiad.writer import (
    CategorySource,
    ImportedSample,
    ImportedView,
    ImportRequest,
    ImportSummary,
    source_digest,
    write_categories,
)
from idif.datasets.scans.cameras import CategoryCameras, PictureKind, Scan, fit_cameras, render_views
from idif.datasets.scans.point_cloud import Bools
from idif.errors import CannotFinish, DatasetError
from idif.paths import shown
from idif.progress import Progress

MAX_SIZE = 2048
"""Largest side of the views in pixels."""
MAX_FITTED_SCANS = 40
"""Largest number of training scans that the cameras are fitted to."""
SMALLEST_MASK = 1.2e-4
"""A view is anomalous where its mask covers this share of the picture: 8 pixels at 256."""
PROCESSES = 2
MIN_SCANS_FOR_PROCESSES = 20
"""Fewer scans than this are rendered in this process."""

Picture = tuple[npt.NDArray[np.uint8], Bools]
"""A view and its defect mask: RGB [size,size,3], 0..255, and [size,size]."""


class ScanFiles(Protocol):
    """The files of one scan. Sent to other processes, so it holds paths and no data."""

    @property
    def split(self) -> Split: ...  # noqa: D102
    @property
    def defect(self) -> str | None:
        """Class of the defect; None for a normal scan."""

    @property
    def name(self) -> str:
        """End of the names of the pictures."""

    @property
    def paths(self) -> tuple[Path, ...]:
        """Every file that is read."""

    def read(self, remove_background: bool) -> Scan:
        """The scan, ready to be rendered. Raises DatasetError."""


@dataclass(frozen=True)
class RenderSettings:
    """How scans are rendered.

    Raises:
        DatasetError: ``views`` is out of range.
    """

    size: int
    """Side of the square views in pixels."""
    views: int
    """Cameras, 1 to 9."""
    align: bool
    """Turn all objects to one pose; else they stay turned as they lie."""
    remove_background: bool
    """Show the object alone; else the table as well."""
    kinds: tuple[PictureKind, ...]

    def __post_init__(self) -> None:
        if not 1 <= self.views <= 9:
            raise DatasetError(f"views: expected 1 to 9, got {self.views}")


def find_scan_categories(request: ImportRequest, marker: str, dataset: str) -> list[str]:
    """The categories of a published dataset, in the order asked for, or all by name.

    Args:
        marker: a folder two levels deep that every category has, e.g. ``train/good``.
        dataset: the dataset's name, for messages.

    Raises:
        DatasetError: there is none, or one that was asked for is missing.
    """
    src, wanted = request.src, request.categories
    if not src.is_dir():
        raise DatasetError(f"{src}: expected a folder with one folder per category, but there is none")
    known = sorted(path.parent.parent.name for path in src.glob(f"*/{marker}") if path.is_dir())
    if not known:
        raise DatasetError(f"{src}: expected folders <category>/{marker} of {dataset}, found none")
    for category in wanted:
        if category not in known:
            raise DatasetError(f"{src}: no category {shown(category)}; there is: {', '.join(known)}")
    return list(dict.fromkeys(wanted)) or known


def import_scans(
    dataset: str,
    request: ImportRequest,
    scans: Mapping[str, Sequence[ScanFiles]],
    settings: RenderSettings,
    progress: Progress,
) -> ImportSummary:
    """Render the scans of every category and write the pictures in the Real-IAD layout.

    Args:
        dataset: name of the source, recorded with the settings of a category's import.
        scans: category -> scans, at least one of them for training.

    Raises:
        DatasetError: a scan cannot be used, or ``out`` cannot take the categories.
        CannotFinish: ``out`` cannot be written, or a rendering process died.
    """
    recorded = {"of": dataset, **asdict(settings), "kinds": list(settings.kinds)}
    sources = {}
    for category, files in scans.items():
        paths = (path for scan in files for path in scan.paths)
        sources[category] = CategorySource(
            {**recorded, "files": source_digest(request.src, paths)},
            len(files),
            partial(_load_category, files, settings),
        )
    return write_categories(request.target, sources, progress)


def _load_category(files: Sequence[ScanFiles], settings: RenderSettings) -> Iterator[ImportedSample]:
    """Fit a category's cameras, then render its scans in order."""
    train = [scan for scan in files if scan.split == "train"]
    chosen = np.unique(np.linspace(0, len(train) - 1, MAX_FITTED_SCANS).astype(int))
    cameras = fit_cameras(
        [train[k].read(settings.remove_background) for k in chosen],
        size=settings.size,
        align=settings.align,
        views=settings.views,
        kinds=settings.kinds,
    )
    rendered = _render_all(files, cameras, settings.remove_background)
    return (_label(scan, pictures) for scan, pictures in zip(files, rendered, strict=True))


def _label(scan: ScanFiles, pictures: Sequence[Picture]) -> ImportedSample:
    labels = label_views([mask for _, mask in pictures], scan.defect is not None)
    stamp = f"{scan.split}{scan.name.replace('_', '-')}"
    # every view is rendered from the one scan
    source = scan.paths[0].name
    views = [
        ImportedView(*picture, label, source=source) for picture, label in zip(pictures, labels, strict=True)
    ]
    return ImportedSample(scan.split, scan.defect, stamp, dict(enumerate(views, start=1)))


def label_views(masks: Sequence[Bools], defective: bool) -> list[bool]:
    """Whether each view is anomalous.

    A view of a defective scan is anomalous where its mask covers `SMALLEST_MASK` of it. Where no mask does,
    the view with the largest mask is anomalous, so that a defective scan never becomes a normal sample; its
    mask may then be empty.
    """
    if not defective:
        return [False] * len(masks)
    areas = [float(mask.mean()) for mask in masks]
    labels = [area >= SMALLEST_MASK for area in areas]
    if not any(labels):
        labels[int(np.argmax(areas))] = True
    return labels


def _render(scan: ScanFiles, cameras: CategoryCameras, remove_background: bool) -> list[Picture]:
    return render_views(scan.read(remove_background), cameras)


def _render_all(
    files: Sequence[ScanFiles], cameras: CategoryCameras, remove_background: bool
) -> Iterator[list[Picture]]:
    """The pictures of every scan, in order."""
    if len(files) < MIN_SCANS_FOR_PROCESSES:
        yield from (_render(scan, cameras, remove_background) for scan in files)
        return
    depth = 4 * PROCESSES
    with ProcessPoolExecutor(PROCESSES, mp_context=get_context("spawn")) as pool:
        pending = [pool.submit(_render, scan, cameras, remove_background) for scan in files[:depth]]
        for position, scan in enumerate(files):
            try:
                yield pending.pop(0).result()
            except BrokenProcessPool:
                raise CannotFinish(
                    f"{scan.paths[0]}: the process that rendered it died; is memory short?"
                ) from None
            if position + depth < len(files):
                pending.append(pool.submit(_render, files[position + depth], cameras, remove_background))
