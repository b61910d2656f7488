"""Renders samples and writes their files, in this process or in several, in order."""

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

from idif.data.images import picture_bytes
from idif.data.index import NORMAL_CLASS
from idif.datasets.synthetic.camera_rig import RIG
from idif.datasets.synthetic.sample_renderer import RenderedSample, SampleRenderer
from idif.datasets.synthetic.sample_specs import SampleSpec
from idif.errors import CannotFinish

FIRST_TEST = 5000
"""Sample numbers of the test split begin after this one."""
_MIN_SPECS_PER_WORKER = 12
"""Fewer samples than this per worker are not worth starting a process."""
_QUEUED = 3
"""Samples submitted ahead, per worker."""


@dataclass(frozen=True)
class WrittenSample:
    """A sample whose files have been written."""

    entries: tuple[dict[str, Any], ...]
    """Annotations, one per view."""
    defects: dict[str, Any] | None
    """Record of a defective sample: kinds, level, severities, and per view class, visible share, mask pixels
    and contrast; None for a normal sample."""


def write_samples(
    specs: Sequence[SampleSpec], size: int, root: Path, workers: int
) -> Generator[WrittenSample]:
    """Render each sample and write its files below ``root``, the folder of the images.

    The bytes do not depend on the number of workers. Each worker is a spawned process with an OpenGL window;
    with one worker, or few samples, everything happens in this process.

    Raises:
        CannotFinish: there is no off-screen OpenGL, or a process died.
    """
    workers = min(workers, -(-len(specs) // _MIN_SPECS_PER_WORKER))
    if workers <= 1:
        with SampleRenderer(size) as renderer:
            for spec in specs:
                yield _write(renderer, spec, root)
        return
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn"), initializer=_start_worker) as pool:
        pending: list[Future[WrittenSample]] = []
        try:
            for position in range(len(specs)):
                while len(pending) < workers * _QUEUED and position + len(pending) < len(specs):
                    pending.append(pool.submit(_render_in_worker, specs[position + len(pending)], size, root))
                yield pending.pop(0).result()
        except BrokenProcessPool:
            raise CannotFinish(f"{root}: a process that renders died; is memory short?") from None
        finally:
            pool.shutdown(cancel_futures=True)


_renderer: SampleRenderer | None = None
"""The renderer of a worker process, opened for its first sample and kept until the process ends."""


def _start_worker() -> None:
    """Ignore Ctrl-C, which the parent handles, and exit when the parent process has ended."""
    signal(SIGINT, SIG_IGN)
    parent = parent_process()
    assert parent is not None

    def follow() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=follow, daemon=True).start()


def _render_in_worker(spec: SampleSpec, size: int, root: Path) -> WrittenSample:
    global _renderer
    if _renderer is None:
        renderer = SampleRenderer(size)
        renderer.__enter__()  # raises to the parent; the window closes with the process
        _renderer = renderer
    return _write(_renderer, spec, root)


def _write(renderer: SampleRenderer, spec: SampleSpec, root: Path) -> WrittenSample:
    """Write a sample's files below its category's folder."""
    rendered = renderer.render(spec)
    shown = [name for name in rendered.classes if name != NORMAL_CLASS]
    group = f"NG/{shown[0]}" if shown else NORMAL_CLASS
    number = spec.number + 1 + (FIRST_TEST if spec.split == "test" else 0)
    sample_path = f"{group}/S{number:04d}"
    folder = root / spec.category / sample_path
    folder.mkdir(parents=True)
    # Names of Real-IAD end in the time of exposure; here it is derived from the sample number.
    time = 20240101000000 + number * 100
    entries = []
    for camera, image, mask, name in zip(RIG, rendered.images, rendered.masks, rendered.classes, strict=True):
        stem = (
            f"{spec.category}_{number:04d}_{group.replace('/', '_')}_C{camera.number}_{time + camera.number}"
        )
        photo = picture_bytes(Image.fromarray(image), ".jpg", quality=95, subsampling=0)
        (folder / f"{stem}.jpg").write_bytes(photo)
        if name != NORMAL_CLASS:
            drawn = Image.fromarray(mask.astype(np.uint8) * np.uint8(255))
            (folder / f"{stem}.png").write_bytes(picture_bytes(drawn, ".png"))
        entries.append(
            {
                "category": spec.category,
                "anomaly_class": name,
                "image_path": f"{sample_path}/{stem}.jpg",
                "mask_path": None if name == NORMAL_CLASS else f"{sample_path}/{stem}.png",
            }
        )
    defects = (
        {"sample": f"{spec.category}/{sample_path}", **_defect_record(spec, rendered)} if shown else None
    )
    return WrittenSample(tuple(entries), defects)


def _defect_record(spec: SampleSpec, rendered: RenderedSample) -> dict[str, Any]:
    """Entry of a defective sample in ``defects/<category>.json``."""
    columns = zip(rendered.classes, rendered.visible, rendered.masks, rendered.contrast, strict=True)
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
        "kinds": list(spec.kinds),
        "difficulty": spec.level,
        "severities": list(rendered.severities),
        "views": views,
    }
