"""Renders a multi-view dataset in the Real-IAD layout; the same seed gives the same bytes."""

import json
import os
from collections import Counter
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, get_args

import numpy as np
import PIL

from idif.data.index import NORMAL_CLASS, TRAIN_AND_TEST, Split
from idif.datasets.realiad.files import images_folder
from idif.datasets.synthetic.camera_rig import FIELD_OF_VIEW, RIG
from idif.datasets.synthetic.catalog import BUILDERS
from idif.datasets.synthetic.defects import KINDS
from idif.datasets.synthetic.ray_tracer import require_pyvista
from idif.datasets.synthetic.render_workers import FIRST_TEST, write_samples
from idif.datasets.synthetic.sample_specs import LEVELS, SEVERITIES, Difficulty, SampleSpec, specs_for_split
from idif.errors import DatasetError
from idif.files import replace_file, replacing_folder
from idif.progress import Progress, silent

SIZES = (32, 1024)
"""Smallest and largest image size, pixels."""
MAX_SAMPLES = FIRST_TEST - 1
"""Per category and split: sample numbers have four digits, and those of the test split begin after
`FIRST_TEST`."""
MAX_WORKERS = 64
_MAX_DEFAULT_WORKERS = 8
"""Upper limit of workers where the caller names no number: each takes 0.4 GB."""
_RECORD_FILE = "synth.json"


@dataclass(frozen=True)
class SynthRequest:
    """The content of a rendered dataset.

    Raises:
        DatasetError: a value is out of range.
    """

    categories: int = 3
    """Kinds of part."""
    train: int = 32
    """Training samples per category, all normal."""
    test: int = 32
    """Test samples per category; every other one is anomalous."""
    size: int = 256
    """Side of the images in pixels."""
    seed: int = 0
    difficulty: Difficulty = "mixed"
    """How hard the defects are to see."""

    def __post_init__(self) -> None:
        ranges = (
            ("categories", self.categories, 1, len(BUILDERS)),
            ("train", self.train, 0, MAX_SAMPLES),
            ("test", self.test, 0, MAX_SAMPLES),
            ("size", self.size, *SIZES),
            ("seed", self.seed, 0, 2**63 - 1),
        )
        for name, value, low, high in ranges:
            if not low <= value <= high:
                raise DatasetError(f"{name}: expected {low} to {high}, got {value}")
        if self.difficulty not in get_args(Difficulty):
            raise DatasetError(f"difficulty: expected one of {get_args(Difficulty)}, got {self.difficulty!r}")
        if self.train + self.test == 0:
            raise DatasetError("train and test: expected at least one sample, got none")

    @property
    def category_names(self) -> tuple[str, ...]:
        """Names of the categories that are rendered."""
        return tuple(BUILDERS)[: self.categories]

    @property
    def images(self) -> str:
        """Name of the folder of the images under the root, e.g. ``realiad_256``."""
        return images_folder(self.size)

    def specs(self, category: str, split: Split) -> tuple[SampleSpec, ...]:
        """Specifications of the samples of a category's split."""
        count = self.train if split == "train" else self.test
        return tuple(specs_for_split(self.seed, category, split, count, self.difficulty))

    def as_json(self) -> dict[str, Any]:
        """The request as `synth.json` records it: categories by name."""
        return asdict(self) | {"categories": list(self.category_names)}


@dataclass(frozen=True)
class SynthSummary:
    """Content of a dataset made by `synthesize`."""

    root: Path
    images: str
    """Name of the folder of the images under the root, e.g. ``realiad_256``: the reader's ``--images``."""
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
    """Code of a defect -> number of anomalous views."""
    levels: dict[str, int]
    """Level of difficulty -> number of anomalous samples."""
    rendered: bool
    """False where an earlier call with the same request had finished and nothing was done."""


def synthesize(
    out: Path, request: SynthRequest, *, workers: int | None = 1, progress: Progress = silent
) -> SynthSummary:
    """Render a dataset of five-view samples into the folder ``out``, in the Real-IAD layout.

    ``out`` receives ``realiad_<size>/<category>/{OK,NG/<code>}/S0001/*.jpg`` with the masks (PNG, 0 and 255)
    beside them; ``realiad_jsons/<category>.json``; ``defects/<category>.json`` with, for every anomalous
    sample, its defects, their difficulty and the share of them that each view sees; and ``synth.json`` with
    the request, the camera angles and the library versions. A sample depends only on seed, size, category,
    split, number and difficulty: a request for more samples keeps the first ones. On one machine the same
    request gives the same bytes, with any number of workers. The dataset appears under its name when it is
    complete.

    Args:
        workers: processes; None for one per core, at most 8. They are spawned, so a script that asks for more
            than one needs the usual ``if __name__ == "__main__"``.

    Raises:
        DatasetError: ``workers`` is out of range, or ``out`` holds something else or cannot be written.
        ConfigError: the extra ``synthetic`` is not installed.
        CannotFinish: there is no off-screen OpenGL, or the disk is full.
    """
    if workers is None:
        workers = min(_MAX_DEFAULT_WORKERS, os.cpu_count() or 1)
    if not 1 <= workers <= MAX_WORKERS:
        raise DatasetError(f"workers: expected 1 to {MAX_WORKERS}, got {workers}")
    if _is_finished(out, request):
        return _summarize(out, request, rendered=False)
    require_pyvista()
    # Beside the target, so that the final rename stays on one disk. A killed call may have left it.
    partial = out.absolute().parent / f".{out.absolute().name}.partial"
    with replacing_folder(partial, out, DatasetError):
        _render(partial, request, workers, progress)
    return _summarize(out, request, rendered=True)


def _is_finished(out: Path, request: SynthRequest) -> bool:
    """Whether ``out`` is the dataset asked for. Raises `DatasetError` where it holds anything else."""
    if not out.exists():
        return False
    if not out.is_dir():
        raise DatasetError(f"{out}: expected a folder or nothing, found a file")
    record = out / _RECORD_FILE
    try:
        recorded = json.loads(record.read_text(encoding="utf-8"))["request"] if record.is_file() else None
    except (ValueError, KeyError, TypeError):
        recorded = None
    expected = request.as_json()
    if recorded == expected:
        return True
    if recorded is not None:
        raise DatasetError(
            f"{out}: holds a rendered dataset of other settings, {recorded}; expected {expected}"
        )
    if any(out.iterdir()):
        raise DatasetError(f"{out}: expected an empty folder or none, found other files in it")
    return False


def _render(root: Path, request: SynthRequest, workers: int, progress: Progress) -> None:
    """Write the whole dataset under ``root``."""
    import pyvista
    from vtkmodules.vtkCommonCore import vtkVersion

    for name in ("realiad_jsons", "defects"):
        (root / name).mkdir()
    categories = request.category_names
    specs = [s for category in categories for split in TRAIN_AND_TEST for s in request.specs(category, split)]
    views: Counter[str] = Counter()
    levels: Counter[str] = Counter(dict.fromkeys(LEVELS, 0))
    entries: dict[str, dict[str, list[Any]]] = {c: {s: [] for s in TRAIN_AND_TEST} for c in categories}
    defects: dict[str, list[Any]] = {category: [] for category in categories}
    with closing(write_samples(specs, request.size, root / request.images, workers)) as written:
        for done, spec in enumerate(specs):
            progress(done, len(specs), spec.category)
            sample = next(written)
            entries[spec.category][spec.split] += sample.entries
            views.update(entry["anomaly_class"] for entry in sample.entries)
            if sample.defects is not None:
                defects[spec.category].append(sample.defects)
                levels[spec.level] += 1
    for category, lists in entries.items():
        meta = {"prefix": f"{category}/", "normal_class": NORMAL_CLASS}
        _write_json(root / "realiad_jsons" / f"{category}.json", {"meta": meta, **lists})
        _write_json(root / "defects" / f"{category}.json", {"samples": defects[category]})
    progress(len(specs), len(specs), "")
    record = {
        "what": "A rendered dataset, not photographs of real parts.",
        "request": request.as_json(),
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
    _write_json(root / _RECORD_FILE, record)


def _write_json(path: Path, value: object) -> None:
    replace_file(path, json.dumps(value, indent=1) + "\n")


def _summarize(root: Path, request: SynthRequest, *, rendered: bool) -> SynthSummary:
    """The summary of a finished dataset, from its `synth.json`."""
    record = json.loads((root / _RECORD_FILE).read_text(encoding="utf-8"))
    defects = {name: count for name, count in record["views"].items() if name != NORMAL_CLASS}
    return SynthSummary(
        root=root,
        images=request.images,
        categories=request.category_names,
        train=request.train,
        test=request.test,
        anomalous=record["anomalous_samples"],
        views=sum(record["views"].values()),
        anomalous_views=sum(defects.values()),
        defects=defects,
        levels=record["anomalous_by_difficulty"],
        rendered=rendered,
    )
