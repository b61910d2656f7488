"""Training of every model of a run."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import asdict
from functools import partial
from threading import Timer
from typing import Any

from lightning_fabric import Fabric

from cache.building.ranks import Ranks
from cli.processes import first_process
from cli.terminal.console import err, note, progress_bar
from cli.terminal.signals import Terminated
from cli.terminal.train_table import LiveTable, duration, model_summary
from cli.workflow.device import join_team
from cli.workflow.model_queue import is_finished, take_models
from cli.workflow.sources import Sources, make_fabric
from idif.config.sections import Config
from idif.data.features import FeatureSource
from idif.errors import DatasetError, StoreError, StoreMismatch
from idif.kernels.malloc import keep_freed_memory
from idif.progress import Progress
from idif.runs.files import CONFIG_FILE, read_config
from idif.runs.lock import run_lock
from idif.runs.run import starting_checkpoint
from idif.runs.session import TrainingSession
from idif.runs.start import check_folder, make_task, model_groups
from idif.training.checkpoint import read_progress
from idif.training.checkpoint_files import find_checkpoint
from idif.training.estimate import estimate
from idif.training.feature_mean import MEAN, MODEL
from idif.training.fit import FittedTo
from idif.training.labels import require_labels
from idif.training.loop import BEST_EPOCH, CURRENT, EpochSummary
from idif.training.painted_validation import can_paint
from idif.training.precision import (
    training_convolutions,
    winograd_applies,
    winograd_unavailable_reason,
)
from idif.training.sampling import training_rows
from idif.training.stages import stage_length, stages_of
from idif.training.task import Task
from idif.training.tracking import require_tracker
from idif.training.validation import (
    PAINTED_S_AUROC,
    TRAIN_S_AUROC,
    overfit_warning,
    validation_split,
)
from idif.visualization.text import with_percent_sign

FIGURES = {
    "s_auroc": "S-AUROC",
    f"s_auroc{CURRENT}": "without EMA",
    TRAIN_S_AUROC: "against those trained on",
    PAINTED_S_AUROC: "painted S-AUROC",
}
"""Shares among the figures of an evaluation that the line of an epoch shows, with their names."""
START_PATIENCE = 600.0
"""Seconds that a process waits for another one to write the run's folder, if they divide the categories."""


def train_run(
    config: Config, *, resume: bool, dry_run: bool = False, table: LiveTable | None = None
) -> dict[str, Any]:
    """Train every model of one run, jointly with other processes; returns a summary as JSON values.

    Args:
        table: prints a row for each model when it is finished.

    Raises:
        RunError: the run exists and ``resume`` is false, or it was made with another config.
        ConfigError: ``run.tracking`` names a tracker that is not installed.
        CannotFinish: another process stopped before the training began.
    """
    require_tracker(config.run.tracking)  # report a missing tracker before anything is written
    fabric = make_fabric(config)
    by_category = config.train.distribute == "categories"
    with ExitStack() as locks:
        if first_process() and not dry_run:
            # processes that divide the categories start one after another, then lock single models
            locks.enter_context(run_lock(config.folder, patience=START_PATIENCE if by_category else 0))
        return _train_models(config, fabric, locks, resume=resume, dry_run=dry_run, table=table)


def _train_models(
    config: Config, fabric: Fabric, locks: ExitStack, *, resume: bool, dry_run: bool, table: LiveTable | None
) -> dict[str, Any]:
    """`train_run` behind the run's lock, which is released once the run's folder is written where processes
    divide the categories."""
    learned, learns_from = "fitted" if config.method.fitted else "trained", config.method.learns_from
    by_category = config.train.distribute == "categories"
    # The process group exists until all are ready to train: training in a single process must not see it.
    with join_team() if by_category else nullcontext(Ranks()) as ranks:

        def everybody() -> None:
            fabric.barrier()
            ranks.wait()

        if resume or not dry_run:  # a dry run leaves an existing run as it is
            check_folder(config, fabric, resume=resume)
        everybody()  # otherwise a slow process would mistake the files of a fast one for an earlier run
        try:
            sources = Sources(config, fabric.device)
            groups = model_groups(config, sources.categories())
        except StoreMismatch:
            raise
        except (StoreError, DatasetError) as error:
            groups = _finished_groups(config) if resume else {}
            if not groups:
                raise
            note(f"note: nothing is left to train; the features are not at hand: {error}")
            models = _Models(config, groups, lambda name: True, table, None)
            return {"run": str(config.folder), "models": models.in_order()}
        for name, members in groups.items() if config.method.uses_labels else ():
            require_labels(config, sources.samples(members), name)
        if config.train.patience:
            validation_split(config.train, sources.splits(sources.categories()))

        def is_done(name: str) -> bool:
            return (resume or not dry_run) and _is_done(config, sources, name, groups[name])

        first = None if table is None else sources.unplaced(next(iter(groups.values())), *learns_from)
        score = None if dry_run or first is None else _score_column(config, first)
        models = _Models(config, groups, is_done, table, score)
        waiting = models.waiting()
        # before the folder is written: a run that cannot start leaves none
        starts = {name: starting_checkpoint(config, name) for name in waiting}
        session = TrainingSession(config, sources, fabric, _bar, note, first_process())
        resources: Mapping[str, Any] = {}
        if waiting:
            resources = session.start(models.groups[waiting[0]], resume=resume, write=not dry_run)
            _compile_convolutions(config, fabric)
        everybody()
    if by_category:
        locks.close()

    def trained_elsewhere(name: str) -> None:
        rows, _ = training_rows(config, sources.unplaced(models.groups[name], *learns_from).index)
        models.add(model_summary(name, config.folder / name, len(rows), learned))

    turns: Iterator[str] = iter(waiting)
    if by_category and dry_run:
        turns = iter(waiting if first_process() else ())
    elif by_category:
        folders = {name: config.folder / name for name in waiting}
        turns = take_models(folders, is_done, trained_elsewhere)
    for name in turns:
        members = models.groups[name]
        source = sources.placed(members, *learns_from)
        task = make_task(config, name, source, members, resources, starts[name])
        with keep_freed_memory() if fabric.device.type == "cpu" else nullcontext():
            if dry_run:
                measured = {"estimate": asdict(estimate(config, task, fabric))}
                models.add(model_summary(name, task.folder, len(task.rows), "would train") | measured)
            else:
                _train_model(session, task, _validation(config, sources, members))
                models.add(model_summary(name, task.folder, len(task.rows), learned))
    return {"run": str(config.folder), "models": models.in_order()}


def _score_column(config: Config, source: FeatureSource) -> str | None:
    """The score that the table shows, see `cli.terminal.train_table.SCORES`; explains painted defects."""
    settings = config.train
    if config.method.fitted:
        return None
    if settings.eval_every and (settings.steps is not None or settings.epochs >= settings.eval_every):
        return "s_auroc"
    if not settings.validate_every or not can_paint(source.spec):
        return None
    _, held_out = training_rows(config, source.index)
    normals = "held-out normals" if held_out else "normals trained on (train.holdout: 0 holds none out)"
    note(
        f"painted: S-AUROC of painted defects against {normals}, after the last epoch; no test sample is used"
    )
    return PAINTED_S_AUROC


class _Models:
    """The models of a run, with the summaries of the finished ones."""

    def __init__(
        self,
        config: Config,
        groups: dict[str, list[str]],
        is_done: Callable[[str], bool],
        table: LiveTable | None,
        score: str | None,
    ) -> None:
        self.groups = groups
        self._finished: dict[str, dict[str, Any]] = {}
        self._table = table
        if table is not None:
            table.begin(str(config.folder), list(self.groups), score)
        for name in self.groups:
            if is_done(name):
                self.add(model_summary(name, config.folder / name, None, "finished before"))

    def add(self, model: dict[str, Any]) -> None:
        """Add the summary of a finished model."""
        self._finished[model["name"]] = model
        if self._table is not None:
            self._table.add(model)

    def waiting(self) -> list[str]:
        """Names of the models that are not finished."""
        return [name for name in self.groups if name not in self._finished]

    def in_order(self) -> list[dict[str, Any]]:
        """The summaries, in the order of the categories."""
        return [self._finished[name] for name in self.groups if name in self._finished]


def _finished_groups(config: Config) -> dict[str, list[str]]:
    """The models of an existing run and their categories if all that the config asks for are finished."""
    if not (config.folder / CONFIG_FILE).exists():
        return {}
    known = read_config(config.folder).data.categories
    groups = model_groups(config, known)
    finished = all(is_finished(config.folder / name, config) for name in groups)
    return groups if finished and set(config.data.categories) <= set(known) else {}


def _is_done(config: Config, sources: Sources, name: str, members: list[str]) -> bool:
    """Whether a model is finished, and if it is fitted, to all training samples that there are now."""
    folder = config.folder / name
    if not is_finished(folder, config) or not config.method.fitted:
        return is_finished(folder, config)
    source = sources.unplaced(members, *config.method.learns_from)
    before, now = FittedTo.read(folder), FittedTo.of(source, training_rows(config, source.index)[0])
    assert before is not None
    if before == now:
        return True
    if before.extended_by(now):
        more = len(now.samples - before.samples)
        note(f"{name}: {more} samples are added to the {len(before.samples)} that it is fitted to")
    elif before.features != now.features:
        note(f"note: {name}: it is fitted to features of other settings; it is fitted again")
    else:
        gone = len(before.samples - now.samples)
        note(f"note: {name}: {gone} of its samples are no training samples now; it is fitted again")
    return False


def _bar(title: str, unit: str) -> AbstractContextManager[Progress]:
    return progress_bar(title, unit, show=first_process())


def _validation(config: Config, sources: Sources, members: list[str]) -> Callable[[], FeatureSource] | None:
    """Opens the samples that a training is evaluated on; None if it is not."""
    if not config.train.eval_every:
        return None
    split = validation_split(config.train, sources.splits(members))
    return partial(sources.placed, members, split)


def _train_model(
    session: TrainingSession, task: Task, validation: Callable[[], FeatureSource] | None
) -> None:
    # a model taken from the queue is locked there
    alone = first_process() and session.config.train.distribute == "batch"
    with _stop_noted(session.config, task):
        session.train(task, validation, lock=alone, on_epoch=partial(_report_epoch, session.config))


def _report_epoch(config: Config, done: EpochSummary) -> None:
    """One line for an epoch in logs, where a terminal has a progress bar; a warning of an overfit model."""
    if not err.is_terminal:
        _print_epoch(done)
    if (warning := overfit_warning(config.train, done.figures)) is not None:
        note(f"warning: {done.model}: epoch {done.epoch}: {warning}")


def _print_epoch(done: EpochSummary) -> None:
    figures = "".join(
        f"  {name} {with_percent_sign(done.figures[key])}"
        for key, name in FIGURES.items()
        if key in done.figures
    )
    if done.figures.get(BEST_EPOCH) is not None:
        figures += f"  best epoch {done.figures[BEST_EPOCH]}"
    if MODEL in done.figures:
        figures += f"  features {done.figures[MODEL]:.3f} (mean {done.figures[MEAN]:.3f})"
    note(
        f"{done.model}  epoch {done.epoch}/{done.epochs}  loss {done.loss:.4f}{figures}  "
        f"{duration(done.seconds)}"
    )


@contextmanager
def _stop_noted(config: Config, task: Task) -> Iterator[None]:
    """Say how far a training came if the user stops it."""
    try:
        yield
    except (KeyboardInterrupt, Terminated):
        if first_process():
            note(_stopped_text(config, task))
        raise


def _stopped_text(config: Config, task: Task) -> str:
    """How far an interrupted training came, by its checkpoints, and how to continue it."""
    stages = stages_of(config)
    for number in reversed(range(len(stages))):
        last = number == len(stages) - 1
        checkpoint = find_checkpoint(task.folder if last else task.folder / stages[number].name)
        if checkpoint is not None:
            came = stage_length(config, stages[number]).share_text(read_progress(checkpoint))
            where = "" if len(stages) == 1 else f" of the stage {stages[number].name}"
            return f"{task.name}: stopped after epoch {came}{where}; continue with --resume"
    return f"{task.name}: stopped before the end of the first epoch; start it again with --resume"


def _compile_convolutions(config: Config, fabric: Fabric) -> None:
    """Compile the Winograd convolutions before the first step, or note why they are unavailable."""
    if training_convolutions(config.train, fabric.device) == "winograd":
        from idif.kernels.winograd import compile_transforms  # numba is an extra

        waiting = Timer(3, note, ["compiling the convolutions for this processor, once ..."])
        if first_process():
            waiting.start()
        try:
            compile_transforms()
        finally:
            waiting.cancel()
    elif winograd_applies(config.train, fabric.device) and first_process():
        note(f"note: convolutions could be faster on this CPU: {winograd_unavailable_reason()}")
