"""Scores of a predictions file computed again by other rules, from its own maps and view scores."""

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from idif.config.sections import EvalConfig
from idif.errors import RunError
from idif.evaluation.predictions import FloatArray, Predictions
from idif.evaluation.predictions_writer import PredictionsWriter
from idif.evaluation.test_pass import score_rules, score_texts
from idif.methods.maps import MAP
from idif.metrics.sample import sample_scores, view_scores
from idif.progress import Progress, silent

_BLOCK = 8
_RULES = {"score", "top_k", "top_share", "sample_score"}
"""Keys of the section ``eval`` that reduce maps to scores."""
_NEW_PASS = ("method", "train", "teacher", "corruption")
"""Sections that no stored score follows."""


def rescore(
    predictions: Predictions,
    settings: EvalConfig,
    given: Collection[str],
    run: Path,
    derived: Sequence[Path] = (),
    *,
    progress: Progress = silent,
) -> str | None:
    """Replace the scores of a predictions file by those of other rules, if ``given`` asks for them.

    View scores are reduced from the file's maps, whose precision is float16. Thresholds and scales that were
    fitted to the former scores are dropped.

    Args:
        settings: the rules.
        given: dotted keys of the settings given now; the file's own rules apply to all others.
        run: the run's folder, for messages.
        derived: files computed from the former scores; removed.
        progress: called with the number of samples.

    Returns:
        The new rules for display; None if the scores stay as they are.

    Raises:
        RunError: a key given demands a new test pass; the command for it is named.
    """
    protocol = predictions.protocol
    for key in sorted(given):
        if key.split(".")[0] in _NEW_PASS:
            raise _needs_pass(run, key, None, "predictions are those of the trained run")
    asked = {key.removeprefix("eval."): getattr(settings, key.removeprefix("eval."), None) for key in given}
    recorded = protocol.get("rules")
    for key, default in (("calibrate", asked.get("calibrate")), ("calibrate_prior", 0.0)):
        if key in asked and asked[key] != protocol.get(key, default):
            raise _needs_pass(run, f"eval.{key}", asked[key], "it is fitted to training normals")
    if asked.get("record_normal_scores") and not protocol.get("normals"):
        raise _needs_pass(run, "eval.record_normal_scores", True, "training normals have no stored scores")
    if recorded is None or not asked.keys() & _RULES:
        if asked.keys() & _RULES:
            raise RunError(
                f"{predictions.path}: the scores of a fusion or of an old version have no rules to change; "
                "evaluate or fuse the runs again"
            )
        return None
    rules = settings.model_copy(
        update={
            "score": asked.get("score", recorded["view_score"]),
            "top_k": asked.get("top_k", recorded["top_k"] or settings.top_k),
            "top_share": asked.get("top_share", recorded.get("top_share") or settings.top_share),
            "sample_score": asked.get("sample_score", recorded["sample_score"]),
        }
    )
    wanted = score_rules(rules)
    if all(recorded.get(key) == value for key, value in wanted.items()):
        return None
    views = predictions.view_scores
    if any(recorded.get(key) != wanted.get(key) for key in ("view_score", "top_k", "top_share")):
        _require_maps(predictions, rules, run)
        views = _reduced(predictions, rules, progress)
    samples = predictions.sample_scores
    if not _are_own(predictions, recorded["sample_score"]):
        shown = torch.from_numpy(predictions.present)
        samples = sample_scores(torch.from_numpy(views), shown, rules.sample_score).numpy()
    kept = {key: value for key, value in recorded.items() if key != "top_share"}
    stated = {**protocol, **score_texts(rules), "rules": kept | wanted}
    stated |= {key: {} for key in ("false_positive", "validated", "normals") if key in protocol}
    _write(predictions, views, samples, stated, derived, progress)
    return "; ".join(f"{key.replace('_', ' ')}: {text}" for key, text in score_texts(rules).items())


def _require_maps(predictions: Predictions, rules: EvalConfig, run: Path) -> None:
    """Refuse a rule of view scores that the file cannot follow."""
    if rules.score == "method":
        raise _needs_pass(run, "eval.score", rules.score, "only the method can compute it")
    if not predictions.has_maps:
        raise _needs_pass(run, "eval.score", rules.score, "the predictions hold no maps")
    if predictions.protocol.get("calibrate", "none") != "none":
        raise _needs_pass(run, "eval.score", rules.score, "the calibration is fitted to the former scores")


def _needs_pass(run: Path, key: str, value: Any, why: str) -> RunError:
    setting = f" --set {key}={value}" if value is not None else ""
    return RunError(f"{key}: {why}; run `idif eval {run}{setting}` without --from-predictions")


def _are_own(predictions: Predictions, rule: str) -> bool:
    """Whether sample scores are the method's own, i.e. not reduced from the file's view scores."""
    scorable, shown = predictions.scorable, torch.from_numpy(predictions.present)
    if not shown.shape[1]:
        return True
    reduced = sample_scores(torch.from_numpy(predictions.view_scores), shown, rule)  # type: ignore[arg-type]
    return not np.allclose(reduced.numpy()[scorable], predictions.sample_scores[scorable], rtol=1e-5)


def _reduced(predictions: Predictions, rules: EvalConfig, progress: Progress) -> FloatArray:
    """View scores [N,V] of the file's maps; NaN for absent views."""
    views = np.full_like(predictions.view_scores, np.nan)
    for rows, maps, _ in predictions.iter_maps(np.arange(len(predictions)), _BLOCK):
        assert rules.score != "method", "refused above"
        try:
            views[rows] = view_scores(
                torch.from_numpy(maps), rules.score, rules.top_k, rules.top_share
            ).numpy()
        except ValueError as error:
            raise RunError(f"eval.top_k: {error}") from None
        progress(int(rows[-1]) + 1, len(predictions), "scoring again")
    views[~predictions.present] = np.nan
    return views


def _write(
    predictions: Predictions,
    views: FloatArray,
    samples: FloatArray,
    protocol: dict[str, Any],
    derived: Sequence[Path],
    progress: Progress,
) -> None:
    """Write the file again with other scores."""
    p, everything = predictions, np.arange(len(predictions))
    stored = [p.iter_maps(everything, _BLOCK, name) for name in (MAP, *p.other_maps)] if p.has_maps else []
    size = next(p.iter_maps([0]))[1].shape[-1] if p.has_maps else None
    with PredictionsWriter(
        p.path,
        p.view_numbers,
        size,
        p.has_maps,
        protocol,
        derived,
        any(p.sample_class),
        p.other_maps,
        p.brightness is not None,
        p.source_path is not None,
    ) as writer:
        for start in range(0, len(p), _BLOCK):
            rows = everything[start : start + _BLOCK]
            blocks = [next(maps) for maps in stored]
            _, maps, masks = blocks[0] if blocks else (None, None, None)
            others = zip(p.other_maps, blocks[1:], strict=True) if blocks else ()
            writer.append(
                [p.sample(int(row)) for row in rows],
                views[rows],
                samples[rows],
                maps,
                masks,
                other_maps={name: torch.from_numpy(values) for name, (_, values, _) in others},
                brightness=None if p.brightness is None else torch.from_numpy(p.brightness[rows]),
            )
            progress(start + len(rows), len(p), "writing")
        for one in stored:
            one.close()  # a file that is read cannot be replaced on every system
