"""Scores of samples by their brightness alone: a check that a test set measures more than exposure."""

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from idif.data.batch import Batch
from idif.data.features import IMAGES, FeatureSource
from idif.data.spacing import evenly_spaced
from idif.metrics.bootstrap import bootstrap_auroc, percentile_interval
from idif.metrics.curves import auroc
from idif.metrics.score_counts import BoolArray
from idif.visualization.text import percent

TRAINING_SAMPLES = 64
"""Most training samples whose brightness is measured; they are spread evenly over the rows."""
SEPARATES, SURELY = 0.9, 0.8
"""S-AUROC of brightness, and lower end of its 95 % interval, from which on it is called separating."""


@dataclass(frozen=True)
class Brightness:
    """Mean gray value of the training images of each camera, and its spread."""

    mean: Tensor
    """float64 [V], 0..255; NaN for a camera that no training sample has."""
    spread: Tensor
    """float64 [V]: standard deviation, at least one gray level."""

    @classmethod
    def of(cls, source: FeatureSource) -> Self | None:
        """Measured on training samples; None if the source holds no images or no samples."""
        if IMAGES not in source.spec.arrays or not len(source.index):
            return None
        rows = evenly_spaced(range(len(source.index)), TRAINING_SAMPLES)
        each = [gray_values(batch) for batch in source.batches(rows, 8)]
        values = torch.cat(each)
        known = ~values.isnan()
        mean = values.nanmean(dim=0)
        squares = torch.where(known, values - mean, 0.0).square().sum(dim=0)
        return cls(mean, (squares / known.sum(dim=0).clamp(min=1)).sqrt().clamp(min=1.0))

    def scores(self, batch: Batch) -> Tensor:
        """float32 [B]: the deviation from training in spreads, either way, as mean over the views present.

        NaN for a sample without a view of a camera that training has.
        """
        return ((gray_values(batch) - self.mean).abs() / self.spread).nanmean(dim=1).float()


def gray_values(batch: Batch) -> Tensor:
    """Mean gray value of each view, float64 [B,V] on the CPU, 0..255; NaN for absent views."""
    means = batch.images.float().mean(dim=(2, 3, 4)).double().cpu()
    return means.masked_fill(~batch.view_mask.cpu(), torch.nan)


def brightness_metrics(scores: np.ndarray[Any, Any], labels: BoolArray) -> dict[str, Any]:
    """``s_auroc`` of scores [N] with NaN where there is none, ``s_auroc_ci``, and ``separates``."""
    known = np.isfinite(scores)
    value = auroc(scores[known], labels[known])
    interval = percentile_interval(bootstrap_auroc([scores], labels))
    separates = value is not None and interval is not None and value >= SEPARATES and interval[0] > SURELY
    return {"s_auroc": value, "s_auroc_ci": interval, "separates": separates}


def brightness_warning(metrics: dict[str, Any]) -> str | None:
    """Says in which categories brightness alone ranks the samples; None if it does in none."""
    found = {
        name: brightness["s_auroc"]
        for name, values in metrics["categories"].items()
        if (brightness := values.get("brightness", {})).get("separates")
    }
    if not found:
        return None
    values = ", ".join(f"{name} {percent(value)}" for name, value in found.items())
    return (
        f"the mean gray value of the images alone ranks the samples with an S-AUROC of {values} %: S-AUROC "
        "proves nothing here, judge by pixel metrics and heat maps"
    )
