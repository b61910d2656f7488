"""Per-camera calibration on held-out training normals, and final sample scores."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from idif.config.sections import EvalConfig
from idif.errors import ConfigError
from idif.metrics.sample import sample_scores

FloatArray = npt.NDArray[np.float32]
BoolArray = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Calibration:
    """Mean and spread of each camera's normal scores, so that scores of different cameras are comparable."""

    mean: tuple[float, ...]
    spread: tuple[float, ...]
    samples: int
    """Number of held-out training normals used for fitting."""

    def apply(self, scores: FloatArray) -> FloatArray:
        """Standardize scores float32 [N,V] by each camera's normal mean and spread."""
        mean, spread = np.asarray(self.mean, np.float32), np.asarray(self.spread, np.float32)
        return (scores - mean) / spread


def fit_calibration(
    scores: FloatArray, present: BoolArray, view_numbers: Sequence[int], prior: float = 0.0
) -> Calibration:
    """Calibrate on training normals that the method was not trained on.

    Args:
        scores: [N,V] uncalibrated view scores.
        present: [N,V].
        view_numbers: V camera numbers, for messages.
        prior: samples that the mean variance of the cameras counts as, in that of each.

    Raises:
        ConfigError: a camera has fewer than two different scores.
    """
    means, spreads, counts = [], [], []
    for slot, number in enumerate(view_numbers):
        normal = torch.from_numpy(scores[present[:, slot], slot]).double()
        spread = float(normal.std(correction=0)) if len(normal) > 1 else 0.0
        if spread == 0:
            raise ConfigError(
                f"eval.calibrate: view {number} has {len(normal)} held-out training normals of spread 0; "
                "at least two different ones are needed: raise train.holdout"
            )
        means.append(float(normal.mean()))
        spreads.append(spread)
        counts.append(len(normal))
    if prior:
        pooled = sum(spread**2 for spread in spreads) / len(spreads)
        spreads = [
            math.sqrt((count * spread**2 + prior * pooled) / (count + prior))
            for spread, count in zip(spreads, counts, strict=True)
        ]
    return Calibration(tuple(means), tuple(spreads), len(scores))


def final_scores(
    config: EvalConfig,
    views: FloatArray,
    visible: BoolArray,
    calibration: Calibration | None,
    samples: FloatArray | None = None,
) -> tuple[FloatArray, FloatArray]:
    """View scores [N,V], calibrated if there is a calibration, and sample scores [N].

    Args:
        views: [N,V] uncalibrated.
        visible: [N,V], the views to take into account.
        samples: [N], the method's own sample scores; None: reduce the visible views.
    """
    calibrated = views if calibration is None else calibration.apply(views)
    if samples is not None:
        return calibrated, samples
    reduced = sample_scores(torch.from_numpy(calibrated), torch.from_numpy(visible), config.sample_score)
    return calibrated, reduced.numpy()
