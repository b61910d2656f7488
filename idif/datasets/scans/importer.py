"""Render scans of any source from several cameras into the Real-IAD layout."""

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from idif.data.index import Split
from idif.datasets.realiad.writer import (
    ImportedView,
    ImportSummary,
    category_writer,
    check_out,
    source_digest,
    summarise,
)
from idif.datasets.scans.cameras import CategoryCameras, Kind, Scan, open_studio, photograph
from idif.datasets.scans.point_cloud import Bools
from idif.errors import CannotFinish, DatasetError
from idif.paths import shown
from idif.progress import Progress

STUDIO_SCANS = 40
"""Training scans that pose, centre and scale are learnt from, at most."""
SMALLEST_MASK = 1.2e-4
"""A view is anomalous where its mask covers this share of the picture: 8 pixels at 256."""
PROCESSES = 2
FEW = 20
"""Fewer scans than this are not worth another process."""

Picture = tuple[npt.NDArray[np.uint8], Bools]
"""A view and its defect mask: RGB [size,size,3], 0..255, and [size,size]."""


class ScanFiles(Protocol):
    """Where one scan lies. Sent to other processes, so it holds paths and no data."""

    @property
    def split(self) -> Split: ...  # noqa: D102
    @property
    def defect(self) -> str | None:
        """None for a normal one."""

    @property
    def name(self) -> str:
        """Ends the names of the pictures."""

    @property
    def paths(self) -> tuple[Path, ...]:
        """Every file that is read."""

    def read(self, remove_background: bool) -> Scan:
        """The scan, ready for its pictures. Raises DatasetError."""


@dataclass(frozen=True)
class Request:
    """How scans are to be rendered.

    Raises:
        DatasetError: a value that cannot be.
    """

    size: int
    """Side of the square views in pixels, 32 to 2048."""
    views: int
    """Cameras, 1 to 9."""
    align: bool
    remove_background: bool
    kinds: tuple[Kind, ...]

    def __post_init__(self) -> None:
        if not 1 <= self.views <= 9:
            raise DatasetError(f"views: expected 1 to 9, got {self.views}")
        if not 32 <= self.size <= 2048:
            raise DatasetError(f"size: expected 32 to 2048 pixels, got {self.size}")


def scan_categories(src: Path, wanted: Sequence[str], marker: str, source: str) -> list[str]:
    """The categories of a published set, in the order asked for, or all by name.

    Args:
        marker: the folder below a category's that tells it, two levels deep, e.g. ``train/good``.
        source: the set's name, for messages.

    Raises:
        DatasetError: there is none, or one of ``wanted`` is missing.
    """
    if not src.is_dir():
        raise DatasetError(f"{src}: expected a folder with one folder per category, but there is none")
    known = sorted(path.parent.parent.name for path in src.glob(f"*/{marker}") if path.is_dir())
    if not known:
        raise DatasetError(f"{src}: expected folders <category>/{marker} of {source}, found none")
    for category in wanted:
        if category not in known:
            raise DatasetError(f"{src}: no category {shown(category)}; there is: {', '.join(known)}")
    return list(dict.fromkeys(wanted)) or known


def import_scans(
    source: str,
    src: Path,
    out: Path,
    scans: Mapping[str, Sequence[ScanFiles]],
    request: Request,
    progress: Progress,
) -> ImportSummary:
    """Render the scans of every category and write the pictures in the Real-IAD layout.

    Args:
        source: the source's name, part of the recipe by which finished categories are recognised.
        scans: category -> scans, at least one of them for training.

    Raises:
        DatasetError: a scan cannot be used, or ``out`` cannot take the categories.
        CannotFinish: ``out`` cannot be written, or a rendering process died.
    """
    images = f"realiad_{request.size}"
    settings = {"of": source, **asdict(request), "kinds": list(request.kinds)}
    recipes = {
        category: {**settings, "files": source_digest(src, (path for scan in files for path in scan.paths))}
        for category, files in scans.items()
    }
    kept = check_out(out, images, recipes)

    total, done = sum(map(len, scans.values())), 0
    for category, files in scans.items():
        if category in kept:
            done += len(files)
            continue
        train = [scan for scan in files if scan.split == "train"]
        few = [train[k] for k in np.unique(np.linspace(0, len(train) - 1, STUDIO_SCANS).astype(int))]
        studio = open_studio(
            [scan.read(request.remove_background) for scan in few],
            size=request.size,
            align=request.align,
            views=request.views,
            kinds=request.kinds,
        )
        with category_writer(out, images, category, recipes[category]) as writer:
            rendered = _photograph_all(files, studio, request.remove_background)
            for scan, pictures in zip(files, rendered, strict=True):
                labels = label_views([mask for _, mask in pictures], scan.defect is not None)
                stamp = f"{scan.split}{scan.name.replace('_', '-')}"
                shots = [
                    ImportedView(*picture, label) for picture, label in zip(pictures, labels, strict=True)
                ]
                writer.add(scan.split, scan.defect, stamp, dict(enumerate(shots, start=1)))
                done += 1
                progress(done, total, category)
    return summarise(out, images, list(scans), kept)


def label_views(masks: Sequence[Bools], defective: bool) -> list[bool]:
    """Per view, whether it is anomalous.

    A view of a defective scan is where its mask covers `SMALLEST_MASK` of it. Where no view's mask does, the
    view with the largest is, so that a defective scan never turns into a normal sample; its mask may then be
    empty.
    """
    if not defective:
        return [False] * len(masks)
    areas = [float(mask.mean()) for mask in masks]
    labels = [area >= SMALLEST_MASK for area in areas]
    if not any(labels):
        labels[int(np.argmax(areas))] = True
    return labels


def _picture(files: ScanFiles, studio: CategoryCameras, remove_background: bool) -> list[Picture]:
    return photograph(files.read(remove_background), studio)


def _photograph_all(
    files: Sequence[ScanFiles], studio: CategoryCameras, remove_background: bool
) -> Iterator[list[Picture]]:
    """The pictures of every scan, in order."""
    if len(files) < FEW:
        yield from (_picture(f, studio, remove_background) for f in files)
        return
    ahead = 4 * PROCESSES
    with ProcessPoolExecutor(PROCESSES, mp_context=get_context("spawn")) as pool:
        pending = [pool.submit(_picture, one, studio, remove_background) for one in files[:ahead]]
        for position, one in enumerate(files):
            try:
                yield pending.pop(0).result()
            except BrokenProcessPool:
                raise CannotFinish(
                    f"{one.paths[0]}: the process that rendered it died; is memory short?"
                ) from None
            if position + ahead < len(files):
                pending.append(pool.submit(_picture, files[position + ahead], studio, remove_background))
