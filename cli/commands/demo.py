"""`idif demo`: all phases end to end on rendered parts."""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any

import typer
import yaml
from rich.table import Table

from cache.building.build import build_store
from cache.building.request import BuildRequest
from cache.checking.verify import verify_store
from cache.format.encoder_weights import load_encoder_set
from cache.format.layout import MANIFEST
from cache.format.manifest import RootManifest
from cli.terminal.console import JsonOption, note, print_result, progress_bar
from cli.workflow.device import evaluation_device
from cli.workflow.evaluate import evaluate_run
from cli.workflow.report import report_run
from cli.workflow.sweep import sweep_run
from cli.workflow.train import train_run
from idif.config.loader import resolve
from idif.config.sections import Config
from idif.datasets.realiad.files import RealIADLayout, images_folder
from idif.datasets.realiad.reader import read_realiad
from idif.datasets.synthetic import SynthRequest, synthesize
from idif.encoders.encode import EncoderSet
from idif.encoders.frozen import FrozenEncoder, load_encoder
from idif.errors import StoreDamaged, WeightsError
from idif.files import make_folder
from idif.runs.baseline import baseline_of, compared_with_baseline
from idif.runs.run import open_run
from idif.visualization.text import percent

HEADLINE = ("s_auroc", "i_auroc", "p_auroc", "aupro")
"""Metrics that the command prints."""


def demo(
    out: Annotated[
        Path, typer.Option(help="Folder for data, store and run; an earlier demo is continued.")
    ] = Path("demo"),
    as_json: JsonOption = False,
) -> None:
    """Render parts, cache the teacher, fit a memory, train IDIF, compare both, and write a report.

    The memory needs seconds and no training; it is the baseline that the trained model is compared with.

    Example:

        idif demo --out demo
    """
    began = time.perf_counter()
    settings = yaml.safe_load((files("cli") / "demo.yaml").read_text(encoding="utf-8"))
    data, store = out / "data", out / "store.zarr"
    size: int = settings["synth"]["size"]
    make_folder(out)
    with _stage("data     rendered parts"), progress_bar("rendering", "samples") as listen:
        if not data.exists():
            synthesize(data, SynthRequest(**settings["synth"]), workers=None, progress=listen)
    encoder = _teacher(store)
    with _stage("store    the teacher runs once"), progress_bar("building", "views") as listen:
        index = read_realiad(RealIADLayout(data, images=images_folder(size)))
        encoders = EncoderSet((encoder,), size)
        build_store(BuildRequest(data, index, store, encoders, device=evaluation_device()), progress=listen)
    with _stage("verify   every byte"):
        found = verify_store(store, bar=progress_bar)
        if not found.sound:
            raise StoreDamaged("; ".join(str(problem) for problem in found.problems))
    config = _config(settings["config"], out, store)
    with _stage("memory   fitted in one pass, and evaluated"):
        memory = baseline_of(config, config.folder, settings["baseline"])
        train_run(memory, resume=True)
        of_memory = evaluate_run(open_run(memory.folder))
    note(f"memory   {_headline(of_memory)}")
    with _stage("train    one model a category"):
        train_run(config, resume=True)
    run = open_run(config.folder)
    with _stage("eval     test split"):
        metrics = evaluate_run(run)
    compared = compared_with_baseline(run.results, run.config)
    assert compared is not None, "both are evaluated"
    with _stage("sweep    all view subsets"):
        sweep = sweep_run(run)
    with _stage("report"):
        report = report_run([run])
    seconds = time.perf_counter() - began
    value = {
        "report": str(report),
        "seconds": round(seconds, 1),
        "teacher": encoder.weights,
        "mean": {key: metrics["mean"].get(key) for key in HEADLINE},
        "baseline": {key: of_memory["mean"].get(key) for key in HEADLINE},
        "compared": compared.sentence(),
        "by_missing": {key: values["s_auroc"] for key, values in sweep["by_missing"].items()},
    }
    print_result(value, as_json=as_json, otherwise=_table(metrics, sweep, encoder))
    note(f"{compared.sentence()}.")
    note(f"done in {seconds:.0f} s; report: {report.resolve()}")


def _headline(metrics: dict[str, Any]) -> str:
    """The mean metrics as one line, in percent."""
    names = {key: key.replace("_", "-").upper() for key in HEADLINE}
    return ", ".join(f"{name} {percent(metrics['mean'].get(key))}" for key, name in names.items())


def _config(raw: dict[str, Any], out: Path, store: Path) -> Config:
    places = [f"cache.store={json.dumps(str(store))}", f"run.dir={json.dumps(str(out))}", "run.name=run"]
    (config,) = resolve(raw, places, source="demo.yaml")
    return config


def _teacher(store: Path) -> FrozenEncoder:
    """The teacher of an existing store, else with ImageNet weights, else untrained, with a notice."""
    if (store / MANIFEST).exists():  # of a build that may have been interrupted
        try:
            (encoder,) = load_encoder_set(store, RootManifest.load(store).spec).encoders
        except WeightsError as error:
            raise StoreDamaged(str(error)) from None
    else:
        try:
            return load_encoder("imagenet")
        except WeightsError:
            encoder = load_encoder("untrained")
    if encoder.weights == "untrained":
        note("note: ImageNet weights cannot be had here, so the teacher is untrained: scores will be poor")
    return encoder


@contextmanager
def _stage(name: str) -> Iterator[None]:
    began = time.perf_counter()
    yield
    note(f"{name}  {time.perf_counter() - began:.1f} s")


def _table(metrics: dict[str, Any], sweep: dict[str, Any], encoder: FrozenEncoder) -> Table:
    """P-AUROC and, with all views and with views missing, S-AUROC by category."""
    missing = list(sweep["by_missing"])
    table = Table("category", "P-AUROC", *missing, title="S-AUROC by number of views missing")
    for name, values in metrics["categories"].items():
        curve = [sweep["categories"][name]["by_missing"][m]["s_auroc"] for m in missing]
        table.add_row(name, *map(percent, (values["p_auroc"], *curve)))
    table.caption = f"percent; rendered parts, generated textures, {encoder.weights} teacher, last epoch"
    return table
