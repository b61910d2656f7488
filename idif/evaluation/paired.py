"""Comparison of a run with a baseline on the same samples, with paired bootstrap intervals."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from idif.config.sections import EvalConfig
from idif.errors import RunError
from idif.evaluation.predictions import Predictions
from idif.evaluation.thresholds import sample_labels_of
from idif.metrics.bootstrap import FloatArray, bootstrap_auroc, percentile_interval
from idif.metrics.curves import auroc
from idif.visualization.text import percent

RESAMPLES = 10_000


@dataclass(frozen=True)
class Difference:
    """S-AUROC of a run and of a baseline on the same samples."""

    run: float
    baseline: float
    interval: tuple[float, float]
    """95 % interval of the difference, from resamples of the samples that both share."""

    @property
    def difference(self) -> float:
        """The run's S-AUROC above the baseline's."""
        return self.run - self.baseline

    @property
    def better(self) -> bool:
        """Whether the run is better: the interval lies above 0."""
        return self.interval[0] > 0

    def to_json(self) -> dict[str, Any]:
        """As JSON values."""
        values = {"s_auroc": self.run, "s_auroc_baseline": self.baseline, "difference": self.difference}
        return {**values, "difference_ci": list(self.interval), "better": self.better}


@dataclass(frozen=True)
class Comparison:
    """A run beside a baseline."""

    name: str
    """The run's method."""
    baseline: str
    """The baseline's method."""
    categories: dict[str, Difference]
    """Category -> difference, for those with normal and anomalous samples."""
    mean: Difference | None
    """The mean over these categories; None without any."""

    def sentence(self) -> str:
        """Says whether the run is better than the baseline."""
        mean = self.mean
        if mean is None:
            return f"{self.name} and {self.baseline} cannot be compared: no category has both classes"
        low, high = (f"{100 * end:+.1f}" for end in mean.interval)
        verdict = "is better than" if mean.better else "is not better than"
        return (
            f"{self.name} {verdict} {self.baseline} fitted to the same store: S-AUROC {percent(mean.run)} % "
            f"against {percent(mean.baseline)} %, difference {100 * mean.difference:+.1f} (95 % interval "
            f"{low} to {high})"
        )

    def rows(self) -> list[tuple[str, tuple[str, str, str, str]]]:
        """(category, texts of both values, the difference and its interval, in percent), the mean last."""
        values = dict(self.categories)
        if len(values) > 1 and self.mean is not None:
            values["mean"] = self.mean
        found = []
        for name, one in values.items():
            low, high = (f"{100 * end:+.1f}" for end in one.interval)
            both = percent(one.run), percent(one.baseline)
            found.append((name, (*both, f"{100 * one.difference:+.1f}", f"{low} to {high}")))
        return found

    def to_json(self) -> dict[str, Any]:
        """As JSON values."""
        return {
            "method": self.name,
            "baseline": self.baseline,
            "categories": {name: found.to_json() for name, found in self.categories.items()},
            "mean": None if self.mean is None else self.mean.to_json(),
            "sentence": self.sentence(),
        }


def compare(
    name: str, run: Predictions, baseline_name: str, baseline: Predictions, settings: EvalConfig
) -> Comparison:
    """Compare the sample scores of two predictions files.

    Args:
        name: method of the run; ``baseline_name`` likewise.
        settings: rule of the samples' labels.

    Raises:
        RunError: the files hold other samples.
    """
    own = {sample: row for row, sample in enumerate(baseline.sample_id)}
    if set(own) != set(run.sample_id):
        raise RunError(
            f"{baseline.path}: holds other samples than {run.path}; evaluate both on the same split of the "
            "same store, e.g. by `idif baseline`"
        )
    labels = sample_labels_of(run, np.arange(len(run)), settings)
    draws: list[FloatArray] = []
    categories: dict[str, Difference] = {}
    for category in dict.fromkeys(run.category):
        rows = run.rows(category)
        others = np.array([own[run.sample_id[row]] for row in rows])
        both = (run.sample_scores[rows], baseline.sample_scores[others])
        shared = np.isfinite(both[0]) & np.isfinite(both[1])
        scores = [np.where(shared, one, np.nan) for one in both]
        drawn = [bootstrap_auroc([one], labels[rows], resamples=RESAMPLES) for one in scores]
        if drawn[0] is None or drawn[1] is None:
            continue
        draws.append(drawn[0] - drawn[1])
        of_run, of_baseline = (_auroc(one[shared], labels[rows][shared]) for one in scores)
        categories[category] = Difference(of_run, of_baseline, _ends(draws[-1]))
    mean = None
    if categories:
        values = list(categories.values())
        mean = Difference(
            float(np.mean([one.run for one in values])),
            float(np.mean([one.baseline for one in values])),
            _ends(np.mean(draws, axis=0)),
        )
    return Comparison(name, baseline_name, categories, mean)


def _auroc(scores: np.ndarray[Any, Any], labels: np.ndarray[Any, Any]) -> float:
    found = auroc(scores, labels)
    assert found is not None, "the bootstrap requires both classes"
    return found


def _ends(draws: FloatArray) -> tuple[float, float]:
    interval = percentile_interval(draws)
    assert interval is not None, "the bootstrap requires both classes"
    return interval[0], interval[1]
