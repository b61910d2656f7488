"""`idif doctor`: is everything here that a run needs, and if not, what to do."""

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

from cache.checking.self_test import SIZE, run_self_test
from cache.reading.placement import free_memory
from cli.terminal.console import JsonOption, print_result, progress_bar
from cli.workflow.device import evaluation_device
from cli.workflow.sources import make_fabric
from idif import doctor
from idif.config.sections import Config
from idif.data.features import FeatureSource
from idif.doctor import Finding
from idif.errors import IdifError
from idif.methods.catalog import METHODS
from idif.methods.protocol import ResourceRequest
from idif.progress import silent
from idif.runs.run import method_context
from idif.training.loop import train
from idif.training.task import Task

COLOURS = {"ok": "green", "warning": "yellow", "problem": "red"}
SELF_TEST = {"epochs": 1, "batch_size": 2}
"""Section ``train`` of the self-test."""


def diagnose(
    folder: Annotated[Path, typer.Option("--dir", help="Where stores and runs will lie.")] = Path(),
    textures: Annotated[str | None, typer.Option(help="Folder of textures to check, or procedural.")] = None,
    teacher_weights: Annotated[
        str | None, typer.Option(help="imagenet, or the .safetensors or .pth file you use.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Check what usually goes wrong; exit code 1 where a run would stop.

    Looks at versions, device, memory, disk, weights, textures, compiler, rendering and extras, then builds a
    tiny store and makes a training step. Nothing is downloaded, and nothing is left behind.

    Example:

        idif doctor --dir /mnt/fast --textures data/dtd/images
    """
    began = time.perf_counter()
    findings = []
    with progress_bar("checking", "checks") as listen:
        checks = _checks(folder, textures, teacher_weights)
        for done, check in enumerate(checks):
            findings.append(check())
            listen(done + 1, len(checks), findings[-1].name)
    broken = any(finding.status == "problem" for finding in findings)
    seconds = round(time.perf_counter() - began, 1)
    value = {"sound": not broken, "seconds": seconds, "checks": [asdict(finding) for finding in findings]}
    print_result(value, as_json=as_json, otherwise=_table(findings))
    raise typer.Exit(1 if broken else 0)


def _checks(folder: Path, textures: str | None, weights: str | None) -> list[Callable[[], Finding]]:
    device = evaluation_device()
    rendered = doctor.start_rendering()
    return [
        doctor.check_python,
        doctor.check_libraries,
        lambda: doctor.check_device(device),
        lambda: doctor.check_memory(free_memory()),
        lambda: doctor.check_folder(folder),
        lambda: doctor.check_weights(weights),
        lambda: doctor.check_textures(textures),
        doctor.check_compiler,
        lambda: _rehearsal(device),
        rendered,
        doctor.check_extras,
    ]


def _rehearsal(device: torch.device) -> Finding:
    """A tiny store and a training step from it, in a folder that vanishes."""
    began = time.perf_counter()
    try:
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name:
            folder = Path(name)
            store = run_self_test(folder, device)
            _train_one_step(store, folder)
    except (IdifError, OSError, RuntimeError) as error:
        first = (str(error).splitlines() or [type(error).__name__])[0]
        return Finding(
            "store and step", "problem", first, "the lines above may say why; else please report it"
        )
    return Finding("store and step", "ok", f"a tiny store and a step in {time.perf_counter() - began:.1f} s")


def _train_one_step(store: FeatureSource, folder: Path) -> None:
    """A step of the default method, small enough for any machine."""
    config = Config.model_validate({"corruption": {"textures": "procedural"}, "train": SELF_TEST})
    spec = METHODS[config.method.name]
    config = config.model_copy(update={"method": spec.smallest()})
    request = ResourceRequest(config.corruption, store.spec, folder, silent)
    context = method_context(config, store.spec, store.index.view_numbers, ["noise"])
    fabric = make_fabric(config)
    resources = {n: r.to(fabric.device) for n, r in spec.resources(config.method, request).items()}
    rows = list(range(len(store.index)))
    train(config, Task("noise", folder, store, rows, replace(context, resources=resources)), fabric)


def _table(findings: list[Finding]) -> Table:
    table = Table("check", "", Column("found, and what to do", overflow="fold"))
    for finding in findings:
        table.add_row(*_cells(finding))
    return table


def _cells(finding: Finding) -> Iterator[Text]:
    yield Text(finding.name)
    yield Text(finding.status, style=COLOURS[finding.status])
    advice = "" if finding.advice is None else f"\n{finding.advice}"
    yield Text(finding.found) + Text(advice, style="italic")
