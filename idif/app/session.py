"""What the page asks of a run: parts judged by any choice of cameras, and what they look like."""

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from idif.app.category_match import CategoryDistance, CategoryMatcher
from idif.app.uploads import Upload, UploadError
from idif.data.index import Sample
from idif.encoders.encode import EncoderSet
from idif.evaluation.scoring import Scorer
from idif.inference.photo_grouping import PredictInput
from idif.inference.predict import Prediction, Thresholds, predict

METHODS_KEPT = 4
"""Trained methods kept in memory; a run may hold one for each of many categories."""


@dataclass(frozen=True)
class Trained:
    """A category's method, and what evaluation found for it."""

    scorer: Scorer
    limits: Thresholds
    scale: tuple[float, float] | None
    """(low, high) of the colours; None takes each part's own."""
    scores: tuple[float, float] | None
    """Lowest and highest score of the test samples, for the slider; None where they are not known."""


@dataclass(frozen=True)
class TestSamples:
    """Samples to pick from, where the run's store or dataset is at hand."""

    of: Mapping[str, Sequence[Sample]]
    """By category."""
    images: Callable[[Sample], npt.NDArray[np.uint8]]
    """The clean images uint8 [V,3,S,S] of one."""


@dataclass
class AppSession:
    """One run, opened for the page; safe to ask from several threads."""

    encoders: EncoderSet
    view_numbers: tuple[int, ...]
    categories: tuple[str, ...]
    device: torch.device
    load: Callable[[str], Trained]
    """Opens a category's model."""
    samples: TestSamples | None
    known: CategoryMatcher | None
    """Stored features to compare with; None where there are none, or one category only."""
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _trained: OrderedDict[str, Trained] = field(default_factory=OrderedDict)

    def trained(self, category: str) -> Trained:
        """A category's model, loaded when it is first asked for."""
        with self._lock:
            if category not in self._trained:
                self._trained[category] = self.load(category)
            self._trained.move_to_end(category)
            while len(self._trained) > METHODS_KEPT:
                self._trained.popitem(last=False)
            return self._trained[category]

    def judge(self, parts: Sequence[PredictInput]) -> Iterator[Prediction]:
        """Judge parts of one category."""
        trained = self.trained(parts[0].category)
        with self._lock:
            yield from predict(trained.scorer, self.encoders, parts)

    def judge_by(self, part: PredictInput, cameras: Sequence[int]) -> Prediction:
        """Judge a part as if only these cameras had seen it."""
        kept = [
            path if number in cameras else None
            for number, path in zip(self.view_numbers, part.images, strict=True)
        ]
        (judged,) = self.judge([replace(part, images=tuple(kept))])
        return judged

    def looks_like(self, part: PredictInput) -> list[CategoryDistance]:
        """The run's categories by likeness, nearest first; none where there is nothing to compare with."""
        if self.known is None:
            return []
        with self._lock:
            return self.known.look(part, self.encoders, self.device)

    def take_sample(self, category: str, sample_id: str, into: Upload) -> tuple[PredictInput, Sample]:
        """A test sample as a part: its clean images are written into ``into``, without loss.

        Raises:
            Refused: there is no such sample.
        """
        assert self.samples is not None
        found = [s for s in self.samples.of.get(category, ()) if s.sample_id == sample_id]
        if not found:
            raise UploadError("This test sample is not one of the run's.")
        (sample,) = found
        slots = []
        images = self.samples.images(sample)
        for number, there, image in zip(self.view_numbers, sample.present, images, strict=True):
            path = into.folder / f"C{number}.png"
            if there:
                Image.fromarray(np.ascontiguousarray(image.transpose(1, 2, 0))).save(path)
            slots.append(path if there else None)
        return PredictInput(sample_id.replace("/", "_"), category, tuple(slots)), sample
