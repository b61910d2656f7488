"""Color limits of anomaly maps, from the maps of normal samples."""

import numpy as np

from idif.data.spacing import evenly_spaced
from idif.evaluation.predictions import Predictions
from idif.visualization.heatmap import color_limits

SAMPLES_FOR_SCALE = 64


def category_scale(predictions: Predictions, category: str) -> tuple[float, float]:
    """The color scale of a category's test maps, from at most `SAMPLES_FOR_SCALE` of its samples."""
    rows = predictions.rows(category)
    rows = rows[evenly_spaced(range(len(rows)), SAMPLES_FOR_SCALE)]
    _, maps, _ = next(iter(predictions.iter_maps(rows, len(rows))))
    return color_limits(maps[predictions.present[rows]].astype(np.float32))
