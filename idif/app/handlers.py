"""What happens when a visitor touches the page: every answer, as updates of Gradio's components."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import gradio as gr

from idif.app import csv_table, html
from idif.app.category_match import CategoryDistance
from idif.app.session import AppSession, Trained
from idif.app.uploads import Upload, UploadError
from idif.data.index import NORMAL_CLASS
from idif.inference.photo_grouping import PredictInput
from idif.inference.predict import Prediction, prediction_json
from idif.visualization.heatmap import color_limits

STEPS = 1000
"""Of the threshold slider, at least, from the lowest score to the highest."""

MARGIN = 5
"""Steps beyond both ends: a browser rounds to steps, and stored features are rounded, an upload's are not."""


@dataclass
class ViewedSample:
    """The part a visitor looks at."""

    received: Upload
    part: PredictInput
    judged: Prediction
    cameras: list[int]
    scale: tuple[float, float]
    truth: str | None
    looks: list[CategoryDistance]


def forget(seen: ViewedSample | None) -> None:
    """Delete a visit's photographs."""
    if seen is not None:
        seen.received.remove()


@dataclass(frozen=True)
class Slider:
    """Range of a category's threshold slider."""

    low: float
    high: float
    step: float
    own: float | None
    """The run's threshold, where the slider begins."""

    @classmethod
    def of(cls, trained: Trained) -> "Slider":
        """From the test scores where they are known, and around the threshold where they are not."""
        own = trained.limits.part
        low, high = trained.scores or (0.0, 1.0 if own is None else 2 * own)
        ends = [low, high, *([] if own is None else [own])]
        low, high = min(ends), max(ends)
        # round ends and steps, so that the page shows short numbers
        digits = math.ceil(-math.log10(max(high - low, 1e-6) / STEPS))
        step = 10.0**-digits
        low, high = round(low - MARGIN * step, digits), round(high + MARGIN * step, digits)
        return cls(low, high, step, own)

    @property
    def value(self) -> float:
        """Where it begins."""
        return (self.low + self.high) / 2 if self.own is None else self.own

    def exact(self, value: float) -> float:
        """The run's own threshold where the slider stands on it: a browser rounds to whole steps."""
        return self.own if self.own is not None and abs(value - self.own) <= self.step else value


class Handlers:
    """What happens when a visitor does something; every method answers one event."""

    def __init__(self, desk: AppSession) -> None:
        self.desk = desk

    def slider(self, category: str) -> Slider:
        """The threshold slider of a category."""
        return Slider.of(self.desk.trained(category))

    def upload(self, files: list[str], category: str, opacity: float, seen: ViewedSample | None) -> list[Any]:
        """Photographs of one part; answers as `_begin`."""

        def take(received: Upload) -> tuple[PredictInput, str | None]:
            received.take(files)
            parts = received.parts(self.desk.view_numbers, self.desk.categories, category)
            if len(parts) > 1:
                raise UploadError(f"These are photographs of {len(parts)} parts; take them to “Many parts”.")
            return parts[0], None

        return self._begin(take, opacity, seen)

    def pick(self, sample_id: str, category: str, opacity: float, seen: ViewedSample | None) -> list[Any]:
        """A test sample; answers as `_begin`."""

        def take(received: Upload) -> tuple[PredictInput, str | None]:
            part, sample = self.desk.take_sample(category, sample_id, received)
            return part, "normal" if sample.anomaly_class == NORMAL_CLASS else sample.anomaly_class

        return self._begin(take, opacity, seen, picked=sample_id)

    def _begin(
        self,
        take: Callable[[Upload], tuple[PredictInput, str | None]],
        opacity: float,
        old: ViewedSample | None,
        picked: str | None = None,
    ) -> list[Any]:
        """Judge a new part with all its cameras.

        Returns:
            Updates of category, upload, sample, cameras, threshold, what is seen, verdict and pictures.
        """
        forget(old)
        received = Upload.make()
        try:
            part, truth = take(received)
            with received.as_upload_error():
                judged = self.desk.judge_by(part, self.desk.view_numbers)
                looks = self.desk.looks_like(part)
        except UploadError as refused:
            received.remove()
            kept = [gr.skip()] * 3
            return [gr.skip(), None, *kept, None, html.trouble(str(refused)), ""]
        trained = self.desk.trained(part.category)
        own = (0.0, 1.0) if judged.maps is None else color_limits(judged.maps[judged.present])
        scale = trained.scale or own
        cameras = [n for n, there in zip(self.desk.view_numbers, judged.present, strict=True) if there]
        seen = ViewedSample(received, part, _hide_paths(judged, received), cameras, scale, truth, looks)
        slider = Slider.of(trained)
        return [
            part.category,
            None,
            # an upload's name may have told another category than the one chosen
            gr.update(choices=self.sample_choices(part.category), value=picked),
            cameras,
            gr.update(minimum=slider.low, maximum=slider.high, step=slider.step, value=slider.value),
            seen,
            self.verdict(seen, slider.value),
            self.pictures(seen, opacity),
        ]

    def switch(
        self, cameras: list[int], threshold: float, opacity: float, seen: ViewedSample | None
    ) -> list[Any]:
        """Cameras switched on or off: updates of what is seen, verdict and pictures."""
        if seen is None:
            return [None, self.verdict(None, threshold), ""]
        seen.cameras = cameras
        seen.judged = _hide_paths(self.desk.judge_by(seen.part, cameras), seen.received)
        return [seen, self.verdict(seen, threshold), self.pictures(seen, opacity)]

    def verdict(self, seen: ViewedSample | None, threshold: float) -> str:
        """The verdict at a threshold."""
        if seen is None:
            return html.note("Upload the photographs of a part, or pick a test sample.")
        slider = self.slider(seen.part.category)
        return html.verdict(seen.judged, slider.exact(threshold), slider.own, seen.truth, seen.looks)

    def pictures(self, seen: ViewedSample | None, opacity: float) -> str:
        """The pictures at an opacity."""
        if seen is None:
            return ""
        return html.tiles(seen.judged, self.desk.view_numbers, seen.scale, opacity, seen.cameras)

    def choose(self, category: str) -> list[Any]:
        """Another category: updates of the test samples and the threshold."""
        slider = self.slider(category)
        return [
            gr.update(choices=self.sample_choices(category), value=None),
            gr.update(minimum=slider.low, maximum=slider.high, step=slider.step, value=slider.value),
        ]

    def sample_choices(self, category: str) -> list[tuple[str, str]]:
        """(what is shown, sample id) of a category's test samples."""
        samples = () if self.desk.samples is None else self.desk.samples.of.get(category, ())
        return [(_sample_label(s.sample_id, category), s.sample_id) for s in samples]

    def many(self, files: list[str] | None, category: str, progress: Any = gr.Progress()) -> list[Any]:  # noqa: B008
        """Photographs of many parts: updates of the upload and of the table."""
        if not files:
            return [None, html.trouble("Choose photographs, or a zip archive of them, first.")]
        received = Upload.make()
        try:
            received.take(files)
            numbers, rows = self.desk.view_numbers, []
            parts = received.parts(numbers, self.desk.categories, category)
            for name in dict.fromkeys(part.category for part in parts):
                mine = [part for part in parts if part.category == name]
                limits = self.desk.trained(name).limits
                for judged in self.desk.judge(mine):
                    result = prediction_json(_hide_paths(judged, received), numbers, limits)
                    rows.append(csv_table.row(result, numbers))
                    progress((len(rows), len(parts)), unit="parts")
        except UploadError as refused:
            return [None, html.trouble(str(refused))]
        finally:
            received.remove()
        head = csv_table.columns(numbers)
        return [None, html.table(head, rows, csv_table.to_csv(head, rows))]


def _hide_paths(judged: Prediction, received: Upload) -> Prediction:
    """``judged`` with its problems told without paths."""
    told = tuple(received.hide_paths(problem) for problem in judged.problems)
    return Prediction(judged.part, judged.present, judged.view_scores, judged.score, judged.maps, told)


def _sample_label(sample_id: str, category: str) -> str:
    return sample_id.removeprefix(f"{category}/")
