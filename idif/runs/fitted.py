"""Results of a run's evaluation that predictions use: score rules, thresholds, calibration, color limits."""

from dataclasses import dataclass
from typing import Any

import torch

from idif.config.sections import EvalConfig
from idif.errors import ConfigError, RunError
from idif.evaluation.calibration import Calibration
from idif.evaluation.decision import FIXED, Decisions, threshold_origin
from idif.evaluation.map_scale import category_scale
from idif.evaluation.predictions import Predictions
from idif.evaluation.scoring import Scorer, check_top_k
from idif.inference.predict import Thresholds
from idif.methods.protocol import Method
from idif.progress import Notify, unheard
from idif.runs.files import EVALUATE_AGAIN, METRICS_FILE, PREDICTIONS_FILE, read_config
from idif.runs.outdated import check_results
from idif.runs.run import Run
from idif.sealed_json import read_sealed

NO_THRESHOLDS = Thresholds()


@dataclass(frozen=True)
class Decision:
    """How a category's scores come about and from where on they are anomalous; fitted together."""

    rules: EvalConfig
    """The score rules: those that threshold and calibration were fitted under."""
    thresholds: Thresholds = NO_THRESHOLDS
    calibration: Calibration | None = None


@dataclass(frozen=True)
class EvaluatedDecision:
    """The decisions on the samples of an evaluation."""

    decisions: Decisions
    split: str
    """Split of the samples."""


def load_decision(run: Run, category: str, notify: Notify = unheard) -> Decision:
    """The category's decision, as recorded by `idif eval`.

    Raises:
        RunError: the run calibrates its scores and is not evaluated; or its results are damaged, or are those
            of an earlier training.
        ConfigError: a setting given now differs from the one that the recorded numbers were fitted under, or
            ``eval.top_k`` is more than the pixels of a map.
    """
    asked = run.config.eval
    check_top_k(asked, run.features().image_size)
    path = run.results / METRICS_FILE
    if not path.exists():
        if asked.calibrate != "none":
            raise RunError(
                f"{path}: missing, and this run calibrates its scores; evaluate it with `idif eval`"
            )
        if isinstance(asked.threshold, float):
            return Decision(asked, Thresholds(asked.threshold, asked.threshold, FIXED))
        notify("note: the run is not evaluated, so there is no threshold and no decision")
        return Decision(asked)
    metrics = read_sealed(path, EVALUATE_AGAIN, ("categories", "protocol"))
    check_results(path, metrics["protocol"], run.folder)
    trained = read_config(run.folder).eval
    rules = _recorded_rules(run, trained, metrics["protocol"])
    fitted = metrics["protocol"].get("calibrations", {}).get(category)
    calibration = None if fitted is None else Calibration(**fitted)
    return Decision(rules, _thresholds(run, trained, metrics, category), calibration)


def fitted_scorer(
    run: Run, category: str, device: torch.device, notify: Notify = unheard
) -> tuple[Scorer, Thresholds]:
    """The scorer of new photographs of a category, and the thresholds that decide on its scores.

    Args:
        device: that the scorer names; its method, in eval mode, is still on the CPU.

    Returns:
        The trained method with the score rules and calibration of the last evaluation, and its thresholds.

    Raises:
        RunError: the category has no checkpoint yet.
        The exceptions of `Run.view_numbers`, `Run.features`, `Run.method` and `load_decision`.
    """
    name = run.model_name(category)
    if name not in run.names:
        raise RunError(f"{run.folder}: {category} has no checkpoint yet; train it with `idif train`")
    method = run.method(name, run.features(), run.view_numbers())
    decision = load_decision(run, category, notify)
    return Scorer(decision.rules, method, device, decision.calibration), decision.thresholds


def _recorded_rules(run: Run, trained: EvalConfig, protocol: dict[str, Any]) -> EvalConfig:
    """The config's scoring with the rules of the last evaluation.

    Args:
        trained: the settings without overrides.

    Raises:
        ConfigError: an override asks for others.
    """
    asked = run.config.eval
    stated = protocol.get("rules", {})
    recorded = {
        "score": stated.get("view_score", asked.score),
        "top_k": stated.get("top_k") or asked.top_k,
        "top_share": stated.get("top_share") or asked.top_share,
        "sample_score": stated.get("sample_score", asked.sample_score),
        "calibrate": protocol.get("calibrate", asked.calibrate),
        "calibrate_prior": protocol.get("calibrate_prior", 0.0) if protocol else asked.calibrate_prior,
    }
    for key, value in recorded.items():
        if getattr(asked, key) not in (value, getattr(trained, key)):
            raise _not_applied(run, key, value)
    return asked.model_copy(update=recorded)


def _thresholds(run: Run, trained: EvalConfig, metrics: dict[str, Any], category: str) -> Thresholds:
    """The recorded thresholds, or the number that the config names.

    Args:
        trained: the settings without overrides.

    Raises:
        ConfigError: an override asks for a rule that the evaluation did not apply.
    """
    asked = run.config.eval
    if isinstance(asked.threshold, float):
        return Thresholds(asked.threshold, asked.threshold, FIXED)
    chosen = metrics["categories"].get(category, {}).get("thresholds", {})
    sample, view = (chosen.get(kind) or {} for kind in ("sample", "view"))
    applied = sample.get("rule") or view.get("rule")
    if asked.threshold != trained.threshold and applied not in (None, asked.threshold):
        raise _not_applied(run, "threshold", applied)
    rate = metrics["protocol"].get("false_positive", {}).get(category, {}).get("target_fpr")
    if applied == "false-positive-rate" and asked.target_fpr not in (trained.target_fpr, rate):
        raise _not_applied(run, "target_fpr", rate)
    origin = threshold_origin(sample, metrics["protocol"].get("split", "test"), rate) if sample else None
    return Thresholds(sample.get("value"), view.get("value"), origin)


def _not_applied(run: Run, key: str, recorded: object) -> ConfigError:
    """The error of a setting of ``eval`` that the last evaluation did not apply."""
    asked = getattr(run.config.eval, key)
    return ConfigError(
        f"eval.{key}: {asked}, but {run.results / METRICS_FILE} was made with {recorded}; thresholds and "
        f"calibration hold for that alone: run `idif eval {run.results} --set eval.{key}={asked}` first"
    )


def load_color_limits(run: Run, category: str, notify: Notify = unheard) -> tuple[float, float] | None:
    """(low, high) of the color scale, from the run's test maps; None if there are none."""
    path = run.results / PREDICTIONS_FILE
    if path.exists():
        predictions = Predictions.open(path)
        check_results(path, predictions.protocol, run.folder)
        if predictions.has_maps and category in predictions.category:
            return category_scale(predictions, category)
    notify("note: the run has no test maps, so each part's colors have a scale of their own")
    return None


def load_evaluated(run: Run, category: str) -> EvaluatedDecision | None:
    """The decisions of the category's own threshold at the last `idif eval`; None if it recorded none."""
    path = run.results / METRICS_FILE
    if not path.exists():
        return None
    metrics = read_sealed(path, EVALUATE_AGAIN, ("categories", "protocol"))
    recorded = metrics["categories"].get(category, {}).get("decision")
    if recorded is None:
        return None
    return EvaluatedDecision(Decisions.from_json(recorded), metrics["protocol"].get("split", "test"))


def other_settings(run: Run, method: Method) -> str | None:
    """A sentence if a method scores otherwise than at the run's evaluation, which chose the threshold."""
    path = run.results / METRICS_FILE
    if not path.exists():
        return None
    protocol = read_sealed(path, EVALUATE_AGAIN, ("protocol",))["protocol"]
    described = method.describe()
    for key, now in described.items():
        before = protocol.get(key)
        if before is not None and before != now:
            return f"threshold and color scale come from an evaluation with {before}, these scores from {now}"
    return None
