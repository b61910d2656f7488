"""Training of every model of a run."""

from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from threading import Timer
from typing import Any

import torch
from lightning_fabric import Fabric

from cli.terminal.console import note, progress_bar
from cli.terminal.train_table import LiveTable, model_summary
from cli.workflow.category_ranks import Crew, join_crew
from cli.workflow.run_folder import caveats, print_caveats, write_run_folder
from cli.workflow.sources import Sources, first_process, make_fabric
from idif.config.loader import load_configs
from idif.config.sections import Config
from idif.errors import CannotFinish, RunError
from idif.kernels.malloc import keep_freed_memory
from idif.methods.protocol import Method
from idif.runs.run import run_facts, starting_checkpoint
from idif.training.checkpoint import find_checkpoint, read_progress
from idif.training.estimate import estimate
from idif.training.loop import Task
from idif.training.precision import (
    numerics,
    training_convolutions,
    winograd_applies,
    winograd_unavailable_reason,
)
from idif.training.sampling import training_rows
from idif.training.stages import train_stages
from idif.training.tracking import require_tracker
from idif.training.validation import ValidationResult, validate


def train_run(
    config: Config, *, resume: bool, dry_run: bool = False, table: LiveTable | None = None
) -> dict[str, Any]:
    """Train every model of one run, or this process's share of them; returns what was done, ready for JSON.

    Args:
        table: where a row for each model goes as soon as it is finished.

    Raises:
        RunError: the run exists and ``resume`` is false, or it was made with another config.
        ConfigError: ``run.tracking`` names what is not installed.
        CannotFinish: a process that trained a part of the models has stopped; it is named.
    """
    require_tracker(config.run.tracking)  # one that is missing is told before anything is written
    fabric = make_fabric(config)
    with join_crew() if config.train.ranks == "categories" else nullcontext(Crew()) as crew:
        return _train_models(config, fabric, crew, resume=resume, dry_run=dry_run, table=table)


def _train_models(
    config: Config, fabric: Fabric, crew: Crew, *, resume: bool, dry_run: bool, table: LiveTable | None
) -> dict[str, Any]:
    _check_folder(config, fabric, resume=resume)

    def everybody() -> None:
        fabric.barrier()
        crew.gather()

    everybody()  # else a quick process would write what a slow one then takes for an earlier run
    sources = Sources(config, fabric.device)
    categories = sources.categories()
    groups = {"all": categories} if config.train.mode == "unified" else {c: [c] for c in categories}
    models: dict[str, dict[str, Any]] = {}

    def finished(model: dict[str, Any]) -> None:
        models[model["name"]] = model
        if table is not None:
            table.add(model)

    if table is not None:
        table.begin(str(config.folder), list(groups))
    for name in groups:
        if _is_finished(config.folder / name):
            finished(model_summary(name, config.folder / name, None, "finished before"))
    waiting = [name for name in groups if name not in models]
    starts = {name: starting_checkpoint(config, name) for name in waiting}
    textures = None
    if waiting:
        first = sources.unplaced(groups[waiting[0]], "train")
        textures = sources.textures(first.spec.image_size)
        if first_process():
            samples = sources.unplaced(categories, "train").index.samples
            told = caveats(config, first.spec, textures.origin, samples)
            told = list(dict.fromkeys(told + _resumed_otherwise(config, fabric)))
            print_caveats(told)
            if not dry_run:
                write_run_folder(config, sources, first, textures, told, fabric)
        textures = textures.to(fabric.device)
        _compile_convolutions(config, fabric)
    everybody()
    for name in crew.share(waiting):
        assert textures is not None
        source = sources.placed(groups[name], "train")
        rows, _ = training_rows(config, source.index)
        task = Task(name, config.folder / name, source, rows, textures, starts[name])
        with keep_freed_memory() if fabric.device.type == "cpu" else nullcontext():
            if dry_run:
                found = {"estimate": asdict(estimate(config, task, fabric))}
                model = model_summary(name, task.folder, len(rows), "would train") | found
            else:
                _train_model(config, task, groups[name], sources, fabric)
                model = model_summary(name, task.folder, len(rows), "trained")
        crew.report(model)
        for other in (model, *crew.news()):
            finished(other)
    crew.report(None)
    for other in crew.news(to_the_end=True):
        finished(other)
    if crew.lost:
        left = [name for name in groups if name not in models]
        raise CannotFinish(
            f"{config.folder}: rank {', '.join(map(str, sorted(crew.lost)))} of {crew.world} stopped before "
            f"it had finished {', '.join(left)}; finished models stay, and `--resume` trains the rest"
        )
    return {"run": str(config.folder), "models": [models[name] for name in groups if name in models]}


def _train_model(config: Config, task: Task, categories: list[str], sources: Sources, fabric: Fabric) -> None:
    task.folder.mkdir(exist_ok=True, parents=True)

    def after_epoch(method: Method, epoch: int) -> ValidationResult:
        return validate(config.eval, method, sources.placed(categories, "test"), fabric.device)

    with progress_bar(f"training {task.name}", "steps", show=first_process()) as listen:
        train_stages(config, task, sources.encoder, fabric, progress=listen, after_epoch=after_epoch)


def _check_folder(config: Config, fabric: Fabric, *, resume: bool) -> None:
    existing = config.folder / "config.yaml"
    if not existing.exists():
        return
    if not resume:
        raise RunError(
            f"{config.folder}: this run exists; continue it with --resume, or choose another run.name"
        )
    before = load_configs(existing)[0]
    ours, theirs = config.model_dump(mode="json"), before.model_dump(mode="json")
    for section in ("method", "train", "corruption"):
        for key, value in ours[section].items():
            # neither changes what is learned; how many share a batch does, and is compared below
            if (section, key) in (("train", "eval_every"), ("train", "ranks")):
                continue
            if value != theirs[section][key]:
                raise RunError(
                    f"{config.folder}: {section}.{key} is {value!r}, but the run was started with "
                    f"{theirs[section][key]!r}; a run cannot change while it is resumed"
                )
    shared = run_facts(config.folder).get("world_size")
    if shared != fabric.world_size:
        raise RunError(
            f"{config.folder}: {fabric.world_size} process(es) would share each batch, but it was started "
            f"with {shared}; a run cannot change while it is resumed"
        )


def _resumed_otherwise(config: Config, fabric: Fabric) -> list[str]:
    """Caveats of a run that other arithmetic began: those of today, and what it has carried so far."""
    if not (config.folder / "config.yaml").exists():
        return []
    # versions that do not say it knew no other
    before = {"convolutions": "direct"} | run_facts(config.folder)
    now: dict[str, Any] = {**numerics(config.train, fabric.device)}
    if fabric.device.type == "cpu":
        now["torch_threads"] = torch.get_num_threads()
    changed = [
        f"{what}: {before[what]} before it was resumed, {value} after; not the bits of an uninterrupted run"
        for what, value in now.items()
        if before.get(what, value) != value
    ]
    carried: list[str] = before.get("caveats", [])
    return [line for line in carried if line != config.run.note] + changed


def _compile_convolutions(config: Config, fabric: Fabric) -> None:
    """Before the first step, which would else stand still; or say what they lack."""
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


def _is_finished(folder: Path) -> bool:
    checkpoint = find_checkpoint(folder)
    return checkpoint is not None and read_progress(checkpoint).finished
