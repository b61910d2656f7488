"""`idif doctor`: check that the machine has what a run needs."""

import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated

import torch
import typer
from rich.table import Column, Table
from rich.text import Text

from cache.checking.self_test import run_self_test
from cache.reading.placement import free_memory
from cli.terminal.console import JsonOption, print_result, progress_bar
from cli.workflow.device import evaluation_device
from cli.workflow.sources import make_fabric
from idif import doctor
from idif.config.sections import Config
from idif.data.features import FeatureSource
from idif.doctor import CheckResult
from idif.errors import IdifError
from idif.methods.catalog import METHODS
from idif.methods.protocol import ResourceRequest
from idif.progress import silent
from idif.runs.run import method_context
from idif.training.loop import train
from idif.training.task import Task

COLORS = {"ok": "green", "warning": "yellow", "problem": "red"}
SMOKE_TEST = {"epochs": 1, "batch_size": 2}
"""Keys of the section ``train`` in the smoke test."""


def diagnose(
    folder: Annotated[Path, typer.Option("--dir", help="Folder for stores and runs.")] = Path(),
    textures: Annotated[str | None, typer.Option(help="Folder of textures to check, or procedural.")] = None,
    teacher_weights: Annotated[
        str | None, typer.Option(help="imagenet, or a .safetensors or .pth file of weights.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Check that this machine has what a run needs; exit code 1 if a run would fail.

    Checks versions, package names, device, threads, memory, disk, weights, textures, compiler, rendering and
    extras, then builds a tiny store and runs one training step. Downloads nothing and leaves no files.

    Example:

        idif doctor --dir /mnt/fast --textures data/dtd/images
    """
    began = time.perf_counter()
    results = []
    with progress_bar("checking", "checks") as progress:
        checks = _checks(folder, textures, teacher_weights)
        for done, check in enumerate(checks):
            results.append(check())
            progress(done + 1, len(checks), results[-1].name)
    failed = any(result.status == "problem" for result in results)
    seconds = round(time.perf_counter() - began, 1)
    value = {"sound": not failed, "seconds": seconds, "checks": [asdict(result) for result in results]}
    print_result(value, as_json=as_json, otherwise=_table(results))
    raise typer.Exit(1 if failed else 0)


def _checks(folder: Path, textures: str | None, weights: str | None) -> list[Callable[[], CheckResult]]:
    device = evaluation_device()
    # before another process is started, which would be load
    threads = doctor.check_threads(device)
    rendering = doctor.start_rendering()
    return [
        doctor.check_python,
        doctor.check_libraries,
        lambda: doctor.check_names(Path()),
        lambda: doctor.check_device(device),
        lambda: threads,
        lambda: doctor.check_memory(free_memory()),
        lambda: doctor.check_folder(folder),
        lambda: doctor.check_weights(weights),
        lambda: doctor.check_textures(textures),
        doctor.check_compiler,
        lambda: _smoke_test(device),
        rendering,
        doctor.check_extras,
    ]


def _smoke_test(device: torch.device) -> CheckResult:
    """Build a tiny store and run a training step from it, in a temporary folder."""
    began = time.perf_counter()
    try:
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name:
            folder = Path(name)
            store = run_self_test(folder, device)
            _train_one_step(store, folder)
    except (IdifError, OSError, RuntimeError) as error:
        first = (str(error).splitlines() or [type(error).__name__])[0]
        return CheckResult(
            "store and step", "problem", first, "the checks above may explain it; otherwise please report it"
        )
    return CheckResult(
        "store and step",
        "ok",
        f"built a tiny store and ran a training step in {time.perf_counter() - began:.1f} s",
    )


def _train_one_step(store: FeatureSource, folder: Path) -> None:
    """Run one training step of the default method at its smallest size."""
    config = Config.model_validate({"corruption": {"textures": "procedural"}, "train": SMOKE_TEST})
    spec = METHODS[config.method.name]
    config = config.model_copy(update={"method": spec.smallest()})
    request = ResourceRequest(config.corruption, store.spec, folder, silent)
    context = method_context(config, store.spec, store.index.view_numbers, ["noise"])
    fabric = make_fabric(config)
    loaded = spec.resources(config.method, request)
    resources = {name: resource.to(fabric.device) for name, resource in loaded.items()}
    rows = list(range(len(store.index)))
    train(config, Task("noise", folder, store, rows, replace(context, resources=resources)), fabric)


def _table(results: list[CheckResult]) -> Table:
    table = Table("check", "", Column("found, and what to do", overflow="fold"))
    for result in results:
        table.add_row(*_cells(result))
    return table


def _cells(result: CheckResult) -> Iterator[Text]:
    yield Text(result.name)
    yield Text(result.status, style=COLORS[result.status])
    advice = "" if result.advice is None else f"\n{result.advice}"
    yield Text(result.found) + Text(advice, style="italic")
