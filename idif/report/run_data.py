"""The result files of a run, read and checked once for the report."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from idif.config.sections import Config
from idif.errors import RunError
from idif.evaluation.predictions import Predictions
from idif.evaluation.test_pass import BEST_EPOCH
from idif.runs.files import (
    EVALUATE_AGAIN,
    FACTS_FILE,
    INPUT_SWEEP_FILE,
    METRICS_FILE,
    PREDICTIONS_FILE,
    RESTORE,
    STRATEGIES_FILE,
    SWEEP_FILE,
    read_config,
)
from idif.runs.outdated import check_results, outdated_models
from idif.runs.run import run_home
from idif.sealed_json import read_sealed
from idif.training.run_log import read_log

Json = dict[str, Any]

SWEEP_KEYS = ("subsets", "by_missing", "view_value", "categories")
SWEEP_AGAIN = "sweep the run again with `idif sweep`"


@dataclass(frozen=True)
class RunData:
    """The result files of one run; a file that may be missing is None then, and the report says so."""

    folder: Path
    """The folder of ``metrics.json``: the run's, or one category's."""
    name: str
    config: Config
    metrics: Json
    environment: Json | None
    predictions: Predictions | None
    sweep: Json | None
    """None also for a sweep of other weights or score rules than the metrics', see ``outdated``."""
    strategies: Json | None
    input_sweep: Json | None
    """As ``sweep``, over inputs."""
    logs: dict[str, list[Json]]
    """Model (a category, or ``all``) -> the lines of its training log."""
    outdated: tuple[str, ...] = ()
    """A sentence for each result that is left out because it is of an earlier training or evaluation."""

    @property
    def categories(self) -> dict[str, Json]:
        """The categories' metrics, in the order of the file."""
        categories: dict[str, Json] = self.metrics["categories"]
        return categories

    @property
    def protocol(self) -> Json:
        """How scores and metrics were computed."""
        stated: Json = self.metrics["protocol"]
        return stated

    @property
    def fused(self) -> list[str]:
        """Names of the runs in a late fusion; empty for any other run."""
        return [str(entry["run"]) for entry in self.protocol.get("fused", [])]

    @property
    def has_views(self) -> bool:
        """False if the predictions state that samples have no views, and so no view or pixel metrics."""
        return self.predictions is None or bool(self.predictions.view_numbers)

    @property
    def unfinished_epoch(self) -> str | None:
        """The epoch of the weights, e.g. ``5 of 50 (...)``; None for the last or the chosen epoch."""
        epoch = self.protocol.get("epoch", "last")
        return None if epoch in ("last", BEST_EPOCH) else str(epoch)

    @property
    def cameras(self) -> int:
        """How many cameras the metrics are about; with one, those of views are those of samples."""
        return max((len(values.get("per_view", {})) for values in self.categories.values()), default=0)

    @property
    def draws_maps(self) -> bool:
        """False for a method that scores whole samples, and so has no results of views or pixels."""
        return self.protocol.get("draws_maps", True) is not False

    @property
    def several_cameras(self) -> bool:
        """Whether samples have several views that are scored one by one."""
        return self.draws_maps and self.has_views and self.cameras != 1

    @property
    def caveats(self) -> list[str]:
        """The caveats that ``environment.json`` records, and those of results that are left out."""
        return [str(text) for text in (self.environment or {}).get("caveats", [])] + list(self.outdated)


def missing_counts(strategies: Json) -> list[str]:
    """Every number of missing views in ``strategies.json``, ascending; a run has one for each camera."""
    return sorted({missing for curve in strategies["curves"] for missing in curve["by_missing"]}, key=int)


def read_run(folder: Path) -> RunData:
    """Read RUN, or RUN/<category> as a run of one category.

    Raises:
        RunError: not a run, not evaluated yet, or a file is damaged.
        ConfigError: ``config.yaml`` cannot be read.
    """
    home = run_home(folder)
    config = read_config(home)
    metrics = _read(folder / METRICS_FILE, EVALUATE_AGAIN, ("mean", "categories", "protocol"))
    if metrics is None:
        raise RunError(f"{folder / METRICS_FILE}: there is none yet; evaluate the run with `idif eval`")
    check_results(folder / METRICS_FILE, metrics["protocol"], home)
    has_predictions = (folder / PREDICTIONS_FILE).is_file()
    sweep = _read(folder / SWEEP_FILE, SWEEP_AGAIN, SWEEP_KEYS)
    strategies = _read(folder / STRATEGIES_FILE, SWEEP_AGAIN, ("curves",))
    of_inputs = _read(folder / INPUT_SWEEP_FILE, SWEEP_AGAIN, ("subsets", "value", "leave_one_out"))
    outdated = {
        name: reason
        for name, found in (
            (SWEEP_FILE, sweep),
            (STRATEGIES_FILE, strategies),
            (INPUT_SWEEP_FILE, of_inputs),
        )
        if found is not None and (reason := _outdated(found.get("protocol", {}), metrics["protocol"], home))
    }
    return RunData(
        folder=folder,
        name=config.run.name if home == folder else f"{config.run.name}/{folder.name}",
        config=config,
        metrics=metrics,
        environment=_read(home / FACTS_FILE, RESTORE),
        predictions=Predictions.open(folder / PREDICTIONS_FILE) if has_predictions else None,
        sweep=None if SWEEP_FILE in outdated else sweep,
        strategies=None if STRATEGIES_FILE in outdated else strategies,
        input_sweep=None if INPUT_SWEEP_FILE in outdated else of_inputs,
        logs=dict(_logs(home, list(metrics["categories"]))),
        outdated=tuple(f"{name} {why} and is left out; {SWEEP_AGAIN}" for name, why in outdated.items()),
    )


def _outdated(protocol: Json, of_metrics: Json, home: Path) -> str | None:
    """The reason why a result does not belong beside the metrics; None if it does."""
    if outdated_models(protocol, home):
        return "is of an earlier training"
    rules, shown = protocol.get("rules"), of_metrics.get("rules", {})
    if rules is not None and any(shown.get(key, value) != value for key, value in rules.items()):
        return "was scored by other rules than the metrics"
    return None


def _logs(home: Path, categories: list[str]) -> Iterator[tuple[str, list[Json]]]:
    for model in (*categories, "all"):
        paths = (home / model / "log.jsonl", home / model / "timing.jsonl")
        if lines := [line for path in paths if path.is_file() for line in read_log(path)]:
            yield model, lines


def _read(path: Path, remedy: str, keys: tuple[str, ...] = ()) -> Json | None:
    """A JSON object that has ``keys``; None where there is no such file."""
    return read_sealed(path, remedy, keys) if path.exists() else None
