"""A run opened for the web page: predicts uploaded parts with any choice of cameras."""

from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from idif.app.uploads import Upload, UploadError
from idif.app.visits import FairLock
from idif.data.images import uncropped, write_picture
from idif.data.index import Sample
from idif.encoders.encode import EncoderSet
from idif.evaluation.scoring import Scorer
from idif.inference.category_probe import CategoryProbe
from idif.inference.photo_grouping import PredictInput, is_automatic
from idif.inference.predict import Prediction, Thresholds, predict
from idif.methods.section import InferenceOption
from idif.runs.fitted import EvaluatedDecision

Settings = tuple[tuple[str, bool | int | str], ...]
"""(key below ``method``, value) of each of the run's options of inference."""

MAX_LOADED = 4
"""Trained methods kept in memory; a run may have one for each of many categories."""


@dataclass(frozen=True)
class Trained:
    """A category's trained method with the results of its evaluation."""

    scorer: Scorer
    limits: Thresholds
    scale: tuple[float, float] | None
    """(low, high) of the color scale; None uses each part's own."""
    scores: tuple[float, float] | None
    """Lowest and highest score of the test samples, the range of the slider; None if unknown."""
    otherwise: str | None = None
    """A sentence if the evaluation was one with other settings; None if not."""
    evaluated: EvaluatedDecision | None = None
    """Decisions of the evaluation's threshold on its samples; None if they are unknown."""

    def holds_at(self, threshold: float) -> bool:
        """Whether the decisions of the evaluation hold at a threshold, with these settings."""
        return (
            self.evaluated is not None
            and self.otherwise is None
            and threshold == self.evaluated.decisions.threshold
        )

    def decisions_at(self, threshold: float, present: npt.NDArray[np.bool_] | None = None) -> str | None:
        """Misses and false alarms of the evaluation, and whether they hold here; None if they are unknown.

        Args:
            threshold: in use.
            present: bool [V]: the views of the part in question.
        """
        if self.evaluated is None:
            return None
        known = self.evaluated.decisions
        found = f"on the {self.evaluated.split} samples, {known.sentence()}"
        if self.otherwise is not None:
            unknown = "misses and false alarms with these settings are unknown"
            return f"{unknown}; with those of the evaluation, {found}"
        if not self.holds_at(threshold):
            return f"misses and false alarms at {threshold:.4g} are unknown; {found}"
        if present is not None and not present.all():
            return f"{found}; with {present.sum()} of {present.size} cameras they may be others"
        return found


@dataclass(frozen=True)
class TestSamples:
    """Test samples to select on the page; needs the run's store or dataset."""

    by_category: Mapping[str, Sequence[Sample]]
    images: Callable[[Sample], npt.NDArray[np.uint8]]
    """Loads the clean images uint8 [V,3,S,S] of one sample."""
    masks: Callable[[Sample], npt.NDArray[np.bool_]]
    """Loads the defect masks bool [V,S,S] of one sample."""


@dataclass
class AppSession:
    """One opened run; safe to use from several threads."""

    encoders: EncoderSet
    view_numbers: tuple[int, ...]
    categories: tuple[str, ...]
    device: torch.device
    load: Callable[[str, Settings], Trained]
    """Loads a category's trained method with the given settings."""
    samples: TestSamples | None
    probe: CategoryProbe | None
    """Tells the category of photographs; None where the run has one category, or no probe."""
    options: tuple[InferenceOption, ...] = ()
    """The settings that a visitor may change."""
    defaults: Settings = ()
    """The run's own values of them."""
    uploads: Path | None = None
    """Folder of all visits' photographs; the system's temporary folder when None."""
    cameras: Mapping[int, str] = field(default_factory=dict)
    """Camera number -> its name in the source of the training data, where it has one."""
    _lock: FairLock = field(default_factory=FairLock)
    _trained: OrderedDict[tuple[str, Settings], Trained] = field(default_factory=OrderedDict)

    def trained(self, category: str, settings: Settings | None = None) -> Trained:
        """A category's trained method, loaded on first use; None: with the run's own settings."""
        key = category, self.defaults if settings is None else settings
        with self._lock:
            if key not in self._trained:
                self._trained[key] = self.load(*key)
            self._trained.move_to_end(key)
            while len(self._trained) > MAX_LOADED:
                self._trained.popitem(last=False)
            return self._trained[key]

    def predict(
        self, parts: Sequence[PredictInput], settings: Settings | None = None, *, rebuild: bool = False
    ) -> Iterator[Prediction]:
        """Predict parts of one category, batch by batch, so that other visitors get their turn in between.

        Args:
            parts: at least one.
            settings: see `trained`.
            rebuild: whether to give the images that the method rebuilds, too.
        """
        trained = self.trained(parts[0].category, settings)
        size = trained.scorer.config.batch_size
        for start in range(0, len(parts), size):
            some = parts[start : start + size]
            with self._lock:
                predicted = list(predict(trained.scorer, self.encoders, some, rebuild=rebuild))
            yield from predicted  # without the lock: the receiver may take its time

    def predict_with(
        self, part: PredictInput, cameras: Sequence[int], settings: Settings | None = None
    ) -> Prediction:
        """Predict a part with the photographs of these cameras only, and rebuild its images if possible."""
        images = [
            path if number in cameras else None
            for number, path in zip(self.view_numbers, part.images, strict=True)
        ]
        (prediction,) = self.predict([replace(part, images=tuple(images))], settings, rebuild=True)
        return prediction

    def recognized(self, parts: Sequence[PredictInput]) -> list[PredictInput]:
        """The parts with the categories' probabilities; those of the category ``auto`` with the most probable
        one.

        Raises:
            UploadError: none of the photographs of a part of the category ``auto`` can be read.
        """
        if self.probe is None:
            return list(parts)
        with self._lock:
            told = list(self.probe.recognize(parts, self.encoders, self.device))
        shown = []
        for part, guess in zip(parts, told, strict=True):
            automatic = is_automatic(part.category, self.categories)
            if automatic and guess.probabilities is None:
                raise UploadError(
                    f"{part.name}: no photograph of it can be read, so its category is unknown."
                )
            shown.append(guess if automatic else replace(guess, category=part.category))
        return shown

    def copy_sample(self, category: str, sample_id: str, upload: Upload) -> tuple[PredictInput, Sample]:
        """A test sample as a part; its clean images are written into the upload's folder, as PNG.

        Raises:
            UploadError: there is no such sample, or its images cannot be written.
        """
        assert self.samples is not None
        samples = self.samples.by_category.get(category, ())
        sample = next((s for s in samples if s.sample_id == sample_id), None)
        if sample is None:
            raise UploadError("The run has no such test sample.")
        paths = []
        # as the photographs they were cut from, since `predict` crops them again
        images = uncropped(self.samples.images(sample), self.encoders.image_reader.crop_from)
        for number, present, image in zip(self.view_numbers, sample.present, images, strict=True):
            path = upload.folder / f"C{number}.png"
            if present:
                with upload.as_upload_error():
                    write_picture(path, Image.fromarray(np.ascontiguousarray(image.transpose(1, 2, 0))))
            paths.append(path if present else None)
        return PredictInput(sample_id.replace("/", "_"), category, tuple(paths)), sample
