"""The manifest of a dataset of weld runs, and the files of each run.

``ROOT/manifest.csv`` names one run per line: its folder relative to the root (``SUBDIRS``), what became of
it (``CATEGORY``, ``good`` or a defect) and its split (``SPLIT``: TRAIN, VAL or TEST); other columns are not
read. A run's folder holds at most one ``.avi``, ``.flac`` and ``.csv`` file, of any name, and ``images/``
with five stills. This is the layout of the Intel Robotic Welding Multimodal Dataset.
"""

import csv
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from idif.data.index import NORMAL_CLASS, Split
from idif.errors import DatasetError
from idif.paths import is_portable_name, relative_posix, resolve_inside, shown

MANIFEST = "manifest.csv"
COLUMNS = ("CATEGORY", "SUBDIRS", "SPLIT")
GOOD = "good"
SPLIT_NAMES: Mapping[str, Split] = {"TRAIN": "train", "VAL": "val", "TEST": "test"}
"""``SPLIT`` of a line -> split."""
SUFFIXES: Mapping[str, str] = {"video": ".avi", "audio": ".flac", "sensor": ".csv"}
"""Per-sample input -> ending of its file's name."""
STILLS = "images"
"""Folder of a run's stills."""
STILL_COUNT = 5
_STILL_SUFFIXES = (".jpg", ".jpeg", ".png")


@dataclass(frozen=True)
class WeldRun:
    """One line of a manifest."""

    folder: str
    """POSIX path relative to the root; unique, and the id of the sample."""
    defect: str
    """``OK`` or the name of the defect, e.g. ``crater_cracks``."""
    split: Split


@dataclass(frozen=True)
class WeldFiles:
    """The files of one run, as POSIX paths relative to the root."""

    inputs: Mapping[str, str | None]
    """A key of `SUFFIXES` -> file; None if the run has none."""
    stills: tuple[str, ...]
    """Sorted by name."""


def read_manifest(root: Path) -> list[WeldRun]:
    """The runs of a dataset, in the manifest's order.

    Raises:
        DatasetError: no manifest, a column or value is missing or unknown, a run is named twice, in one split
            or in two, or no run is named.
    """
    path = root / MANIFEST
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            lines = list(csv.DictReader(file))
    except OSError as error:
        raise DatasetError(f"{path}: cannot be read ({error.strerror or error})") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise DatasetError(f"{path}: cannot be read as CSV ({error})") from None
    runs: dict[str, WeldRun] = {}
    for number, line in enumerate(lines, 2):
        run = _run(line, f"{path}: line {number}")
        first = runs.setdefault(run.folder, run)
        if first is not run:
            splits = (
                f"in {first.split} and {run.split}" if first.split != run.split else f"twice in {run.split}"
            )
            raise DatasetError(f"{path}: line {number}: the run {shown(run.folder)} is {splits}")
    if not runs:
        raise DatasetError(f"{path}: names no run")
    return list(runs.values())


def _run(line: Mapping[str, str | None], where: str) -> WeldRun:
    values = {}
    for column in COLUMNS:
        value = (line.get(column) or "").strip()
        if not value:
            raise DatasetError(f"{where}: expected a value in the column {column}")
        values[column] = value
    split = SPLIT_NAMES.get(values["SPLIT"].upper())
    if split is None:
        raise DatasetError(f"{where}: SPLIT: expected {', '.join(SPLIT_NAMES)}, got {shown(values['SPLIT'])}")
    defect = re.sub(r"\s+", "_", values["CATEGORY"].lower())
    if not is_portable_name(defect):
        raise DatasetError(f"{where}: CATEGORY: {shown(values['CATEGORY'])} cannot be the name of a defect")
    folder = relative_posix(values["SUBDIRS"], f"{where}: SUBDIRS")
    return WeldRun(folder, NORMAL_CLASS if defect == GOOD else defect, split)


def run_files(root: Path, run: WeldRun) -> WeldFiles:
    """The files in a run's folder; none is opened.

    Raises:
        DatasetError: the folder is missing, empty of all inputs or leaves the root, or has two files for one
            input.
    """
    folder = resolve_inside(root, run.folder)
    if not folder.is_dir():
        raise DatasetError(f"{root / run.folder}: the manifest names this run, but there is no such folder")
    names = sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))
    inputs: dict[str, str | None] = {}
    for name, suffix in SUFFIXES.items():
        files = [file for file in names if file.lower().endswith(suffix)]
        if len(files) > 1:
            raise DatasetError(f"{root / run.folder}: expected one {suffix} file, got {', '.join(files)}")
        inputs[name] = f"{run.folder}/{files[0]}" if files else None
    stills = sorted(
        path.name
        for path in (folder / STILLS).glob("*")
        if path.suffix.lower() in _STILL_SUFFIXES and not path.name.startswith(".")
    )
    if not stills and not any(inputs.values()):
        raise DatasetError(f"{root / run.folder}: holds no video, sound, sensor values or stills")
    return WeldFiles(inputs, tuple(f"{run.folder}/{STILLS}/{name}" for name in stills))
