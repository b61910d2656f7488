"""`synthesize_weld`: writes a dataset of synthetic weld runs."""

import csv
import io
from collections import Counter
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy.typing as npt

from idif.data.decode import decode_threads
from idif.data.index import NORMAL_CLASS, SPLITS
from idif.data.media import write_sound
from idif.datasets.weld.manifest import GOOD, MANIFEST, SPLIT_NAMES, STILLS
from idif.datasets.weld.synthetic.camera import FRAMES_PER_SECOND, render_video
from idif.datasets.weld.synthetic.plan import RunPlan, plan_runs
from idif.datasets.weld.synthetic.sensors import sensor_text
from idif.datasets.weld.synthetic.sound import render_sound
from idif.datasets.weld.synthetic.stills import VIEWS, render_stills
from idif.errors import ConfigError, DatasetError
from idif.files import replace_file
from idif.prefetch import prefetch_map
from idif.progress import Progress, silent

_STILL_QUALITY = 92
_COLUMNS = (
    *("CATEGORY", "WELD_TYPE", "THICKNESS_MM", "STEEL_TYPE", "CURRENT_A", "VOLTAGE_V", "GAS_BAR"),
    *("ROBOT_SPEED_CPM", "SUBDIRS", "SPLIT"),
)


@dataclass(frozen=True)
class SynthWeldRequest:
    """A dataset to write; equal requests give equal bytes."""

    runs: int = 200
    seed: int = 0
    seconds: float = 6.0
    """Duration of a run."""
    video_size: int = 128
    """Side of the frames in pixels."""
    still_size: int = 224
    """Side of the stills in pixels."""

    def __post_init__(self) -> None:
        if self.seconds < 0.3 or min(self.video_size, self.still_size) < 32:
            raise ConfigError(f"weld runs: expected 0.3 seconds and 32 pixels at least, got {self}")


@dataclass(frozen=True)
class SynthWeldSummary:
    """Place and counts of the runs that were written."""

    root: str
    runs: dict[str, int]
    """Split -> runs."""
    defects: dict[str, int]
    """Defect -> runs, without good ones."""


def synthesize_weld(
    out: Path, request: SynthWeldRequest, *, workers: int | None = None, progress: Progress = silent
) -> SynthWeldSummary:
    """Write the runs, and last the manifest that names them.

    Args:
        out: a folder that does not exist or is empty, or that an interrupted call with the same request left.
        workers: threads; one per core (at most 8) when None.

    Raises:
        ConfigError: too few runs, or the extra `weld` is not installed.
        DatasetError: the folder holds something else, or cannot be written.
    """
    plans = plan_runs(request.runs, request.seed)
    _check_folder(out, plans)

    def write(plan: RunPlan) -> None:
        _write_run(out, plan, request)

    try:
        out.mkdir(parents=True, exist_ok=True)
        written = prefetch_map(write, plans, workers=workers or decode_threads(), depth=16)
        for done, _ in enumerate(written, 1):
            progress(done, len(plans))
        replace_file(out / MANIFEST, _manifest_text(plans).encode())
    except OSError as error:
        raise DatasetError(f"{out}: cannot be written ({error.strerror or error})") from None
    splits, defects = Counter(plan.split for plan in plans), Counter(plan.defect for plan in plans)
    del defects[NORMAL_CLASS]
    return SynthWeldSummary(
        str(out), {split: splits[split] for split in SPLITS}, dict(sorted(defects.items()))
    )


def _check_folder(out: Path, plans: list[RunPlan]) -> None:
    if not out.exists():
        return
    if not out.is_dir():
        raise DatasetError(f"{out}: expected a folder to write to, got a file")
    names = {path.name for path in out.iterdir()}
    if names - {plan.folder for plan in plans}:
        raise DatasetError(f"{out}: expected an empty folder, got one with {min(names)!r}")


def _write_run(out: Path, plan: RunPlan, request: SynthWeldRequest) -> None:
    folder = out / plan.folder
    (folder / STILLS).mkdir(parents=True, exist_ok=True)
    stem = folder / plan.folder
    _write_video(stem.with_suffix(".avi"), render_video(plan, request.seconds, request.video_size))
    write_sound(stem.with_suffix(".flac"), render_sound(plan, request.seconds))
    stem.with_suffix(".csv").write_text(sensor_text(plan, request.seconds), encoding="utf-8", newline="\n")
    for number, (view, picture) in enumerate(
        zip(VIEWS, render_stills(plan, request.still_size), strict=True), 1
    ):
        encoded = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, _STILL_QUALITY])[1]
        (folder / STILLS / f"{number}_{view}.jpg").write_bytes(encoded.tobytes())


def _write_video(path: Path, frames: npt.NDArray[Any]) -> None:
    """Write frames [T,H,W,3], BGR, as an AVI of JPEG pictures."""
    size = frames.shape[2], frames.shape[1]
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), FRAMES_PER_SECOND, size)
    try:
        if not writer.isOpened():
            raise DatasetError(f"{path}: cannot be written as video")
        for frame in frames:
            writer.write(frame)
    finally:
        writer.release()


def _manifest_text(plans: list[RunPlan]) -> str:
    names = {split: name for name, split in SPLIT_NAMES.items()}
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(_COLUMNS)
    for plan in plans:
        own = plan.setting
        defect = GOOD if plan.defect == NORMAL_CLASS else plan.defect
        writer.writerow((defect, *astuple(own), plan.folder, names[plan.split]))
    return text.getvalue()
