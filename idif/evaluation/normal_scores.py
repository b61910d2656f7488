"""How a run scores its training normals: the scale by which the scores of several runs can be fused."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import torch

from idif.config.sections import EvalConfig
from idif.data.features import FeatureSource
from idif.errors import ConfigError
from idif.evaluation.calibration import Calibration, final_scores
from idif.evaluation.scoring import score_batches
from idif.methods.protocol import Method
from idif.progress import Progress, silent


@dataclass(frozen=True)
class Scale:
    """Where scores of normal items lie."""

    mean: float
    spread: float
    """Standard deviation (of the population), above 0."""


@dataclass(frozen=True)
class NormalScores:
    """One category's scores of training samples, as its predictions file records them."""

    held_out: bool
    """Whether the samples were held out of training; a model scores those it was trained on lower."""
    samples: int
    anomalous: int
    """How many of them the data label anomalous: contaminated training data, which a method may not know."""
    sample: Scale
    view: Scale
    """Of all present views together."""
    pixel: Scale
    """Of all map pixels of the present views together."""

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Self:
        """What `dataclasses.asdict` made."""
        scales = {kind: Scale(**data[kind]) for kind in ("sample", "view", "pixel")}
        return cls(data["held_out"], data["samples"], data["anomalous"], **scales)


def normal_scores(
    config: EvalConfig,
    method: Method,
    source: FeatureSource,
    rows: Sequence[int],
    device: torch.device,
    calibration: Calibration | None,
    *,
    held_out: bool,
    progress: Progress = silent,
) -> NormalScores:
    """Score ``rows`` of a training split as the test pass scores its own.

    Args:
        held_out: whether ``rows`` were held out of training.

    Raises:
        ConfigError: fewer than two different scores, from which there is no spread.
    """
    scores, present, means, variances = [], [], [], []
    for scored in score_batches(
        config, method, source, rows, device, progress=progress, what="scoring training normals"
    ):
        variance, mean = torch.var_mean(scored.maps.flatten(2), dim=2, correction=0)
        seen = scored.batch.view_mask.cpu()
        scores.append(scored.scores)
        present.append(seen)
        means.append(mean.cpu()[seen])
        variances.append(variance.cpu()[seen])
    shown = torch.cat(present).numpy()
    views, samples = final_scores(config, torch.cat(scores).numpy(), shown, calibration)
    mean, variance = torch.cat(means).double(), torch.cat(variances).double()
    # all maps are of one size: the variance within them, and that between them
    spread = float((variance.mean() + mean.var(correction=0)).sqrt())
    return NormalScores(
        held_out=held_out,
        samples=len(rows),
        anomalous=sum(source.index.samples[row].label for row in rows),
        sample=_scale("sample", torch.from_numpy(samples[shown.any(axis=1)])),
        view=_scale("view", torch.from_numpy(views[shown])),
        pixel=_checked("pixel", Scale(float(mean.mean()), spread)),
    )


def _scale(kind: str, scores: torch.Tensor) -> Scale:
    found = scores.double()
    return _checked(kind, Scale(float(found.mean()), float(found.std(correction=0))))


def _checked(kind: str, scale: Scale) -> Scale:
    if not scale.spread > 0:
        raise ConfigError(
            f"eval.normals: expected at least two training normals of different {kind} scores, found a "
            f"spread of {scale.spread:g}"
        )
    return scale
