"""Validation during training: S-AUROC for the log, heat maps of a few samples."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import cv2
import numpy as np
import numpy.typing as npt
import torch

from idif.config.sections import Config, TrainConfig
from idif.data.features import FeatureSource
from idif.data.index import Split
from idif.data.spacing import evenly_spaced
from idif.errors import ConfigError
from idif.evaluation.scoring import Scorer, SourceScores
from idif.methods.protocol import Method
from idif.metrics import auroc
from idif.training.feature_mean import MEAN, FeatureMean
from idif.visualization.heatmap import Pixels, color_limits, heatmap_image
from idif.visualization.text import percent

SHOWN = 3
"""Number of samples with a picture; the same samples at every evaluation."""
SIDE = 128
"""Maximum side of a view in a picture, in pixels."""


PAINTED_S_AUROC = "painted_s_auroc"
"""S-AUROC of normal samples with painted defects against the same without."""
TRAIN_S_AUROC = "train_s_auroc"
"""S-AUROC of the evaluated anomalous samples against the normal ones that the model is trained on."""
OVERFIT_GAP = "overfit_gap"
"""`TRAIN_S_AUROC` minus the S-AUROC of the same anomalous samples against normal ones it has not seen."""


def validation_split(settings: TrainConfig, splits: Collection[Split]) -> Split:
    """The split that a training is evaluated on: ``val`` where the data has one, else ``test``.

    Raises:
        ConfigError: ``train.patience`` needs the split ``val``, since no epoch may be chosen by test samples.
    """
    if "val" in splits:
        return "val"
    if settings.patience:
        raise ConfigError(
            "train.patience: chooses an epoch by samples of the split val, of which the data has none; set "
            "train.patience to 0"
        )
    return "test"


class ValidationResult(NamedTuple):
    """Result of one evaluation during training."""

    figures: dict[str, Any]
    """Metrics for the log."""
    pictures: dict[str, Pixels] = {}  # noqa: RUF012
    """Sample id -> uint8 [H,W,3], RGB: the views side by side, and below them their heat maps."""
    anomalous: npt.NDArray[np.float32] | None = None
    """Scores of the anomalous samples, NaN for those that cannot be scored; None without an evaluation."""


def is_due(settings: TrainConfig, epoch: int) -> bool:
    """Whether anything is to be evaluated after ``epoch`` epochs."""
    return any(is_due_every(every, epoch) for every in (settings.eval_every, settings.validate_every))


def is_due_every(every: int, epoch: int) -> bool:
    """Whether what is done every ``every`` epochs, never if that is 0, is due after ``epoch`` epochs."""
    return every > 0 and epoch % every == 0


@dataclass(frozen=True)
class Validation:
    """The evaluation after an epoch: of a split of the data, of painted samples, or of both."""

    config: Config
    device: torch.device
    test: Callable[[], FeatureSource] | None = None
    """Opens the split of `validation_split`; None if there is none."""
    painted: FeatureSource | None = None
    """Normal samples with and without painted defects; None if there are none."""
    normals: FeatureMean | None = None
    """Normal samples on which predictions of features are compared with their mean; None: not compared."""
    trained: Callable[[], FeatureSource] | None = None
    """Opens the normal samples that the model is trained on, for ``train.overfit_alarm``."""
    _seen: dict[str, float] = field(default_factory=dict)
    """The last figures of that comparison."""

    def __call__(self, method: Method, epoch: int) -> ValidationResult:
        """Evaluate what is due; raises what `validate` raises."""
        settings, figures, pictures = self.config.train, {}, {}
        scorer = Scorer(self.config.eval, method, self.device)
        if self.painted is not None and is_due_every(settings.validate_every, epoch):
            seen = validate(scorer, self.painted)
            figures[PAINTED_S_AUROC], pictures = seen.figures["s_auroc"], seen.pictures
        if self.normals is not None and is_due_every(settings.validate_every, epoch):
            self._seen.update(self.normals.distances(method, self.device, self._seen.get(MEAN)))
            figures |= self._seen
        if self.test is not None and is_due_every(settings.eval_every, epoch):
            seen = validate(scorer, self.test())
            figures, pictures = {**figures, **seen.figures}, {**pictures, **seen.pictures}
            if self.trained is not None and settings.overfit_alarm is not None:
                figures |= overfit_figures(scorer, self.trained(), seen)
        return ValidationResult(figures, pictures)


def validate(scorer: Scorer, source: FeatureSource) -> ValidationResult:
    """S-AUROC over all rows of a source, uncalibrated, and heat maps of up to `SHOWN` samples.

    The samples are evenly spaced among the anomalous ones, or among all if none is anomalous; all pictures of
    an evaluation share one color scale. There are no pictures without images or maps.

    Raises:
        CannotFinish: a score is not finite.
    """
    samples = source.index.samples
    rows = [row for row, sample in enumerate(samples) if sample.label] or list(range(len(samples)))
    chosen = set(evenly_spaced(rows, SHOWN))
    parts, labels, shown = [], [], {}
    for scored in scorer.batches(source, range(len(samples))):
        batch, maps = scored.batch, scored.maps
        parts.append(scored.without_maps())
        labels.append(batch.sample_labels.cpu().numpy())
        if maps is None or "images" not in batch.arrays:
            continue
        for place, row in enumerate(batch.rows.tolist()):
            if row in chosen:
                images = batch.images[place].cpu().numpy()
                shown[row] = (images, maps[place].cpu().numpy(), parts[-1].present[place])
    scores = SourceScores.concatenate(parts)
    _, reduced = scorer.calibrated(None).final(scores)
    pictures = {}
    if shown:
        low, high = color_limits(
            np.concatenate([maps[present].ravel() for _, maps, present in shown.values()])
        )
        pictures = {
            samples[row].sample_id: _picture(images, ((maps - low) / (high - low)).astype(np.float32))
            for row, (images, maps, _) in sorted(shown.items())
        }
    labeled = np.concatenate(labels)
    return ValidationResult({"s_auroc": auroc(reduced, labeled)}, pictures, reduced[labeled])


def overfit_figures(scorer: Scorer, trained: FeatureSource, seen: ValidationResult) -> dict[str, Any]:
    """`TRAIN_S_AUROC` and `OVERFIT_GAP`, None where they are undefined.

    Training has no anomalous samples. So those of the evaluation are taken for both figures, and only the
    normal ones differ: a model that knows its training samples by heart scores these lower than new ones.

    Args:
        trained: normal samples that the model is trained on.
        seen: the evaluation of other samples by the same scorer.
    """
    assert seen.anomalous is not None
    parts = [scored.without_maps() for scored in scorer.batches(trained, range(len(trained.index)))]
    _, normal = scorer.calibrated(None).final(SourceScores.concatenate(parts))
    normal = normal[np.isfinite(normal)]
    scores = np.concatenate([normal, seen.anomalous])
    labels = np.arange(len(scores)) >= len(normal)
    own, other = auroc(scores, labels), seen.figures["s_auroc"]
    gap = None if own is None or other is None else own - other
    return {TRAIN_S_AUROC: own, OVERFIT_GAP: gap}


def overfit_warning(settings: TrainConfig, figures: Mapping[str, Any]) -> str | None:
    """A sentence on an evaluation whose `OVERFIT_GAP` exceeds ``train.overfit_alarm``; else None."""
    gap = figures.get(OVERFIT_GAP)
    if settings.overfit_alarm is None or gap is None or gap <= settings.overfit_alarm:
        return None
    return (
        f"the model looks overfit: S-AUROC {percent(figures[TRAIN_S_AUROC])} % against the normal samples "
        f"trained on, {percent(figures['s_auroc'])} % against others (train.overfit_alarm: "
        f"{settings.overfit_alarm:g})"
    )


def _picture(images: Pixels, heat: npt.NDArray[np.float32]) -> Pixels:
    """Photographs uint8 [V,3,H,W] above their heat maps [V,H,W], 0..1 on the color scale."""
    side = min(SIDE, images.shape[-1])
    photos = [_small(image.transpose(1, 2, 0), side) for image in images]
    heated = [heatmap_image(_small(h, side), photo) for h, photo in zip(heat, photos, strict=True)]
    picture: Pixels = np.concatenate([np.concatenate(photos, axis=1), np.concatenate(heated, axis=1)])
    return picture


def _small(image: npt.NDArray[Any], side: int) -> npt.NDArray[Any]:
    return cv2.resize(np.ascontiguousarray(image), (side, side), interpolation=cv2.INTER_AREA)
