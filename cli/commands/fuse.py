"""`idif fuse`: fuses the scores of several runs on the same samples into a new result folder."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import torch
import typer
from rich.console import Group

from cli.options import SetOption
from cli.terminal.console import JsonOption, note, print_result, progress_bar
from cli.terminal.decisions import decisions_text
from cli.terminal.metrics_table import metrics_table
from idif.config.sections import Config
from idif.errors import ConfigError, RunError
from idif.evaluation.late_fusion import Member, caveats, fuse, open_members
from idif.files import make_folder
from idif.runs.evaluate import measure
from idif.runs.files import FACTS_FILE, read_config, read_facts, write_facts
from idif.runs.listing import is_fusion
from idif.runs.provenance import environment
from idif.runs.run import run_home

RESULTS = ("config.yaml", "environment.json", "metrics.json", "report.html")
"""Files derived from the fused predictions, in the same folder."""


def fuse_runs(
    runs: Annotated[
        list[Path],
        typer.Argument(metavar="RUN...", help="Two or more evaluated runs about the same samples."),
    ],
    out: Annotated[Path, typer.Option(help="Folder of the fused predictions and metrics.")],
    weights: Annotated[
        str,
        typer.Option(metavar="W,W,...", help="Weight of each run, in their order; equal if not given."),
    ] = "",
    overrides: SetOption = [],  # noqa: B006
    as_json: JsonOption = False,
) -> None:
    """Fuse the scores and maps of runs, e.g. of color and of depth, by their weighted mean on one scale.

    The scale of each run is the mean and spread of its scores of training normals, which `idif eval` records
    with `eval.record_normal_scores`. Metrics are measured as the first run's. `idif report OUT RUN...`
    compares the fusion with the runs.

    Examples:

        idif eval runs/rgb --set eval.record_normal_scores=true

        idif eval runs/depth --set eval.record_normal_scores=true

        idif fuse runs/rgb runs/depth --out runs/rgb-depth --weights 2,1
    """
    if (out / "config.yaml").is_file() and not is_fusion(out):
        raise RunError(f"--out {out}: expected a new folder or that of a fusion, found a run")
    configs = [read_config(run_home(run)) for run in runs]
    members = open_members(runs, _weights(weights))
    told = caveats(members) + _member_caveats(runs, members) + _threshold_caveat(configs[0])
    config = _fused_config(runs[0], out, members, overrides)
    make_folder(out)
    with progress_bar("fusing", "samples") as listen:
        derived = [out / name for name in RESULTS]
        stated = fuse(members, out / "predictions.h5", derived=derived, progress=listen)
    fused = [{"folder": str(run), **entry} for run, entry in zip(runs, stated["fused"], strict=True)]
    write_facts(out, config, environment(torch.device("cpu"), fused=fused, caveats=told))
    for text in told:
        note(f"note: {text}")
    metrics = measure(out, config.eval, notify=note)
    print_result(metrics, as_json=as_json, otherwise=Group(metrics_table(metrics), decisions_text(metrics)))
    note(f"next: idif report {out} {' '.join(map(str, runs))}")


def _weights(text: str) -> list[float]:
    try:
        return [float(part) for part in text.split(",")] if text else []
    except ValueError:
        raise ConfigError(f"--weights {text}: expected numbers with commas between them, e.g. 2,1") from None


def _fused_config(run: Path, out: Path, members: Sequence[Member], overrides: Sequence[str]) -> Config:
    """The first run's config with the fusion's name, without settings that do not apply to a fusion."""
    named = {
        "run.name": out.name,
        "run.dir": str(out.parent),
        "run.note": f"a fusion of {', '.join(member.name for member in members)}",
        "eval.calibrate": "none",
        "eval.threshold": "f1-max",
        "eval.record_normal_scores": False,
    }
    known = [f"{key}={json.dumps(value)}" for key, value in named.items()]
    return read_config(run_home(run), [*known, *overrides])


def _threshold_caveat(config: Config) -> list[str]:
    if config.eval.threshold == "f1-max":
        return []
    return ["the decision threshold is that of the greatest F1, since the runs' own are on other scales"]


def _member_caveats(runs: Sequence[Path], members: Sequence[Member]) -> list[str]:
    """Caveats of the individual runs."""
    found = []
    for run, member in zip(runs, members, strict=True):
        home = run_home(run)
        known = read_facts(home) if (home / FACTS_FILE).exists() else {}
        found += [f"{member.name}: {text}" for text in known.get("caveats", [])]
    return found
