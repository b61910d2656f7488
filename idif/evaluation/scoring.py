"""From a method and a feature source to anomaly maps and view scores: the one test pass."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from idif.config.sections import EvalConfig
from idif.data.batch import Batch
from idif.data.features import FeatureSource
from idif.errors import CannotFinish, ConfigError
from idif.methods import Method
from idif.metrics.sample import sample_scores, view_scores
from idif.progress import Progress, silent


class Scored(NamedTuple):
    """One batch with what the method said of it."""

    batch: Batch
    maps: Tensor
    """float32 [B,V,H,W] on the method's device; zero on absent views."""
    scores: Tensor
    """float32 [B,V] on the CPU, uncalibrated; of no meaning on absent views."""


@torch.inference_mode()
def score_batches(
    config: EvalConfig,
    method: Method,
    source: FeatureSource,
    rows: Sequence[int],
    device: torch.device,
    *,
    progress: Progress = silent,
    what: str = "evaluating",
) -> Iterator[Scored]:
    """Score the clean images of ``rows``, in order.

    Raises:
        CannotFinish: a score is not finite; the sample is named.
    """
    method.eval()
    done = 0
    for batch in source.batches(rows, config.batch_size):
        moved = batch.to(device)
        encoded = method.encode(moved.images.float() / 255, moved.view_mask)
        maps = method.anomaly_maps(encoded, moved.features, moved.view_mask)
        scores = view_scores(maps, config.score, config.top_k).cpu()
        require_finite(scores, batch, source)
        yield Scored(batch, maps, scores)
        done += len(batch)
        progress(done, len(rows), what)


def require_finite(scores: Tensor, batch: Batch, source: FeatureSource) -> None:
    """Raise `CannotFinish`, naming the sample, where a present view's score is not finite."""
    bad = (~torch.isfinite(scores) & batch.view_mask.cpu()).any(dim=1)
    if bad.any():
        row = int(batch.rows[bad.cpu()][0])
        name = source.index.samples[row].sample_id
        raise CannotFinish(f"{name}: the anomaly score is not finite; the model or its features are broken")


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
