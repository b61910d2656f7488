"""`Scorer`: computes maps, view scores and sample scores of a feature source with a trained method."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import NamedTuple, Self

import numpy as np
import torch
from torch import Tensor

from idif.config.sections import EvalConfig
from idif.data.batch import Batch
from idif.data.features import IMAGE_INPUT, IMAGES, FeatureSource
from idif.errors import CannotFinish, ConfigError
from idif.evaluation.calibration import BoolArray, Calibration, FloatArray, final_scores
from idif.methods.maps import MAP
from idif.methods.protocol import Method, ReducesMaps, Scores
from idif.metrics.sample import view_scores
from idif.progress import Progress, silent


class SourceScores(NamedTuple):
    """The scores of some rows of a source."""

    views: FloatArray
    """[N,V]: view scores, uncalibrated."""
    present: BoolArray
    """[N,V]: whether the view is present."""
    samples: FloatArray | None
    """[N]: the method's own sample scores; None: sample scores are reduced from the views."""

    @classmethod
    def concatenate(cls, parts: Sequence[Self]) -> Self:
        """Concatenate the scores of at least one part."""
        own = [part.samples for part in parts if part.samples is not None]
        return cls(
            np.concatenate([part.views for part in parts]),
            np.concatenate([part.present for part in parts]),
            np.concatenate(own) if own else None,
        )

    @property
    def scorable(self) -> BoolArray:
        """[N]: the samples that have a score."""
        seen: BoolArray = np.any(self.present, axis=1)
        return seen if self.samples is None else np.isfinite(self.samples)


class BatchScores(NamedTuple):
    """A batch with its scores."""

    batch: Batch
    maps: Tensor | None
    """float32 [B,V,H,W] on the method's device, zero on absent views; None for methods without maps."""
    views: Tensor
    """float32 [B,V] on the CPU, uncalibrated; undefined on absent views."""
    samples: Tensor | None
    """float32 [B] on the CPU; None: sample scores are reduced from the views."""
    other_maps: Mapping[str, Tensor] = MappingProxyType({})
    """{name: [B,V,H,W]}: the maps of `Method.other_maps`, like ``maps``."""

    def without_maps(self) -> SourceScores:
        """The scores without maps, on the CPU."""
        own = None if self.samples is None else self.samples.numpy()
        return SourceScores(self.views.numpy(), self.batch.view_mask.cpu().numpy(), own)


@dataclass(frozen=True)
class Scorer:
    """A trained method with the rules that reduce its output to scores."""

    config: EvalConfig
    method: Method
    device: torch.device
    """Device of the method."""
    calibration: Calibration | None = None

    def calibrated(self, calibration: Calibration | None) -> Self:
        """A copy with another calibration."""
        return replace(self, calibration=calibration)

    @torch.inference_mode()
    def batches(
        self,
        source: FeatureSource,
        rows: Sequence[int],
        *,
        progress: Progress = silent,
        title: str = "evaluating",
    ) -> Iterator[BatchScores]:
        """Score the clean samples of ``rows``, in order.

        Raises:
            CannotFinish: a score is not finite; the sample is named. A sample that lacks every input of the
                method may have NaN, and is left out of all metrics.
        """
        self.method.eval()
        done = 0
        for batch in source.batches(rows, self.config.batch_size):
            scored = self.score(batch)
            require_finite(scored.views, batch, source)
            if scored.samples is not None:
                _require(
                    torch.isfinite(scored.samples) | _lacks_all(batch, source, self.method), batch, source
                )
            yield scored
            done += len(batch)
            progress(done, len(rows), title)

    @torch.inference_mode()
    def score(self, batch: Batch) -> BatchScores:
        """Score one batch; the method is in eval mode."""
        answer = self.method.score(batch.to(self.device))
        samples = None if answer.samples is None else answer.samples.float().cpu()
        others = {name: answer.maps[name] for name in self.method.other_maps}
        return BatchScores(batch, answer.maps.get(MAP), self.reduce(answer, batch), samples, others)

    def reduce(self, answer: Scores, batch: Batch) -> Tensor:
        """View scores float32 [B,V] on the CPU by ``eval.score``."""
        maps = answer.maps.get(MAP)
        if maps is not None and (self.config.score != "method" or answer.views is None):
            return reduce_maps(self.config, self.method, maps).cpu()
        if answer.views is not None:
            return answer.views.float().cpu()
        assert batch.view_mask.shape[1] == 0, "a method that scores samples alone gives no scores of views"
        return torch.zeros(batch.view_mask.shape)

    def collect(
        self,
        source: FeatureSource,
        rows: Sequence[int],
        *,
        progress: Progress = silent,
        title: str,
    ) -> SourceScores:
        """The scores of ``rows``, without maps."""
        scored = self.batches(source, rows, progress=progress, title=title)
        return SourceScores.concatenate([part.without_maps() for part in scored])

    def final(self, scores: SourceScores) -> tuple[FloatArray, FloatArray]:
        """View scores [N,V], calibrated if there is a calibration, and sample scores [N]."""
        return final_scores(self.config, scores.views, scores.present, self.calibration, scores.samples)


def check_top_k(config: EvalConfig, image_size: int | None) -> None:
    """Refuse a score over more pixels than a map has.

    Args:
        image_size: side of the maps; None: there are no maps.

    Raises:
        ConfigError: names the key and the number of pixels.
    """
    if config.score == "topk" and image_size is not None and config.top_k > image_size**2:
        raise ConfigError(
            f"eval.top_k: expected at most {image_size**2:,}, the pixels of a map of {image_size} px, got "
            f"{config.top_k:,}"
        )


def reduce_maps(config: EvalConfig, method: Method, maps: Tensor) -> Tensor:
    """View scores [B,V] of maps [B,V,H,W] by ``eval.score``; can be exported."""
    if config.score != "method":
        return view_scores(maps, config.score, config.top_k, config.top_share)
    return method.reduce_maps(maps) if isinstance(method, ReducesMaps) else view_scores(maps)


def require_finite(scores: Tensor, batch: Batch, source: FeatureSource) -> None:
    """Raise `CannotFinish`, naming the sample, if the score of a present view is not finite.

    Args:
        scores: [B,V], on the CPU.
    """
    _require((torch.isfinite(scores) | ~batch.view_mask.cpu()).all(dim=1), batch, source)


def _lacks_all(batch: Batch, source: FeatureSource, method: Method) -> Tensor:
    """bool [B], on the CPU: samples without any of the inputs that a method scores."""
    read = set(method.needs.scoring)
    inputs = {e.input for e in source.spec.encoders if read & {array.name for array in e.arrays}}
    given = torch.full_like(batch.sample_labels, not inputs and IMAGES not in read)
    if IMAGE_INPUT in inputs or IMAGES in read:
        given = batch.view_mask.any(dim=1)
    for name in inputs & batch.present.keys():
        given = given | batch.present[name]
    return ~given.cpu()


def _require(sound: Tensor, batch: Batch, source: FeatureSource) -> None:
    if not sound.all():
        row = int(batch.rows[~sound.to(batch.rows.device)][0])
        name = source.index.samples[row].sample_id
        raise CannotFinish(f"{name}: the anomaly score is not finite; the model or its features are broken")
