"""Renders samples and writes their files, in this process or in several, in the order asked for."""

import os
import threading
from collections.abc import Generator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing import get_context, parent_process
from pathlib import Path
from signal import SIG_IGN, SIGINT, signal
from typing import Any

import numpy as np
from PIL import Image

from idif.data.index import NORMAL_CLASS
from idif.datasets.synthetic.camera_rig import RIG
from idif.datasets.synthetic.sample_renderer import Photographs, SampleRenderer
from idif.datasets.synthetic.sample_specs import SampleSpec
from idif.errors import CannotFinish

FIRST_TEST = 5000
"""Numbers of the test split's samples begin after this one."""
_FEW = 12
"""Fewer samples than this are not worth the start of processes."""
_AHEAD = 3
"""Orders given to each process before they are asked for."""


@dataclass(frozen=True)
class Written:
    """A sample whose files are written."""

    entries: tuple[dict[str, Any], ...]
    """Its annotations, one a view."""
    defects: dict[str, Any] | None
    """What is told of a spoilt sample: kinds, level, severities, and per view class, visible share, mask and
    contrast; None for a normal one."""


def write_all(orders: Sequence[SampleSpec], size: int, root: Path, workers: int) -> Generator[Written]:
    """Render each order and write its files below ``root``, an existing folder of images.

    A sample's bytes do not depend on the number of ``workers``, each of which is a spawned process with an
    OpenGL window of its own; with one worker, or few orders, all happens in this process.

    Raises `CannotFinish` where there is no off-screen OpenGL or a process died.
    """
    workers = min(workers, -(-len(orders) // _FEW))
    if workers <= 1:
        with SampleRenderer(size) as studio:
            for order in orders:
                yield _write(studio, order, root)
        return
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn"), initializer=_prepare) as pool:
        pending: list[Future[Written]] = []
        try:
            for position in range(len(orders)):
                while len(pending) < workers * _AHEAD and position + len(pending) < len(orders):
                    pending.append(pool.submit(_work, orders[position + len(pending)], size, root))
                yield pending.pop(0).result()
        except BrokenProcessPool:
            raise CannotFinish(f"{root}: a process that renders died; is memory short?") from None
        finally:
            pool.shutdown(cancel_futures=True)


_studio: SampleRenderer | None = None
"""A worker's window, opened at its first order and kept until it ends."""


def _prepare() -> None:
    """Leave Ctrl-C to the parent, and end when the parent does, however that ended."""
    signal(SIGINT, SIG_IGN)
    parent = parent_process()
    assert parent is not None

    def follow() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=follow, daemon=True).start()


def _work(order: SampleSpec, size: int, root: Path) -> Written:
    global _studio
    if _studio is None:
        studio = SampleRenderer(size)
        studio.__enter__()  # raises to the parent; the window closes with the process
        _studio = studio
    return _write(_studio, order, root)


def _write(studio: SampleRenderer, order: SampleSpec, root: Path) -> Written:
    """Write a sample's files below its category's folder."""
    photographs = studio.photograph(order)
    shown = [name for name in photographs.classes if name != NORMAL_CLASS]
    group = f"NG/{shown[0]}" if shown else NORMAL_CLASS
    number = order.number + 1 + (FIRST_TEST if order.split == "test" else 0)
    place = f"{group}/S{number:04d}"
    folder = root / order.category / place
    folder.mkdir(parents=True)
    # Real-IAD's names end in the time of exposure; this one is made up, fixed by the sample.
    time = 20240101000000 + number * 100
    entries = []
    for camera, image, mask, name in zip(
        RIG, photographs.images, photographs.masks, photographs.classes, strict=True
    ):
        stem = (
            f"{order.category}_{number:04d}_{group.replace('/', '_')}_C{camera.number}_{time + camera.number}"
        )
        Image.fromarray(image).save(folder / f"{stem}.jpg", quality=95, subsampling=0)
        if name != NORMAL_CLASS:
            Image.fromarray(mask.astype(np.uint8) * np.uint8(255)).save(folder / f"{stem}.png")
        entries.append(
            {
                "category": order.category,
                "anomaly_class": name,
                "image_path": f"{place}/{stem}.jpg",
                "mask_path": None if name == NORMAL_CLASS else f"{place}/{stem}.png",
            }
        )
    defects = {"sample": f"{order.category}/{place}", **_told(order, photographs)} if shown else None
    return Written(tuple(entries), defects)


def _told(order: SampleSpec, photographs: Photographs) -> dict[str, Any]:
    """What the sheet of defects says about a spoilt sample."""
    columns = zip(
        photographs.classes, photographs.visible, photographs.masks, photographs.contrast, strict=True
    )
    views = {
        str(camera.number): {
            "class": name,
            "visible": visible,
            "mask_pixels": int(mask.sum()),
            "contrast": contrast,
        }
        for camera, (name, visible, mask, contrast) in zip(RIG, columns, strict=True)
    }
    return {
        "kinds": list(order.kinds),
        "difficulty": order.level,
        "severities": list(photographs.severities),
        "views": views,
    }
