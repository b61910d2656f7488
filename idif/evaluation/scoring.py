"""From a method and a feature source to anomaly maps and view scores: the one test pass."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from idif.config.sections import EvalConfig
from idif.data.batch import Batch
from idif.data.features import FeatureSource
from idif.errors import CannotFinish
from idif.methods.protocol import Method
from idif.metrics.sample import view_scores
from idif.progress import Progress, silent


class BatchScores(NamedTuple):
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
) -> Iterator[BatchScores]:
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
        yield BatchScores(batch, maps, scores)
        done += len(batch)
        progress(done, len(rows), what)


def require_finite(scores: Tensor, batch: Batch, source: FeatureSource) -> None:
    """Raise `CannotFinish`, naming the sample, where a present view's score is not finite."""
    bad = (~torch.isfinite(scores) & batch.view_mask.cpu()).any(dim=1)
    if bad.any():
        row = int(batch.rows[bad.cpu()][0])
        name = source.index.samples[row].sample_id
        raise CannotFinish(f"{name}: the anomaly score is not finite; the model or its features are broken")
