"""Lists the runs in a folder with their state and figures, from their small files; torch is not imported."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from idif.config.sections import Config
from idif.errors import IdifError, RunError
from idif.runs.files import EVALUATE_AGAIN, FACTS_FILE, METRICS_FILE, read_config, read_facts
from idif.runs.outdated import outdated_models
from idif.sealed_json import read_sealed
from idif.training.checkpoint_files import (
    TrainingLength,
    TrainingProgress,
    find_checkpoint,
    read_note,
)

State = Literal["finished", "stopped", "not started", "fusion", "unreadable"]
"""``stopped``: begun and not finished, a run in training included; ``fusion``: made by `idif fuse`."""

METRICS = ("s_auroc", "i_auroc", "p_auroc", "aupro")
"""Keys of the mean in ``metrics.json`` that are listed."""


@dataclass(frozen=True)
class StageProgress:
    """Progress of one stage of a model's training."""

    name: str | None
    """None where the run's folder holds only one stage."""
    epochs: int
    """Epochs finished."""
    of: int
    """Epochs that the config asks for, unless it asks for steps."""
    steps: int = 0
    """Optimizer steps made."""
    of_steps: int | None = None
    """Steps that the config asks for; None: epochs."""


@dataclass(frozen=True)
class ModelProgress:
    """Progress of one model of a run."""

    name: str
    """A category, or ``all`` in a unified run."""
    finished: bool
    stages: tuple[StageProgress, ...]
    """Empty for a method that is fitted in one pass."""


@dataclass(frozen=True)
class RunSummary:
    """One run."""

    name: str
    folder: Path
    state: State
    bytes: int
    """Bytes of all its files."""
    changed: datetime
    """Last change of a file, in UTC."""
    method: str | None = None
    categories: tuple[str, ...] = ()
    models: tuple[ModelProgress, ...] = ()
    metrics: dict[str, float | None] | None = None
    """Mean over the categories, by the names of `METRICS`; None where the run is not evaluated."""
    problem: str | None = None
    """The reason why it is unreadable."""


def list_runs(folder: Path) -> list[RunSummary]:
    """The runs in a folder, by name; of a folder that is a run itself, that run alone.

    Raises:
        RunError: there is no such folder.
    """
    if not folder.is_dir():
        raise RunError(f"{folder}: no such folder; expected one that holds runs, as `run.dir` of a config")
    if (folder / "config.yaml").is_file():
        return [summarize_run(folder)]
    homes = sorted(path.parent for path in folder.glob("*/config.yaml"))
    return [summarize_run(home) for home in homes]


def summarize_run(folder: Path) -> RunSummary:
    """State and figures of one run; one that cannot be read is ``unreadable``, with the reason."""
    files = [status for path in folder.rglob("*") if (status := _status(path)) is not None]
    name, size = folder.resolve().name, sum(size for size, _ in files)
    changed = datetime.fromtimestamp(max((time for _, time in files), default=0.0), UTC)
    try:
        config = read_config(folder)
        fusion = is_fusion(folder)
        models = () if fusion else tuple(_models(folder, config))
        return RunSummary(
            name=name,
            folder=folder,
            state="fusion" if fusion else _state(models),
            bytes=size,
            changed=changed,
            method=config.method.name,
            categories=config.data.categories,
            models=models,
            metrics=_metrics(folder),
        )
    except (IdifError, OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        problem = str(error) if isinstance(error, IdifError) else f"{folder}: {error!r}"
        return RunSummary(name, folder, "unreadable", size, changed, problem=problem)


def is_fusion(folder: Path) -> bool:
    """Whether `idif fuse` made this folder."""
    return (folder / FACTS_FILE).exists() and "fused" in read_facts(folder)


def _status(path: Path) -> tuple[int, float] | None:
    """Size and time of change of a file; None for folders and for files that were removed meanwhile."""
    try:
        status = path.stat()
    except OSError:
        return None
    return (status.st_size, status.st_mtime) if path.is_file() else None


def _models(folder: Path, config: Config) -> Iterator[ModelProgress]:
    """Progress of all models of a run, those included that are not started."""
    names = ("all",) if config.train.mode == "unified" else config.data.categories
    stages = _stages(folder, config)
    for name in names:
        # the last stage lies in the model's folder, those before it in folders of their own
        places = [folder / name / stage for stage, _ in stages[:-1] if stage is not None] + [folder / name]
        found = [find_checkpoint(place) for place in places]
        notes = [None if checkpoint is None else read_note(checkpoint)[0] for checkpoint in found]
        yield ModelProgress(
            name=name,
            finished=notes[-1] is not None
            and stages[-1][1].completed(notes[-1], may_end_early=config.may_end_early),
            stages=()
            if config.method.fitted
            else tuple(
                _progress(stage, length, note) for (stage, length), note in zip(stages, notes, strict=True)
            ),
        )


def _progress(stage: str | None, length: TrainingLength, note: TrainingProgress | None) -> StageProgress:
    epochs, steps = (0, 0) if note is None else (note.epoch, note.step)
    return StageProgress(stage, epochs, length.epochs, steps, length.steps)


def _stages(folder: Path, config: Config) -> list[tuple[str | None, TrainingLength]]:
    """Name and length of each stage as recorded at the start; one without a name if there is only one."""
    recorded = read_facts(folder).get("stages", {}) if (folder / FACTS_FILE).exists() else {}
    if len(recorded) < 2:
        return [(None, TrainingLength(config.train.epochs, config.train.steps))]
    # versions without steps recorded the number of epochs
    return [
        (name, TrainingLength(**length) if isinstance(length, dict) else TrainingLength(length, None))
        for name, length in recorded.items()
    ]


def _state(models: Sequence[ModelProgress]) -> State:
    if models and all(model.finished for model in models):
        return "finished"
    started = any(model.finished or any(stage.epochs for stage in model.stages) for model in models)
    return "stopped" if started else "not started"


def _metrics(folder: Path) -> dict[str, float | None] | None:
    """The mean metrics of a run's present weights; None if it is not evaluated since its last training."""
    path = folder / METRICS_FILE
    if not path.exists():
        return None
    metrics = read_sealed(path, EVALUATE_AGAIN, ("mean",))
    if outdated_models(metrics.get("protocol", {}), folder):
        return None
    return {name: metrics["mean"].get(name) for name in METRICS}
