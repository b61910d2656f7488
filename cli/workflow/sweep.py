"""Missing-view sweeps of runs."""

from collections.abc import Sequence
from typing import Any

from cli.terminal.console import note, progress_bar
from cli.workflow.device import evaluation_device
from cli.workflow.evaluate import evaluation_of
from cli.workflow.sources import Sources
from idif.runs.run import Run
from idif.runs.strategies import StrategyData, compare_strategies
from idif.runs.sweep import Subsets, sweep_missing_views


def strategies_of(runs: Sequence[Run], *, seed: int = 0) -> dict[str, Any]:
    """Score every strategy on every run; writes ``strategies.json`` into the first run."""
    return compare_strategies(runs, _strategy_data, seed=seed, bar=progress_bar, notify=note)


def _strategy_data(run: Run) -> StrategyData:
    """The run on the sources of its config."""
    sources = Sources(run.config, evaluation_device())
    return StrategyData(
        evaluation_of(run, sources), lambda categories: sources.placed(categories, "train"), sources.encoders
    )


def sweep_run(run: Run, *, subsets: Subsets = "all", seed: int = 0) -> dict[str, Any]:
    """Sweep every category of a run and write ``sweep.json``."""
    sources = Sources(run.config, evaluation_device())
    with progress_bar("sweeping", "samples") as listen:
        return sweep_missing_views(evaluation_of(run, sources, listen), subsets=subsets, seed=seed)
