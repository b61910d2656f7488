"""`synthesise`: a rendered multi-view dataset in the layout of Real-IAD, the same bytes for the same seed."""

import errno
import json
import os
import shutil
from collections import Counter
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, get_args

import numpy as np
import PIL

from idif.data.index import NORMAL_CLASS, Split
from idif.datasets.synthetic.camera_rig import FIELD_OF_VIEW, RIG
from idif.datasets.synthetic.catalog import BUILDERS
from idif.datasets.synthetic.defects import KINDS
from idif.datasets.synthetic.ray_tracer import require_pyvista
from idif.datasets.synthetic.render_workers import FIRST_TEST, write_all
from idif.datasets.synthetic.sample_specs import LEVELS, SEVERITIES, Difficulty, orders
from idif.errors import CannotFinish, DatasetError
from idif.progress import Progress, silent

SIZES = (32, 1024)
"""Least and greatest image size, pixels."""
MOST_SAMPLES = FIRST_TEST - 1
"""Per category and split: sample numbers have four digits, and the test split's begin after `FIRST_TEST`."""
MOST_WORKERS = 64
_USUAL_WORKERS = 8
"""At most so many where none are asked for: each takes 0.4 GB."""
_SPLITS: tuple[Split, ...] = ("train", "test")
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
    levels: dict[str, int]
    """Anomalous samples by how hard their defects are to see."""
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
    difficulty: Difficulty = "mixed",
    workers: int | None = 1,
    progress: Progress = silent,
) -> SynthSummary:
    """Render a dataset of five-view samples into the folder ``out``, in the layout of Real-IAD.

    ``out`` receives ``realiad_<size>/<category>/{OK,NG/<code>}/S0001/*.jpg`` with the masks (PNG, 0 and 255)
    beside them, ``realiad_jsons/<category>.json``, ``defects/<category>.json``, which tells of every
    anomalous sample its defects, their difficulty and how much of them each view sees, and ``synth.json``,
    which tells what was asked for, the rig's angles and the versions. Training samples are normal; every
    other test sample is anomalous. ``train`` and ``test`` count samples per category. A sample depends on
    seed, size, category, split, its number and ``difficulty`` alone: asking for more keeps the first ones. On
    one machine the same call writes the same bytes, with any number of ``workers``: processes, None for one
    per core, at most 8. They are spawned, so a script that asks for more than one needs the usual ``if
    __name__ == "__main__"``.
    The dataset appears under its name when it is complete.

    Raises:
        DatasetError: an argument is out of range, or ``out`` holds something else or cannot be written.
        ConfigError: the extra ``synthetic`` is not installed.
        CannotFinish: there is no off-screen OpenGL, or the disk is full.
    """
    request = _request(categories, train, test, size, seed, difficulty)
    if workers is None:
        workers = min(_USUAL_WORKERS, os.cpu_count() or 1)
    if not 1 <= workers <= MOST_WORKERS:
        raise DatasetError(f"workers: expected 1 to {MOST_WORKERS}, got {workers}")
    if _already_there(out, request):
        return _summary(out, request, rendered=False)
    require_pyvista()
    # Beside the target, so that the final rename stays on one disk; left by a killed call, it is swept away
    # here.
    partial = out.absolute().parent / f".{out.absolute().name}.partial"
    try:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        _render(partial, request, workers, progress)
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


def _request(categories: int, train: int, test: int, size: int, seed: int, difficulty: str) -> dict[str, Any]:
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
    if difficulty not in get_args(Difficulty):
        raise DatasetError(f"difficulty: expected one of {get_args(Difficulty)}, got {difficulty!r}")
    if train + test == 0:
        raise DatasetError("train and test: expected at least one sample, got none")
    return {
        "categories": list(BUILDERS)[:categories],
        "train": train,
        "test": test,
        "size": size,
        "seed": seed,
        "difficulty": difficulty,
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


def _render(root: Path, request: dict[str, Any], workers: int, progress: Progress) -> None:
    """Write the whole dataset under ``root``."""
    import pyvista
    from vtkmodules.vtkCommonCore import vtkVersion

    images = root / f"realiad_{request['size']}"
    for name in ("realiad_jsons", "defects"):
        (root / name).mkdir()
    asked = [
        order
        for category in request["categories"]
        for split in _SPLITS
        for order in orders(request["seed"], category, split, request[split], request["difficulty"])
    ]
    views: Counter[str] = Counter()
    levels: Counter[str] = Counter(dict.fromkeys(LEVELS, 0))
    entries: dict[str, dict[str, list[Any]]] = {c: {s: [] for s in _SPLITS} for c in request["categories"]}
    defects: dict[str, list[Any]] = {category: [] for category in request["categories"]}
    with closing(write_all(asked, request["size"], images, workers)) as written:
        for done, order in enumerate(asked):
            progress(done, len(asked), order.category)
            sample = next(written)
            entries[order.category][order.split] += sample.entries
            views.update(entry["anomaly_class"] for entry in sample.entries)
            if sample.defects is not None:
                defects[order.category].append(sample.defects)
                levels[order.level] += 1
    for category, lists in entries.items():
        meta = {"prefix": f"{category}/", "normal_class": NORMAL_CLASS}
        _write_json(root / "realiad_jsons" / f"{category}.json", {"meta": meta, **lists})
        _write_json(root / "defects" / f"{category}.json", {"samples": defects[category]})
    progress(len(asked), len(asked), "")
    sheet = {
        "what": "A rendered dataset, not photographs of real parts.",
        "request": request,
        "anomalous_samples": levels.total(),
        "anomalous_by_difficulty": dict(levels),
        "views": dict(sorted(views.items())),
        "rig": {"field_of_view": FIELD_OF_VIEW, "cameras": [asdict(camera) for camera in RIG]},
        "defects": KINDS,
        "severities": SEVERITIES,
        "made_with": {
            "numpy": np.__version__,
            "pillow": PIL.__version__,
            "pyvista": pyvista.__version__,
            "vtk": vtkVersion.GetVTKVersion(),
        },
    }
    _write_json(root / _SHEET, sheet)


def _write_json(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8", newline="\n")


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
        levels=sheet["anomalous_by_difficulty"],
        rendered=rendered,
    )
