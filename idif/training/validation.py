"""What an evaluation while training shows: a figure for its log, and a few heat maps for people."""

from typing import Any, NamedTuple

import cv2
import numpy as np
import numpy.typing as npt
import torch

from idif.config.sections import EvalConfig
from idif.data.features import FeatureSource
from idif.evaluation.calibration import final_scores
from idif.evaluation.scoring import score_batches
from idif.methods.protocol import Method
from idif.metrics import auroc
from idif.visualization.heatmap import Pixels, color_limits, heatmap_image

SHOWN = 3
"""Samples with a picture, the same ones at every evaluation."""
SIDE = 128
"""Greatest side of a view in a picture, in pixels."""


class ValidationResult(NamedTuple):
    """One evaluation."""

    figures: dict[str, Any]
    """Goes into the log."""
    pictures: dict[str, Pixels] = {}  # noqa: RUF012
    """Sample id -> uint8 [H,W,3], RGB: its views side by side, below them the same with their heat."""


def validate(
    config: EvalConfig, method: Method, source: FeatureSource, device: torch.device
) -> ValidationResult:
    """S-AUROC over all rows of a source, uncalibrated, and heat maps of up to `SHOWN` samples.

    The samples lie evenly among the anomalous ones, or among all where none is anomalous; one colour scale
    holds for all of an evaluation's pictures.

    Raises:
        CannotFinish: a score is not finite.
    """
    samples = source.index.samples
    rows = [row for row, sample in enumerate(samples) if sample.label] or list(range(len(samples)))
    chosen = {rows[int(place)] for place in np.linspace(0, len(rows) - 1, SHOWN).round()}
    scores, present, labels, kept = [], [], [], {}
    for batch, maps, of_views in score_batches(config, method, source, range(len(samples)), device):
        scores.append(of_views.numpy())
        present.append(batch.view_mask.cpu().numpy())
        labels.append(batch.labels.cpu().numpy())
        for place, row in enumerate(batch.rows.tolist()):
            if row in chosen:
                kept[row] = (batch.images[place].cpu().numpy(), maps[place].cpu().numpy(), present[-1][place])
    _, of_samples = final_scores(config, np.concatenate(scores), np.concatenate(present), None)
    low, high = color_limits(np.concatenate([maps[shown].ravel() for _, maps, shown in kept.values()]))
    pictures = {
        samples[row].sample_id: _picture(images, ((maps - low) / (high - low)).astype(np.float32))
        for row, (images, maps, _) in sorted(kept.items())
    }
    anomalous = np.any(np.concatenate(labels), axis=1)
    return ValidationResult({"s_auroc": auroc(of_samples, anomalous)}, pictures)


def _picture(images: Pixels, heat: npt.NDArray[np.float32]) -> Pixels:
    """Photographs uint8 [V,3,H,W] above the same with heat [V,H,W], 0..1 on the colour scale."""
    side = min(SIDE, images.shape[-1])
    photos = [_small(image.transpose(1, 2, 0), side) for image in images]
    heated = [heatmap_image(_small(h, side), photo) for h, photo in zip(heat, photos, strict=True)]
    picture: Pixels = np.concatenate([np.concatenate(photos, axis=1), np.concatenate(heated, axis=1)])
    return picture


def _small(image: npt.NDArray[Any], side: int) -> npt.NDArray[Any]:
    return cv2.resize(np.ascontiguousarray(image), (side, side), interpolation=cv2.INTER_AREA)
