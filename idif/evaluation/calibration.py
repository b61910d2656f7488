"""Per-camera calibration on held-out training normals, and final sample scores."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from idif.config.sections import EvalConfig
from idif.data.features import FeatureSource
from idif.errors import ConfigError
from idif.evaluation.scoring import score_batches
from idif.methods.protocol import Method
from idif.metrics.sample import sample_scores
from idif.progress import Progress, silent


@dataclass(frozen=True)
class Calibration:
    """Each camera's normal scores, so that no camera speaks louder than the rest."""

    mean: tuple[float, ...]
    spread: tuple[float, ...]
    samples: int
    """Held-out training normals it was fitted on."""

    def apply(self, scores: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """float32 [N,V] -> the same, in spreads above each camera's normal mean."""
        mean, spread = np.asarray(self.mean, np.float32), np.asarray(self.spread, np.float32)
        return (scores - mean) / spread


def held_out_scores(
    config: EvalConfig,
    method: Method,
    source: FeatureSource,
    rows: Sequence[int],
    device: torch.device,
    *,
    progress: Progress = silent,
    what: str,
) -> tuple[Tensor, Tensor]:
    """View scores float32 [N,V], uncalibrated, and presence bool [N,V] of ``rows``, on the CPU."""
    scored = list(score_batches(config, method, source, rows, device, progress=progress, what=what))
    return torch.cat([s.scores for s in scored]), torch.cat([s.batch.view_mask.cpu() for s in scored])


def fit_calibration(
    config: EvalConfig,
    method: Method,
    source: FeatureSource,
    rows: Sequence[int],
    device: torch.device,
    *,
    progress: Progress = silent,
) -> Calibration:
    """Calibrate on ``rows`` of training normals that the method was not trained on."""
    scores, present = held_out_scores(
        config, method, source, rows, device, progress=progress, what="calibrating"
    )
    means, spreads = [], []
    for slot, number in enumerate(source.index.view_numbers):
        normal = scores[present[:, slot], slot].double()
        spread = float(normal.std(correction=0)) if len(normal) > 1 else 0.0
        if spread == 0:
            raise ConfigError(
                f"eval.calibrate: view {number} has {len(normal)} held-out training normals of spread 0; "
                "at least two different ones are needed: raise train.holdout"
            )
        means.append(float(normal.mean()))
        spreads.append(spread)
    return Calibration(tuple(means), tuple(spreads), len(rows))


def final_scores(
    config: EvalConfig,
    scores: npt.NDArray[np.float32],
    visible: npt.NDArray[np.bool_],
    calibration: Calibration | None,
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """View scores float32 [N,V], calibrated if asked, and sample scores float32 [N] over visible views."""
    of_views = scores if calibration is None else calibration.apply(scores)
    of_samples = sample_scores(torch.from_numpy(of_views), torch.from_numpy(visible), config.sample_score)
    return of_views, of_samples.numpy()
