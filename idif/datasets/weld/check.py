"""Checks a dataset of weld runs: reads every file once and reports every fault in one sentence."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from idif.data.images import load_image
from idif.data.index import NORMAL_CLASS, SPLITS, Split
from idif.data.media import read_frames, read_series, read_sound
from idif.datasets.weld.manifest import STILL_COUNT, WeldFiles, WeldRun, read_manifest, run_files
from idif.encoders.weld.sensors import SENSOR_COLUMNS
from idif.errors import DatasetError
from idif.fingerprint import sha256_of_file
from idif.paths import resolve_inside
from idif.prefetch import prefetch_map
from idif.progress import Progress, silent

_FEW, _SIDE = 2, 16
"""Frames and pixels that a check keeps of a video, which it decodes to its end."""


@dataclass(frozen=True)
class WeldFinding:
    """One fault or oddity."""

    run: str
    """Folder of the run; empty where the finding concerns no single run."""
    message: str


@dataclass(frozen=True)
class WeldReport:
    """Result of a check."""

    root: str
    runs: dict[Split, int]
    anomalous: dict[Split, int]
    """Defective runs of each split."""
    defects: dict[str, int]
    """Defect -> runs."""
    present: dict[str, int]
    """Runs that have each input; ``stills`` counts those with all five."""
    files: int
    """Files opened."""
    errors: tuple[WeldFinding, ...]
    """Files that cannot be used, and runs that are in two splits."""
    warnings: tuple[WeldFinding, ...]
    """Inputs and stills that are absent, splits without a class, and defective runs to train on."""

    @property
    def sound(self) -> bool:
        """Whether there are no errors; warnings do not count."""
        return not self.errors


@dataclass(frozen=True)
class _RunCheck:
    run: WeldRun
    files: WeldFiles | None
    errors: tuple[str, ...]
    digests: tuple[tuple[str, str], ...]
    """(file, SHA-256) of video and sound, which no two runs share."""


def check_weld(root: Path, *, workers: int = 2, progress: Progress = silent) -> WeldReport:
    """Open every file of every run once.

    Args:
        workers: threads that read.

    Raises:
        DatasetError: the manifest cannot be used. Faults of the runs are reported, not raised.
    """
    runs = read_manifest(root)
    errors: list[WeldFinding] = []
    checks: list[_RunCheck] = []
    checked = prefetch_map(lambda run: _check_run(root, run), runs, workers=workers, depth=4 * workers)
    for done, check in enumerate(checked, 1):
        checks.append(check)
        errors += [WeldFinding(check.run.folder, message) for message in check.errors]
        progress(done, len(runs))
    errors += _copies(checks)
    present: Counter[str] = Counter()
    for check in checks:
        if check.files is not None:
            present.update(name for name, path in check.files.inputs.items() if path is not None)
            present["stills"] += len(check.files.stills) >= STILL_COUNT
    anomalous = Counter(run.split for run in runs if run.defect != NORMAL_CLASS)
    splits = Counter(run.split for run in runs)
    return WeldReport(
        root=str(root),
        runs={split: splits[split] for split in SPLITS},
        anomalous={split: anomalous[split] for split in SPLITS},
        defects=dict(sorted(Counter(run.defect for run in runs if run.defect != NORMAL_CLASS).items())),
        present=dict(sorted(present.items())),
        files=sum(_count(check.files) for check in checks),
        errors=tuple(errors),
        warnings=tuple(_oddities(checks, splits, anomalous)),
    )


def _check_run(root: Path, run: WeldRun) -> _RunCheck:
    try:
        files = run_files(root, run)
    except DatasetError as error:
        return _RunCheck(run, None, (str(error),), ())
    errors: list[str] = []
    digests: list[tuple[str, str]] = []
    paths = [(name, path) for name, path in files.inputs.items() if path is not None]
    for name, path in [*paths, *(("still", path) for path in files.stills)]:
        try:
            _read(name, resolve_inside(root, path))
            if name in ("video", "audio"):
                digests.append((path, sha256_of_file(resolve_inside(root, path))))
        except DatasetError as error:
            errors.append(str(error))
    return _RunCheck(run, files, tuple(errors), tuple(digests))


def _read(name: str, path: Path) -> None:
    """Read a file of an input to its end; raises DatasetError if it cannot be used."""
    if name == "video":
        read_frames(path, _FEW, _SIDE)
    elif name == "audio":
        read_sound(path)
    elif name == "sensor":
        read_series(path, SENSOR_COLUMNS)
    else:
        load_image(path, _SIDE)


def _copies(checks: Sequence[_RunCheck]) -> Iterator[WeldFinding]:
    """Videos and sounds that two runs share: the splits would not be disjoint."""
    first: dict[str, tuple[WeldRun, str]] = {}
    for check in checks:
        for path, digest in check.digests:
            other, name = first.setdefault(digest, (check.run, path))
            if other is not check.run:
                splits = f"in {check.run.split} and {other.split}"
                yield WeldFinding(check.run.folder, f"{path}: is a copy of {name}; the runs are {splits}")


def _oddities(
    checks: Sequence[_RunCheck], splits: Counter[Split], anomalous: Counter[Split]
) -> Iterator[WeldFinding]:
    for check in checks:
        if check.files is None:
            continue
        for name, path in check.files.inputs.items():
            if path is None:
                yield WeldFinding(check.run.folder, f"has no {name}; it is marked as absent")
        stills = len(check.files.stills)
        if stills != STILL_COUNT:
            rest = "the others are marked as absent" if stills < STILL_COUNT else "the first five are read"
            yield WeldFinding(check.run.folder, f"has {stills} stills, expected {STILL_COUNT}; {rest}")
    for split in SPLITS:
        if not splits[split]:
            yield WeldFinding("", f"there are no runs in {split}")
        elif split != "train" and anomalous[split] in (0, splits[split]):
            kind = "defective" if anomalous[split] else "good"
            yield WeldFinding("", f"all {splits[split]} runs in {split} are {kind}; no AUROC is defined")
    if anomalous["train"]:
        yield WeldFinding("", f"{anomalous['train']} of {splits['train']} training runs are defective")


def _count(files: WeldFiles | None) -> int:
    return 0 if files is None else len(files.stills) + sum(path is not None for path in files.inputs.values())
