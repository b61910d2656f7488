"""Comparison of a method that predicts stored features with their mean; a worse one has not learned yet.

Scores cannot tell: features that a student fails to predict everywhere rank samples too, for instance by
their brightness. The mean is that of each camera and position over training samples, thus the prediction of a
method that ignores its input.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor

from idif.config.sections import Config
from idif.data.features import FeatureSource
from idif.data.spacing import evenly_spaced
from idif.methods.protocol import Method, PredictsFeatures
from idif.training.checkpoint_files import find_checkpoint, read_note
from idif.training.painted_validation import choose_rows
from idif.training.run_log import read_log

MODEL, MEAN = "feature_distance", "mean_feature_distance"
"""Figures of the log: distance of the stored features from the method's predictions, and from their mean."""
FEATURE_DISTANCE = "feature_distance"
"""Key of a category in ``metrics.json``."""
MEAN_OVER = 64
"""Most training samples that the mean is taken over."""
_AT_ONCE = 4
"""Samples read at once."""


@dataclass(frozen=True)
class FeatureMean:
    """Normal samples to compare predictions on, and those whose mean is the alternative."""

    source: FeatureSource
    """Training samples."""
    mean_of: tuple[int, ...]
    """Rows whose features are averaged; trained on."""
    on: tuple[int, ...]
    """Rows that are predicted: held out of training if any are."""

    @classmethod
    def of(cls, source: FeatureSource, kept: Sequence[int], held_out: Sequence[int]) -> Self:
        """Choose evenly spaced rows: few, so that a comparison is cheap."""
        return cls(source, tuple(evenly_spaced(kept, MEAN_OVER)), tuple(choose_rows(kept, held_out)))

    @torch.inference_mode()
    def distances(self, method: Method, device: torch.device, known: float | None = None) -> dict[str, float]:
        """The figures `MODEL` and `MEAN` of a method, in eval mode; empty if it predicts no features.

        Args:
            method: on ``device``.
            known: `MEAN` from an earlier call, which then is not computed again.
        """
        if not isinstance(method, PredictsFeatures) or not self.on:
            return {}
        method.eval()
        constant = None if known is not None else self._mean(method.predicted_arrays, device)
        sums = {MODEL: 0.0, MEAN: 0.0}
        views = 0
        for batch in self.source.batches(self.on, _AT_ONCE):
            batch = batch.to(device)
            shown = batch.view_mask
            views += int(shown.sum())
            sums[MODEL] += float(method.feature_distance(batch)[shown].sum())
            if constant is not None:
                sums[MEAN] += float(method.feature_distance(batch, constant)[shown].sum())
        if not views:
            return {}
        found = {name: total / views for name, total in sums.items()}
        return found if known is None else found | {MEAN: known}

    def _mean(self, names: Sequence[str], device: torch.device) -> dict[str, Tensor]:
        """{array: float32 [V,...]}: mean over the samples that have the view."""
        sums: dict[str, Tensor] = {}
        counts: Tensor | None = None
        for batch in self.source.batches(self.mean_of, _AT_ONCE):
            batch = batch.to(device)
            seen = batch.view_mask.sum(dim=0)
            counts = seen if counts is None else counts + seen
            for name, values in batch.features(names).items():
                shown = _beside(batch.view_mask, values)
                added = torch.where(shown, values.float(), 0.0).sum(dim=0)
                sums[name] = sums[name] + added if name in sums else added
        assert counts is not None, "there are training samples"
        return {name: total / _beside(counts.clamp_min(1), total) for name, total in sums.items()}


def _beside(mask: Tensor, values: Tensor) -> Tensor:
    """``mask`` with trailing axes of length 1, for arithmetic with ``values``."""
    return mask[(..., *[None] * (values.ndim - mask.ndim))]


@dataclass(frozen=True)
class FeatureDistance:
    """The figures of a trained model, as recorded while it was trained."""

    model: float
    mean: float
    held_out: bool
    """Whether the samples were held out of training."""

    @property
    def trained(self) -> bool:
        """Whether the model predicts better than the mean."""
        return self.model < self.mean

    def to_json(self) -> dict[str, Any]:
        """For ``metrics.json``."""
        return {"model": self.model, "mean": self.mean, "held_out": self.held_out, "trained": self.trained}


def recorded_distance(folder: Path, *, held_out: bool) -> FeatureDistance | None:
    """The last comparison up to the epoch of the checkpoint in a model's folder; None if there is none.

    Args:
        folder: the model's.
        held_out: whether training held samples out.
    """
    checkpoint, log = find_checkpoint(folder), folder / "log.jsonl"
    if checkpoint is None or not log.is_file():
        return None
    epoch = read_note(checkpoint)[0].epoch
    lines = [line for line in read_log(log) if line["epoch"] <= epoch]
    # with early stopping the checkpoint holds the weights of an earlier epoch
    best = next((line["eval"].get("best_epoch") for line in reversed(lines) if "eval" in line), None)
    found = [
        line["eval"]
        for line in lines
        if MODEL in line.get("eval", {}) and line["epoch"] <= (best if best is not None else epoch)
    ]
    return FeatureDistance(found[-1][MODEL], found[-1][MEAN], held_out) if found else None


def distances_of(config: Config, folder: Path, names: Iterable[str]) -> dict[str, dict[str, Any]]:
    """{category or model: recorded comparison of its model as JSON values}, of those that have one.

    Args:
        config: the run's.
        folder: the run's.
        names: categories or models.
    """
    found = {}
    for name in names:
        model = "all" if config.train.mode == "unified" else name
        distance = recorded_distance(folder / model, held_out=config.train.holdout > 0)
        if distance is not None:
            found[name] = distance.to_json()
    return found


def not_trained_warning(distances: Mapping[str, Mapping[str, Any]]) -> str | None:
    """Names the models that predict worse than the mean; None if there are none.

    Args:
        distances: as `distances_of` returns them.
    """
    worse = {name: found for name, found in distances.items() if not found["trained"]}
    if not worse:
        return None
    values = ", ".join(
        f"{name} {found['model']:.3g} against {found['mean']:.3g}" for name, found in worse.items()
    )
    held_out = all(found["held_out"] for found in worse.values())
    samples = "held-out normals" if held_out else "training samples"
    return (
        f"the model predicts the stored features of {samples} worse than their per-position mean ({values}): "
        "it is not trained yet; raise train.epochs, or set train.steps"
    )


def untrained_warning(metrics: Mapping[str, Any]) -> str | None:
    """`not_trained_warning` of the categories of ``metrics.json``."""
    categories = metrics["categories"].items()
    return not_trained_warning(
        {name: values[FEATURE_DISTANCE] for name, values in categories if FEATURE_DISTANCE in values}
    )
