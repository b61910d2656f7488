"""Fusion of runs into a folder of results, which has the files of an evaluated run and no model."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from idif.config.sections import Config
from idif.errors import RunError
from idif.evaluation.late_fusion import Member, caveats, fuse, open_members
from idif.files import make_folder
from idif.progress import Notify, ProgressBar, no_bar, unheard
from idif.runs.evaluate import measure
from idif.runs.files import (
    CONFIG_FILE,
    FACTS_FILE,
    METRICS_FILE,
    PREDICTIONS_FILE,
    read_config,
    read_facts,
    write_facts,
)
from idif.runs.listing import is_fusion
from idif.runs.provenance import environment
from idif.runs.run import run_home

RESULTS = (CONFIG_FILE, FACTS_FILE, METRICS_FILE, "report.html")
"""Files derived from the fused predictions, in the same folder."""


def write_fusion(
    runs: Sequence[Path],
    out: Path,
    weights: Sequence[float] = (),
    overrides: Sequence[str] = (),
    *,
    bar: ProgressBar = no_bar,
    notify: Notify = unheard,
) -> dict[str, Any]:
    """Fuse evaluated runs about the same samples, write the results into ``out`` and return the metrics.

    Args:
        runs: at least two folders, RUN or RUN/<category>; metrics are measured as the first one's.
        out: a new folder, or that of an earlier fusion, which is written again.
        weights: one per run; empty means equal weights.
        overrides: ``KEY=VALUE`` settings.

    Raises:
        RunError: ``out`` or one of ``runs`` is not what is expected.
        The exceptions of `open_members`, `fuse`, `read_config` and `measure`.
    """
    if (out / CONFIG_FILE).is_file() and not is_fusion(out):
        raise RunError(f"{out}: expected a new folder or that of a fusion, found a run")
    configs = [read_config(run_home(run)) for run in runs]
    members = open_members(runs, weights)
    told = caveats(members) + _member_caveats(runs, members) + _threshold_caveat(configs[0])
    config = _fused_config(runs[0], out, members, overrides)
    make_folder(out)
    with bar("fusing", "samples") as listen:
        derived = [out / name for name in RESULTS]
        stated = fuse(members, out / PREDICTIONS_FILE, derived=derived, progress=listen)
    fused = [{"folder": str(run), **entry} for run, entry in zip(runs, stated["fused"], strict=True)]
    write_facts(out, config, environment(torch.device("cpu"), fused=fused, caveats=told))
    for text in told:
        notify(f"note: {text}")
    return measure(out, config.eval, notify=notify)


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
