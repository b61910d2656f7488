"""`idif train`: phase two, one model for each category or one for all."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from cli.console import JsonOption, emit, progress_bar, say
from cli.runs import announce, caveats, starting_checkpoint, write_run_folder
from cli.session import Sources, first_process, make_fabric
from idif.checkpoint import find_checkpoint, reached
from idif.config import Config
from idif.config_file import load_configs
from idif.datasets.index import Index
from idif.errors import RunError
from idif.estimate import estimate
from idif.methods import Method
from idif.order import split_holdout
from idif.runlog import read_log
from idif.score import sample_auroc
from idif.stages import train_stages
from idif.tracking import tracks
from idif.train import Task

SetOption = Annotated[
    list[str], typer.Option("--set", metavar="KEY=VALUE", help="Override a config key, e.g. train.epochs=10.")
]


def train(
    config: Annotated[Path, typer.Option("--config", help="YAML file; see configs/.")],
    overrides: SetOption = [],  # noqa: B006
    resume: Annotated[bool, typer.Option("--resume", help="Continue from the last checkpoint.")] = False,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Check config, data and textures, time two steps, write no run."),
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Train from a feature store (or with the live encoder).

    Examples:

        idif train --config configs/realiad.yaml --set cache.store=stores/realiad.zarr

        idif train --config configs/laptop-8gb.yaml --set train.epochs=10 --resume

        idif train --config configs/ablations/table3.yaml

    A file with a `matrix` makes several runs; they are evaluated too and shown side by side.
    """
    configs = load_configs(config, overrides)
    results = [train_run(c, resume=resume, dry_run=dry_run) for c in configs]
    if not first_process():
        return
    if len(configs) > 1 and not dry_run:
        from cli.compare import comparison, comparison_table  # which needs this module

        compared = comparison(configs, results)
        emit({"runs": results, "compared": compared}, as_json=as_json, otherwise=comparison_table(compared))
        return
    table = Table("run", "model", "samples", "epochs", "steps", "final loss", "state")
    for result in results:
        for model in result["models"]:
            loss = "" if model["loss"] is None else f"{model['loss']:.4f}"
            table.add_row(
                result["run"],
                model["name"],
                str(model["samples"]),
                str(model["epochs"]),
                str(model["steps"]),
                loss,
                model["state"],
            )
    emit({"runs": results}, as_json=as_json, otherwise=_estimates(results) if dry_run else table)
    if not dry_run:
        for result in results:
            say(f"next: idif eval {result['run']}")


def train_run(config: Config, *, resume: bool, dry_run: bool = False) -> dict[str, Any]:
    """Train every model of one run; returns what was done, ready for JSON.

    Raises:
        RunError: the run exists and ``resume`` is false, or it was made with another config.
        ConfigError: ``run.tracking`` names what is not installed.
    """
    tracks(config.run.tracking)  # a tracker that is missing is told before anything is written
    fabric = make_fabric(config)
    _check_folder(config, resume=resume)
    fabric.barrier()  # else a quick process would write what a slow one then takes for an earlier run
    sources = Sources(config, fabric.device)
    categories = sources.categories()
    groups = {"all": categories} if config.train.mode == "unified" else {c: [c] for c in categories}
    models: list[dict[str, Any]] = []
    textures = None
    for name, members in groups.items():
        folder = config.folder / name
        checkpoint = find_checkpoint(folder)
        if checkpoint is not None and reached(checkpoint).finished:
            models.append(_summary(name, folder, None, "finished before"))
            continue
        init = starting_checkpoint(config, name)
        source = sources.open(members, "train")
        if textures is None:
            textures = sources.textures(source.spec.image_size)
            samples = sources.find(categories, "train").index.samples
            told = caveats(config, source.spec, textures.origin, samples)
            announce(told)
            if not dry_run:
                if fabric.is_global_zero:
                    write_run_folder(config, sources, source, textures, told, fabric)
                fabric.barrier()
            textures = textures.to(fabric.device)
        rows, _ = training_rows(config, source.index)
        task = Task(name, folder, source, rows, textures, init)
        if dry_run:
            found = estimate(config, task, fabric)
            models.append(_summary(name, folder, len(rows), "would train") | {"estimate": asdict(found)})
            continue
        folder.mkdir(exist_ok=True, parents=True)

        def after_epoch(method: Method, epoch: int, members: list[str] = members) -> dict[str, Any]:
            test = sources.open(members, "test")
            return {"s_auroc": sample_auroc(config.eval, method, test, fabric.device)}

        with progress_bar(f"training {name}", "steps", show=fabric.is_global_zero) as listen:
            train_stages(config, task, sources.encoder, fabric, progress=listen, after_epoch=after_epoch)
        models.append(_summary(name, folder, len(rows), "trained"))
    return {"run": str(config.folder), "models": models}


def training_rows(config: Config, index: Index) -> tuple[list[int], list[int]]:
    """Rows of a training split to train on, and those held out; each category gives its own share.

    A category is split alike in a unified run and in one of its own.
    """
    kept: list[int] = []
    held: list[int] = []
    for category in index.categories:
        rows = [row for row, sample in enumerate(index.samples) if sample.category == category]
        mine, out = split_holdout(rows, config.train.holdout, seed=config.train.seed)
        kept += mine
        held += out
    return kept, held


def _estimates(results: list[dict[str, Any]]) -> Table:
    """What a dry run found; memory besides that of the features and of torch itself."""
    table = Table(
        "run", "model", "parameters", "weights, MB", "activations, MB", "steps", "s/step", "min/epoch"
    )
    for result in results:
        for model in result["models"]:
            if found := model.get("estimate"):
                table.add_row(
                    result["run"],
                    model["name"],
                    f"{found['parameters'] / 1e6:.1f} M",
                    f"{found['state_bytes'] / 1e6:,.0f}",
                    f"{found['activation_bytes'] / 1e6:,.0f}",
                    f"{found['steps']:,}",
                    f"{found['seconds_per_step']:.2f}",
                    f"{found['seconds_per_epoch'] / 60:.1f}",
                )
    return table


def _check_folder(config: Config, *, resume: bool) -> None:
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
            if value != theirs[section][key] and (section, key) != ("train", "eval_every"):
                raise RunError(
                    f"{config.folder}: {section}.{key} is {value!r}, but the run was started with "
                    f"{theirs[section][key]!r}; a run cannot change while it is resumed"
                )


def _summary(name: str, folder: Path, samples: int | None, state: str) -> dict[str, Any]:
    checkpoint = find_checkpoint(folder)
    done = None if checkpoint is None else reached(checkpoint)
    log = folder / "log.jsonl"
    losses = [line["loss"] for line in read_log(log) if "loss" in line] if log.exists() else []
    return {
        "name": name,
        "samples": samples,
        "epochs": 0 if done is None else done.epoch,
        "steps": 0 if done is None else done.step,
        "loss": losses[-1] if losses else None,
        "state": state,
    }
