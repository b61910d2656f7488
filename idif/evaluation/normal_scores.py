"""Statistics of the scores of training normals, which late fusion uses as scales."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import torch

from idif.data.features import FeatureSource
from idif.errors import ConfigError
from idif.evaluation.scoring import Scorer, SourceScores
from idif.progress import Progress, silent


@dataclass(frozen=True)
class Scale:
    """Mean and spread of the scores of normal items."""

    mean: float
    spread: float
    """Standard deviation (of the population), above 0."""


@dataclass(frozen=True)
class NormalScores:
    """Statistics of one category's training scores, as recorded in its predictions file."""

    held_out: bool
    """Whether the samples were held out of training; a model scores those it was trained on lower."""
    samples: int
    anomalous: int
    """Number of samples labeled anomalous, i.e. contamination; methods must not use these labels."""
    sample: Scale
    view: Scale | None
    """Scale of the scores of all present views; None if samples have no views."""
    pixel: Scale | None
    """Scale of all map pixels of the present views; None if the method has no maps."""

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Self:
        """Inverse of `dataclasses.asdict`."""
        scales: dict[str, Any] = {
            kind: None if data[kind] is None else Scale(**data[kind]) for kind in ("sample", "view", "pixel")
        }
        return cls(data["held_out"], data["samples"], data["anomalous"], **scales)


def normal_scores(
    scorer: Scorer,
    source: FeatureSource,
    rows: Sequence[int],
    *,
    held_out: bool,
    progress: Progress = silent,
) -> NormalScores:
    """Score ``rows`` of a training split in the same way as the test pass.

    Args:
        held_out: whether ``rows`` were held out of training.

    Raises:
        ConfigError: fewer than two different scores, so that the spread is undefined.
    """
    parts, means, variances = [], [], []
    for scored in scorer.batches(source, rows, progress=progress, title="scoring training normals"):
        parts.append(scored.without_maps())
        if scored.maps is not None:
            shown = scored.batch.view_mask.cpu()
            variance, mean = torch.var_mean(scored.maps.flatten(2), dim=2, correction=0)
            means.append(mean.cpu()[shown])
            variances.append(variance.cpu()[shown])
    scores = SourceScores.concatenate(parts)
    views, samples = scorer.final(scores)
    return NormalScores(
        held_out=held_out,
        samples=len(rows),
        anomalous=sum(source.index.samples[row].label for row in rows),
        sample=_scale("sample", torch.from_numpy(samples[scores.scorable])),
        view=_scale("view", torch.from_numpy(views[scores.present])) if scores.present.any() else None,
        pixel=_pixel_scale(torch.cat(means), torch.cat(variances)) if means else None,
    )


def _pixel_scale(means: torch.Tensor, variances: torch.Tensor) -> Scale:
    """The scale of all pixels, from the mean and variance of each map; all maps have the same size."""
    mean, variance = means.double(), variances.double()
    spread = float((variance.mean() + mean.var(correction=0)).sqrt())
    return _checked("pixel", Scale(float(mean.mean()), spread))


def _scale(kind: str, scores: torch.Tensor) -> Scale:
    exact = scores.double()
    return _checked(kind, Scale(float(exact.mean()), float(exact.std(correction=0))))


def _checked(kind: str, scale: Scale) -> Scale:
    if not scale.spread > 0:
        raise ConfigError(
            f"eval.record_normal_scores: expected at least two training normals of different {kind} scores, "
            f"found a spread of {scale.spread:g}"
        )
    return scale
