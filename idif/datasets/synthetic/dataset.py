"""`synthesise`: a rendered multi-view dataset in the layout of Real-IAD, the same bytes for the same seed."""

import errno
import json
import os
import shutil
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import PIL
import pyvista
from PIL import Image
from vtkmodules.vtkCommonCore import vtkVersion

from idif.datasets.index import NORMAL_CLASS, Split
from idif.datasets.synthetic.defects import KINDS
from idif.datasets.synthetic.parts import BUILDERS
from idif.datasets.synthetic.rig import FIELD_OF_VIEW, RIG
from idif.datasets.synthetic.specimen import Order, Photographs, Studio, kinds_for
from idif.errors import CannotFinish, DatasetError
from idif.progress import Progress, silent

SIZES = (32, 1024)
"""Least and greatest image size, pixels."""
MOST_SAMPLES = 4999
"""Per category and split: sample numbers have four digits, and the test split's begin after `FIRST_TEST`."""
FIRST_TEST = 5000
_SHEET = "synth.json"


@dataclass(frozen=True)
class SynthSummary:
    """What a dataset made by `synthesise` holds."""

    root: Path
    images: str
    """Name of the images' folder under the root, e.g. ``realiad_256``: the reader's ``--images``."""
    categories: tuple[str, ...]
    train: int
    """Samples per category."""
    test: int
    """Samples per category."""
    anomalous: int
    """Anomalous test samples, all categories."""
    views: int
    anomalous_views: int
    defects: dict[str, int]
    """Anomalous views by the defect's code."""
    rendered: bool
    """False where the same call had finished before and nothing was done."""


def synthesise(
    out: Path,
    *,
    categories: int = 3,
    train: int = 32,
    test: int = 32,
    size: int = 256,
    seed: int = 0,
    progress: Progress = silent,
) -> SynthSummary:
    """Render a dataset of five-view samples into the folder ``out``, in the layout of Real-IAD.

    ``out`` receives ``realiad_<size>/<category>/{OK,NG/<code>}/S0001/*.jpg`` with the masks (PNG, 0 and 255)
    beside them, ``realiad_jsons/<category>.json`` and ``synth.json``, which tells what was asked for, the
    rig's angles and the versions. Training samples are normal; every other test sample is anomalous.
    ``train`` and ``test`` count samples per category. A sample depends on seed, size, category, split and its
    number alone: asking for more keeps the first ones. On one machine the same call writes the same bytes.
    The dataset appears under its name when it is complete.

    Raises `DatasetError` where an argument is out of range, ``out`` holds something else or cannot be
    written, and `CannotFinish` where there is no off-screen OpenGL or the disk is full.
    """
    request = _request(categories, train, test, size, seed)
    if _already_there(out, request):
        return _summary(out, request, rendered=False)
    # Beside the target, so that the final rename stays on one disk; left by a killed call, it is swept away
    # here.
    partial = out.absolute().parent / f".{out.absolute().name}.partial"
    try:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        _render(partial, request, progress)
        if out.exists():
            out.rmdir()  # empty, as found above; Windows renames onto no folder
        os.replace(partial, out)
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise CannotFinish(f"{out}: the disk is full") from error
        raise DatasetError(f"{out}: cannot be written ({error.strerror or error})") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return _summary(out, request, rendered=True)


def _request(categories: int, train: int, test: int, size: int, seed: int) -> dict[str, Any]:
    """The arguments, checked, as `synth.json` keeps them."""
    ranges = (
        ("categories", categories, 1, len(BUILDERS)),
        ("train", train, 0, MOST_SAMPLES),
        ("test", test, 0, MOST_SAMPLES),
        ("size", size, *SIZES),
        ("seed", seed, 0, 2**63 - 1),
    )
    for name, value, low, high in ranges:
        if not low <= value <= high:
            raise DatasetError(f"{name}: expected {low} to {high}, got {value}")
    if train + test == 0:
        raise DatasetError("train and test: expected at least one sample, got none")
    return {
        "categories": list(BUILDERS)[:categories],
        "train": train,
        "test": test,
        "size": size,
        "seed": seed,
    }


def _already_there(out: Path, request: dict[str, Any]) -> bool:
    """Whether ``out`` is the dataset asked for. Raises `DatasetError` where it holds anything else."""
    if not out.exists():
        return False
    if not out.is_dir():
        raise DatasetError(f"{out}: expected a folder or nothing, found a file")
    sheet = out / _SHEET
    try:
        made = json.loads(sheet.read_text(encoding="utf-8"))["request"] if sheet.is_file() else None
    except (ValueError, KeyError, TypeError):
        made = None
    if made == request:
        return True
    if made is not None:
        raise DatasetError(f"{out}: holds a rendered dataset of other settings, {made}; expected {request}")
    if any(out.iterdir()):
        raise DatasetError(f"{out}: expected an empty folder or none, found other files in it")
    return False


def _render(root: Path, request: dict[str, Any], progress: Progress) -> None:
    """Write the whole dataset under ``root``."""
    counts: tuple[tuple[Split, int], ...] = (("train", request["train"]), ("test", request["test"]))
    total = len(request["categories"]) * sum(count for _, count in counts)
    done = 0
    (root / "realiad_jsons").mkdir()
    views: Counter[str] = Counter()
    anomalous = 0
    with Studio(request["size"]) as studio:
        for category in request["categories"]:
            lists: dict[str, Any] = {"meta": {"prefix": f"{category}/", "normal_class": NORMAL_CLASS}}
            for split, count in counts:
                lists[split] = []
                for number in range(count):
                    progress(done, total, category)
                    kinds = kinds_for(request["seed"], category, number) if split == "test" else ()
                    order = Order(request["seed"], category, split, number, kinds)
                    photographs = studio.photograph(order)
                    lists[split] += _write_sample(
                        root / f"realiad_{request['size']}" / category, order, photographs
                    )
                    views.update(photographs.classes)
                    anomalous += bool(kinds)
                    done += 1
            text = json.dumps(lists, indent=1) + "\n"
            (root / "realiad_jsons" / f"{category}.json").write_text(text, encoding="utf-8", newline="\n")
    progress(done, total, "")
    sheet = {
        "what": "A rendered dataset, not photographs of real parts.",
        "request": request,
        "anomalous_samples": anomalous,
        "views": dict(sorted(views.items())),
        "rig": {"field_of_view": FIELD_OF_VIEW, "cameras": [asdict(camera) for camera in RIG]},
        "defects": KINDS,
        "made_with": {
            "numpy": np.__version__,
            "pillow": PIL.__version__,
            "pyvista": pyvista.__version__,
            "vtk": vtkVersion.GetVTKVersion(),
        },
    }
    (root / _SHEET).write_text(json.dumps(sheet, indent=1) + "\n", encoding="utf-8", newline="\n")


def _write_sample(folder: Path, order: Order, photographs: Photographs) -> Iterator[dict[str, Any]]:
    """Write a sample's files under its category's ``folder``; gives the annotation of each view."""
    shown = [name for name in photographs.classes if name != NORMAL_CLASS]
    group = f"NG/{shown[0]}" if shown else NORMAL_CLASS
    number = order.number + 1 + (FIRST_TEST if order.split == "test" else 0)
    place = f"{group}/S{number:04d}"
    (folder / place).mkdir(parents=True)
    # Real-IAD's names end in the time of exposure; this one is made up, fixed by the sample.
    time = 20240101000000 + number * 100
    for camera, image, mask, name in zip(
        RIG, photographs.images, photographs.masks, photographs.classes, strict=True
    ):
        stem = (
            f"{order.category}_{number:04d}_{group.replace('/', '_')}_C{camera.number}_{time + camera.number}"
        )
        Image.fromarray(image).save(folder / place / f"{stem}.jpg", quality=95, subsampling=0)
        if name != NORMAL_CLASS:
            Image.fromarray(mask.astype(np.uint8) * np.uint8(255)).save(folder / place / f"{stem}.png")
        yield {
            "category": order.category,
            "anomaly_class": name,
            "image_path": f"{place}/{stem}.jpg",
            "mask_path": None if name == NORMAL_CLASS else f"{place}/{stem}.png",
        }


def _summary(root: Path, request: dict[str, Any], *, rendered: bool) -> SynthSummary:
    """The summary of a finished dataset, from its own sheet."""
    sheet = json.loads((root / _SHEET).read_text(encoding="utf-8"))
    defects = {name: count for name, count in sheet["views"].items() if name != NORMAL_CLASS}
    return SynthSummary(
        root=root,
        images=f"realiad_{request['size']}",
        categories=tuple(request["categories"]),
        train=request["train"],
        test=request["test"],
        anomalous=sheet["anomalous_samples"],
        views=sum(sheet["views"].values()),
        anomalous_views=sum(defects.values()),
        defects=defects,
        rendered=rendered,
    )
