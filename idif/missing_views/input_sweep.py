"""Sweeps over inputs: metrics of a method under every choice of a sample's inputs, and each one's value.

An input is a per-sample file (video, sound, a series of sensors) or ``image``, the views together.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from idif.data.batch import Batch
from idif.data.features import IMAGE_INPUT, FeatureSource, FeatureSpec
from idif.data.index import NORMAL_CLASS, Index
from idif.errors import ConfigError
from idif.evaluation.scoring import Scorer, require_finite
from idif.methods.protocol import Method
from idif.metrics import auroc
from idif.metrics.mean import mean_defined
from idif.missing_views.camera_value import (
    MAX_EXACT_CAMERAS,
    best_subsets,
    camera_subsets,
    leave_one_out,
    shapley,
)
from idif.progress import Progress, silent

Scores = npt.NDArray[np.float32]


def read_inputs(method: Method, features: FeatureSpec) -> tuple[str, ...]:
    """The inputs behind the arrays that a method scores with, in the order of the source's encoders."""
    read = set(method.needs.scoring)
    known = (*features.inputs, IMAGE_INPUT)
    return tuple(
        dict.fromkeys(
            encoder.input
            for encoder in features.encoders
            if encoder.input in known and read & {array.name for array in encoder.arrays}
        )
    )


def inputs_of(method: Method, features: FeatureSpec) -> tuple[str, ...]:
    """The inputs that a method reads, see `read_inputs`.

    Raises:
        ConfigError: there are fewer than two, so that none can be missing, or too many for every subset.
    """
    names = read_inputs(method, features)
    if len(names) < 2:
        raise ConfigError(
            "a sweep over inputs needs a method that reads several inputs of a sample; this one reads "
            f"{', '.join(names) or 'none'}"
        )
    if len(names) > MAX_EXACT_CAMERAS:
        raise ConfigError(f"a sweep over inputs takes at most {MAX_EXACT_CAMERAS} of them, not {len(names)}")
    return names


def keep_inputs(batch: Batch, features: FeatureSpec, kept: Sequence[str]) -> Batch:
    """The batch as if all its inputs but ``kept`` were absent."""
    hidden = {*batch.present, IMAGE_INPUT} - {*kept}
    arrays = dict(batch.arrays)
    for encoder in features.encoders:
        if encoder.input in hidden:
            names = [array.name for array in encoder.arrays if array.name in arrays]
            arrays |= {name: torch.zeros_like(arrays[name]) for name in names}
    absent = {name: torch.zeros_like(batch.present[name]) for name in batch.present if name in hidden}
    changed = replace(batch, arrays=arrays, present=batch.present | absent)
    if IMAGE_INPUT in hidden:
        nothing = torch.zeros_like(batch.view_mask)
        changed = replace(changed, view_mask=nothing, labels=nothing)
    return changed


@torch.inference_mode()
def score_inputs(
    scorer: Scorer, source: FeatureSource, subsets: Sequence[Sequence[str]], progress: Progress = silent
) -> list[Scores]:
    """Sample scores float32 [N] with each choice of inputs; NaN for samples that lack all of them."""
    scorer.method.eval()
    count = len(source.index)
    scores = [np.full(count, np.nan, np.float32) for _ in subsets]
    done = 0
    for batch in source.batches(range(count), scorer.config.batch_size):
        for found, kept in zip(scores, subsets, strict=True):
            shown = keep_inputs(batch, source.spec, kept)
            given = shown.view_mask.any(dim=1)
            for present in shown.present.values():
                given = given | present
            rows = given.nonzero()[:, 0]
            if not len(rows):
                continue
            chosen = shown.take(rows)
            scored = scorer.score(chosen)
            require_finite(scored.views, chosen, source)
            _, found[chosen.rows.cpu().numpy()] = scorer.final(scored.without_maps())
        done += len(batch)
        progress(done, count, "sweeping inputs")
    return scores


def sweep_inputs(scorer: Scorer, source: FeatureSource, *, progress: Progress = silent) -> dict[str, Any]:
    """Evaluate every subset of the inputs; returns one category's part of ``input_sweep.json``."""
    names = inputs_of(scorer.method, source.spec)
    subsets = [tuple(names[place] for place in places) for places in camera_subsets(range(len(names)))]
    scores = score_inputs(scorer, source, subsets, progress)
    results = [
        {"inputs": list(subset), **_metrics(own, source.index)}
        for subset, own in zip(subsets, scores, strict=True)
    ]
    return summarize_inputs(results, names)


def _metrics(scores: Scores, index: Index) -> dict[str, Any]:
    """S-AUROC over all samples with a score, and of each defect's against all normal ones."""
    labels = np.array([sample.label for sample in index.samples], dtype=np.bool_)
    classes = np.array([sample.anomaly_class for sample in index.samples])
    seen = np.isfinite(scores)
    return {
        "s_auroc": auroc(scores[seen], labels[seen]),
        "per_defect": dict(_per_defect(scores, classes, seen)),
        "samples": int(seen.sum()),
        "unscorable": int((~seen).sum()),
    }


def _per_defect(
    scores: Scores, classes: npt.NDArray[Any], seen: npt.NDArray[np.bool_]
) -> Iterator[tuple[str, float | None]]:
    for defect in sorted({*classes.tolist()} - {NORMAL_CLASS}):
        chosen = seen & ((classes == defect) | (classes == NORMAL_CLASS))
        yield defect, auroc(scores[chosen], classes[chosen] == defect)


def summarize_inputs(subsets: list[dict[str, Any]], names: Sequence[str]) -> dict[str, Any]:
    """``subsets`` with the value of each input.

    ``value`` are Shapley values: they add up to the S-AUROC of all inputs minus 0.5.
    """
    places = range(len(names))
    worth = {frozenset(map(names.index, s["inputs"])): s["s_auroc"] for s in subsets}
    values = shapley(worth, places)
    lost = leave_one_out(worth, places)
    best = best_subsets(worth)
    return {
        "inputs": list(names),
        "subsets": subsets,
        "value": None if values is None else {names[int(place)]: value for place, value in values.items()},
        "leave_one_out": {names[int(place)]: value for place, value in lost.items()},
        "best_subsets": {
            size: {"inputs": [names[place] for place in found["views"]], "s_auroc": found["s_auroc"]}
            for size, found in best.items()
        },
    }


def mean_input_sweep(categories: Mapping[str, dict[str, Any]]) -> dict[str, Any]:
    """Sweeps of all categories and their mean; all have the same inputs."""
    sweeps = list(categories.values())
    subsets = [
        {
            "inputs": parts[0]["inputs"],
            "s_auroc": mean_defined(part["s_auroc"] for part in parts)[0],
            "samples": sum(part["samples"] for part in parts),
            "unscorable": sum(part["unscorable"] for part in parts),
        }
        for parts in zip(*(sweep["subsets"] for sweep in sweeps), strict=True)
    ]
    return summarize_inputs(subsets, sweeps[0]["inputs"]) | {"categories": dict(categories)}
