"""The decision thresholds of a run, chosen at evaluation and recorded for prediction.

Recorded for samples and for views, each as ``{"value", "rule", "items"}`` (`idif.metrics.threshold`).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from idif.config.sections import EvalConfig
from idif.data.features import FeatureSource
from idif.errors import RunError
from idif.evaluation.predictions import Predictions
from idif.evaluation.scoring import Scorer
from idif.metrics.curves import one_class_reason
from idif.metrics.score_counts import Array, BoolArray, IntArray
from idif.metrics.threshold import (
    Threshold,
    f1_max_threshold,
    false_positive_threshold,
    fixed_threshold,
    youden_threshold,
)
from idif.progress import Progress, silent

Thresholds = dict[str, dict[str, Any] | None]
"""``sample`` and ``view``; None if there were no scores to choose from."""

VALIDATION_RULES: Mapping[str, Callable[[Array, BoolArray], Threshold]] = {
    "validation": f1_max_threshold,
    "validation-youden": youden_threshold,
}
"""Value of ``eval.threshold`` -> the rule that chooses on the split ``val``."""


def normal_thresholds(
    scorer: Scorer, source: FeatureSource, rows: Sequence[int], *, progress: Progress = silent
) -> dict[str, Any]:
    """Thresholds with false-positive rate ``eval.target_fpr`` on held-out training normals.

    Returns:
        ``target_fpr``, and the `Thresholds`.
    """
    scores = scorer.collect(source, rows, progress=progress, title="choosing thresholds")
    views, samples = scorer.final(scores)
    target = scorer.config.target_fpr
    kinds = {"sample": samples[scores.scorable], "view": views[scores.present]}
    chosen = {
        kind: asdict(false_positive_threshold(values, target)) if values.size else None
        for kind, values in kinds.items()
    }
    return {"target_fpr": target, **chosen}


def validation_thresholds(
    scorer: Scorer, source: FeatureSource, *, progress: Progress = silent
) -> Thresholds:
    """Thresholds on all samples of a source of the split ``val``, by the scorer's `VALIDATION_RULES`.

    A kind of which the split has one class only has none.
    """
    samples = source.index.samples
    rule = str(scorer.config.threshold)
    choose = VALIDATION_RULES[rule]
    scores = scorer.collect(source, range(len(samples)), progress=progress, title="choosing thresholds")
    views, reduced = scorer.final(scores)
    of_views = np.array([sample.labels for sample in samples], dtype=np.bool_).reshape(scores.present.shape)
    of_samples = np.array([sample.label for sample in samples], dtype=np.bool_)
    kinds = {
        "sample": (reduced[scores.scorable], of_samples[scores.scorable]),
        "view": (views[scores.present], of_views[scores.present]),
    }
    return {
        kind: asdict(choose(values, labels)) | {"rule": rule} if 0 < labels.sum() < labels.size else None
        for kind, (values, labels) in kinds.items()
    }


def thresholds_of(
    predictions: Predictions, category: str, sample_labels: BoolArray, settings: EvalConfig
) -> tuple[Thresholds, dict[str, str]]:
    """The thresholds of one category by ``eval.threshold``, and the reason for each that is None.

    Args:
        predictions: the file of a test pass.
        category: a category of the file.
        sample_labels: bool [N]: the labels of the category's samples.
        settings: the rule.

    Raises:
        RunError: the config requires thresholds of training normals or of the split ``val`` that the test
            pass did not choose.
    """
    if settings.threshold == "false-positive-rate":
        stored = predictions.protocol.get("false_positive", {}).get(category)
        if stored is None or stored["target_fpr"] != settings.target_fpr:
            raise RunError(
                f"{predictions.path}: expected thresholds of a false-positive rate of {settings.target_fpr} "
                f"for {category}, found {'none' if stored is None else stored['target_fpr']}; run `idif "
                "eval` without --from-predictions"
            )
        return {"sample": stored["sample"], "view": stored["view"]}, {}
    if settings.chooses_on_val:
        chosen = predictions.protocol.get("validated", {}).get(category)
        by = next((threshold["rule"] for threshold in (chosen or {}).values() if threshold), None)
        if chosen is None or by not in (None, settings.threshold):
            raise RunError(
                f"{predictions.path}: expected thresholds of {category} from the split val by the rule "
                f"{settings.threshold}, found {'none' if chosen is None else f'those of {by}'}; "
                "run `idif eval` without --from-predictions"
            )
        why = {
            f"thresholds.{kind}": "the split val has one class only"
            for kind, threshold in chosen.items()
            if threshold is None
        }
        return chosen, why
    if not isinstance(settings.threshold, str):
        fixed = asdict(fixed_threshold(settings.threshold))
        return {"sample": fixed, "view": fixed}, {}
    p, rows = predictions, predictions.rows(category)
    present, scorable = p.present[rows], p.scorable[rows]
    found: Thresholds = {}
    reasons = {}
    for kind, scores, labels in (
        ("sample", p.sample_scores[rows][scorable], sample_labels[scorable]),
        ("view", p.view_scores[rows][present], p.labels[rows][present]),
    ):
        reason = one_class_reason(int((~labels).sum()), int(labels.sum()), f"{kind}s")
        found[kind] = None if reason else asdict(f1_max_threshold(scores, labels))
        if reason:
            reasons[f"thresholds.{kind}"] = reason
    return found, reasons


def sample_labels_of(predictions: Predictions, rows: IntArray, settings: EvalConfig) -> BoolArray:
    """Which samples [N] count as anomalous, by ``eval.sample_label``.

    Raises:
        RunError: the folder decides, and a sample is in neither OK nor NG.
    """
    p = predictions
    if settings.sample_label == "views":
        return p.sample_labels[rows]
    folders: list[Array] = []
    for row in rows:
        parts = {part for path in p.image_path[row] for part in path.split("/")[:-1]}
        if p.present[row].any() and not parts & {"OK", "NG"}:
            raise RunError(
                f"eval.sample_label: 'folder' needs images in folders OK and NG; those of "
                f"{p.sample_id[row]} lie in {', '.join(sorted(parts)) or 'none'}"
            )
        folders.append(np.array("NG" in parts))
    return np.array(folders, dtype=np.bool_)
