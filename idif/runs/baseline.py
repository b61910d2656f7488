"""The baseline of a run: a memory fitted to the run's own store and training samples, in the run's folder."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from idif.config.loader import resolve
from idif.config.sections import FIT_KEYS, Config
from idif.errors import ConfigError, RunError
from idif.evaluation.paired import Comparison, compare
from idif.evaluation.predictions import Predictions
from idif.runs.files import PREDICTIONS_FILE, read_config
from idif.runs.outdated import check_results
from idif.runs.run import run_home

BASELINE = "baseline"
"""Folder of the baseline in a run's folder; a run itself, with all that one has."""
DEFAULT = {"name": "patchcore"}
"""Section ``method`` of a baseline."""


def baseline_config(run: Path, overrides: Sequence[str] = ()) -> Config:
    """The config of a run's baseline: its data, store, split of the samples and scoring, with a memory.

    Args:
        overrides: ``KEY=VALUE`` settings, e.g. ``method.window=2``.

    Raises:
        RunError: not a run, or a category is named as the baseline's folder.
        ConfigError: the method is trained and not fitted.
    """
    home = run_home(run)
    return baseline_of(read_config(home), home, overrides)


def baseline_of(config: Config, home: Path, overrides: Sequence[str] = ()) -> Config:
    """As `baseline_config`, from the run's config and folder; the run may not exist yet."""
    if BASELINE in config.data.categories:
        raise RunError(f"{home}: a category is named {BASELINE}, whose folder the baseline would need")
    raw = config.model_dump(mode="json", exclude_unset=True)
    own = {key: getattr(config.train, key) for key in FIT_KEYS if key != "batch_size"}
    evaluation = config.eval.model_dump(mode="json", exclude={"batch_size"})
    kept: dict[str, Any] = {key: raw[key] for key in ("data", "cache", "teacher") if key in raw}
    run_section = {
        "name": BASELINE,
        "dir": str(home),
        "tracking": "none",
        "note": f"the baseline of the run {config.run.name}",
    }
    sections: dict[str, Any] = {
        "method": DEFAULT,
        "train": own,
        "eval": evaluation,
        "run": run_section,
        **kept,
    }
    (baseline,) = resolve(sections, overrides, source="baseline")
    if not baseline.method.fitted:
        raise ConfigError(
            f"method.name: {baseline.method.name} is trained; a baseline is fitted, as patchcore"
        )
    return baseline


def compared_with_baseline(results: Path, config: Config) -> Comparison | None:
    """A run beside its baseline; None if it has none, or one of them is not evaluated.

    Args:
        results: the run's folder, or that of one category.
        config: the run's.

    Raises:
        RunError: the baseline was evaluated on other samples, a result is of an earlier training, or a file
            is damaged.
    """
    home = run_home(results)
    folder = home / BASELINE
    inside = folder if results == home else folder / results.name
    of_run, of_baseline = results / PREDICTIONS_FILE, inside / PREDICTIONS_FILE
    if not of_baseline.is_file() or not of_run.is_file():
        return None
    own, others = Predictions.open(of_run), Predictions.open(of_baseline)
    check_results(of_run, own.protocol, home)
    check_results(of_baseline, others.protocol, folder)
    other = read_config(folder)
    return compare(config.method.name.upper(), own, other.method.name.upper(), others, config.eval)
