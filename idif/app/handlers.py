"""Event handlers of the page; each returns updates of Gradio components."""

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import gradio as gr

from idif.app import csv_table, html
from idif.app.options import settings_of
from idif.app.session import AppSession, Settings, Trained
from idif.app.uploads import Upload, UploadError, discard
from idif.app.visits import Visits
from idif.data.index import NORMAL_CLASS
from idif.inference.photo_grouping import PredictInput, is_automatic
from idif.inference.predict import Prediction, prediction_json
from idif.paths import portable_name
from idif.visualization.heatmap import color_limits

STEPS = 1000
"""Least number of steps of the threshold slider between the lowest and the highest score."""

MARGIN = 5
"""Steps beyond both ends: browsers round to steps, and stored features are rounded, uploads' are not."""


SESSIONS = 50
"""Most visits, and so parts, kept in memory and on the disk."""
BROKEN = "This could not be scored; the terminal of idif app says why."


@dataclass
class ViewedSample:
    """The part that a visitor is viewing."""

    upload: Upload
    part: PredictInput
    prediction: Prediction
    cameras: list[int]
    """Cameras that are switched on."""
    scale: tuple[float, float]
    """(low, high) of the color scale."""
    label: str | None
    """Label of a test sample; None for an upload."""
    settings: Settings
    """The options that it was predicted with."""


def forget(viewed: ViewedSample | None) -> None:
    """Delete a visit's photographs."""
    if viewed is not None:
        viewed.upload.remove()


@dataclass(frozen=True)
class Slider:
    """Range of a category's threshold slider."""

    low: float
    high: float
    step: float
    run_threshold: float | None
    """The threshold that evaluation chose, where the slider starts."""

    @classmethod
    def of(cls, trained: Trained) -> "Slider":
        """A slider over the range of the test scores or, if they are unknown, around the threshold."""
        threshold = trained.limits.part
        low, high = trained.scores or (0.0, 1.0 if threshold is None else 2 * threshold)
        ends = [low, high, *([] if threshold is None else [threshold])]
        low, high = min(ends), max(ends)
        # round ends and steps, so that the page shows short numbers
        digits = math.ceil(-math.log10(max(high - low, 1e-6) / STEPS))
        step = 10.0**-digits
        # + 0.0: no negative zero
        low, high = round(low - MARGIN * step, digits) + 0.0, round(high + MARGIN * step, digits) + 0.0
        return cls(low, high, step, threshold)

    def widened(self, value: float) -> "Slider":
        """A slider with the same steps whose range includes ``value``."""
        return replace(self, low=min(self.low, value), high=max(self.high, value))

    @property
    def value(self) -> float:
        """The initial value."""
        return (self.low + self.high) / 2 if self.run_threshold is None else self.run_threshold

    def exact(self, value: float) -> float:
        """The run's exact threshold if ``value`` is within a step of it, since browsers round to steps."""
        threshold = self.run_threshold
        return threshold if threshold is not None and abs(value - threshold) <= self.step else value


class Handlers:
    """The page's event handlers, for one session."""

    def __init__(self, session: AppSession, visits: Visits | None = None, title: str = "idif") -> None:
        self.title = portable_name(title)
        self.session, self.visits = session, visits or Visits(SESSIONS)

    def leave(self, request: gr.Request) -> None:
        """Delete the photographs of a visit whose page was closed."""
        self.visits.end(str(request.session_hash))

    def slider(self, category: str) -> Slider:
        """The threshold slider of a category."""
        return Slider.of(self.session.trained(category))

    def upload(
        self,
        files: list[str],
        category: str,
        opacity: float,
        viewed: ViewedSample | None,
        request: gr.Request | None = None,
        settings: Settings = (),
    ) -> list[Any]:
        """Show uploaded photographs of one part; returns the updates of `_show`."""

        def load(upload: Upload) -> tuple[PredictInput, str | None]:
            try:
                upload.add(files)
            finally:
                discard(files, self.session.uploads)
            parts = upload.parts(
                self.session.view_numbers, self.session.categories, category, self.session.cameras
            )
            if len(parts) > 1:
                raise UploadError(f"These are photographs of {len(parts)} parts; use the tab “Many parts”.")
            return parts[0], None

        automatic = is_automatic(category, self.session.categories)
        return self._show(load, opacity, viewed, settings, request, automatic=automatic)

    def pick(
        self,
        sample_id: str,
        category: str,
        opacity: float,
        viewed: ViewedSample | None,
        request: gr.Request | None = None,
        settings: Settings = (),
    ) -> list[Any]:
        """Show a test sample; returns the updates of `_show`."""

        def load(upload: Upload) -> tuple[PredictInput, str | None]:
            part, sample = self.session.copy_sample(category, sample_id, upload)
            return part, "normal" if sample.anomaly_class == NORMAL_CLASS else sample.anomaly_class

        return self._show(load, opacity, viewed, settings, request, sample_id=sample_id)

    def _show(
        self,
        load: Callable[[Upload], tuple[PredictInput, str | None]],
        opacity: float,
        previous: ViewedSample | None,
        settings: Settings,
        request: gr.Request | None,
        sample_id: str | None = None,
        automatic: bool = False,
    ) -> list[Any]:
        """Predict a new part with all its cameras.

        Args:
            load: fills an empty upload; returns the part and its label, if it is known.
            opacity: of the maps.
            previous: the part viewed before; its photographs are deleted.
            settings: options to predict with; empty: the run's own.
            request: that of the visit; its photographs are deleted when it ends.
            sample_id: of a test sample.
            automatic: whether the selected category is ``auto``, and stays so.

        Returns:
            Updates of category, upload, sample, cameras, threshold, viewed sample, verdict and maps.
        """
        forget(previous)
        unchanged = [gr.skip()] * 3
        try:
            upload = Upload.make(self.session.uploads)
        except UploadError as error:
            return [gr.skip(), None, *unchanged, None, html.alert(str(error)), ""]
        try:
            part, label = load(upload)
            with upload.as_upload_error():
                settings = settings or self.session.defaults
                (part,) = self.session.recognized([part])
                prediction = self.session.predict_with(part, self.session.view_numbers, settings)
                trained = self.session.trained(part.category)
        except UploadError as error:
            upload.remove()
            return [gr.skip(), None, *unchanged, None, html.alert(str(error)), ""]
        except Exception as error:
            upload.remove()
            raise gr.Error(BROKEN) from error
        if request is not None:
            self.visits.hold(str(request.session_hash), upload)
        scale = trained.scale or _color_limits(prediction)
        views = zip(self.session.view_numbers, prediction.present, strict=True)
        cameras = [number for number, present in views if present]
        viewed = ViewedSample(upload, part, _hide_paths(prediction, upload), cameras, scale, label, settings)
        slider = Slider.of(trained)
        return [
            gr.skip() if automatic else part.category,
            None,
            # the files of an upload may name another category than the selected one
            gr.skip()
            if automatic
            else gr.update(choices=self.sample_choices(part.category), value=sample_id),
            cameras,
            gr.update(minimum=slider.low, maximum=slider.high, step=slider.step, value=slider.value),
            viewed,
            self.verdict(viewed, slider.value),
            self.maps(viewed, opacity),
        ]

    def change(
        self,
        cameras: list[int],
        threshold: float,
        opacity: float,
        viewed: ViewedSample | None,
        *values: bool | int | str,
    ) -> list[Any]:
        """Predict with other options: updates of settings, viewed sample, verdict and maps."""
        settings = settings_of(self.session.options, values)
        return [settings, *self.switch(cameras, threshold, opacity, viewed, settings)]

    def switch(
        self,
        cameras: list[int],
        threshold: float,
        opacity: float,
        viewed: ViewedSample | None,
        settings: Settings = (),
    ) -> list[Any]:
        """Predict with other cameras: updates of viewed sample, verdict and maps."""
        if viewed is None:
            return [None, self.verdict(None, threshold), ""]
        viewed.cameras, viewed.settings = cameras, settings or self.session.defaults
        with _as_sentence():
            predicted = self.session.predict_with(viewed.part, cameras, viewed.settings)
        viewed.prediction = _hide_paths(predicted, viewed.upload)
        return [viewed, self.verdict(viewed, threshold), self.maps(viewed, opacity)]

    def widen(self, category: str, threshold: float) -> Any:
        """Update of the threshold slider, which a value beyond its ends widens."""
        automatic = category not in self.session.categories
        slider = self.slider(self.session.categories[0] if automatic else category)
        wide = slider.widened(float(threshold))
        return gr.skip() if wide == slider else gr.update(minimum=wide.low, maximum=wide.high)

    def verdict(self, viewed: ViewedSample | None, threshold: float) -> str:
        """The verdict at a threshold, as HTML."""
        if viewed is None:
            return html.note("Upload photographs of a part or select a test sample.")
        slider = self.slider(viewed.part.category)
        otherwise = self.session.trained(viewed.part.category, viewed.settings).otherwise
        return html.verdict(
            viewed.prediction, slider.exact(threshold), slider.run_threshold, viewed.label, otherwise
        )

    def maps(self, viewed: ViewedSample | None, opacity: float) -> str:
        """The anomaly maps at an opacity, as HTML."""
        if viewed is None:
            return ""
        numbers = self.session.view_numbers
        files = {n: path.name for n, path in zip(numbers, viewed.part.images, strict=True) if path}
        names = {number: self.session.cameras.get(number, f"C{number}") for number in numbers}
        if viewed.label is None:  # files of test samples are the page's own
            names |= {number: f"{names[number]}: {file}" for number, file in files.items()}
        return html.tiles(viewed.prediction, names, viewed.scale, opacity, viewed.cameras, list(files))

    def choose(self, category: str) -> list[Any]:
        """Another category: updates of the test samples and the threshold; ``auto`` has no samples."""
        if is_automatic(category, self.session.categories):
            return [gr.update(choices=[], value=None), gr.skip()]
        with _as_sentence():
            slider = self.slider(category)
        return [
            gr.update(choices=self.sample_choices(category), value=None),
            gr.update(minimum=slider.low, maximum=slider.high, step=slider.step, value=slider.value),
        ]

    def sample_choices(self, category: str) -> list[tuple[str, str]]:
        """(displayed name, sample id) of a category's test samples."""
        samples = self.session.samples
        of_category = () if samples is None else samples.by_category.get(category, ())
        return [(s.sample_id.removeprefix(f"{category}/"), s.sample_id) for s in of_category]

    def many(
        self,
        files: list[str] | None,
        category: str,
        progress: Any = gr.Progress(),  # noqa: B008
        settings: Settings = (),
        threshold: float | None = None,
    ) -> list[Any]:
        """Predict photographs of many parts: updates of the upload and the table.

        Args:
            files: photographs and archives.
            category: the selected one.
            progress: shown meanwhile.
            settings: options to predict with; empty: the run's own.
            threshold: that of the page, for parts of the selected category; others have the run's own.
        """
        if not files:
            return [None, html.alert("Select photographs or a zip archive of photographs first.")]
        try:
            upload = Upload.make(self.session.uploads)
        except UploadError as error:
            return [None, html.alert(str(error))]
        try:
            try:
                upload.add(files)
            finally:
                discard(files, self.session.uploads)
            numbers, results = self.session.view_numbers, list[Mapping[str, Any]]()
            parts = upload.parts(numbers, self.session.categories, category, self.session.cameras)
            if any(is_automatic(part.category, self.session.categories) for part in parts):
                parts = self.session.recognized(parts)
            for name in dict.fromkeys(part.category for part in parts):
                with _as_sentence():
                    limits = self.session.trained(name).limits
                    slider = self.slider(name)
                    # without a threshold of the run, the slider's initial value is nobody's decision
                    chosen_here = slider.run_threshold is not None or threshold != slider.value
                    if threshold is not None and name == category and chosen_here:
                        limits = replace(limits, part=slider.exact(threshold))
                    chosen = [part for part in parts if part.category == name]
                    for prediction in self.session.predict(chosen, settings or None):
                        results.append(prediction_json(_hide_paths(prediction, upload), numbers, limits))
                        progress((len(results), len(parts)), unit="parts")
        except UploadError as error:
            return [None, html.alert(str(error))]
        finally:
            upload.remove()
        header = csv_table.columns(numbers)
        rows = [csv_table.row(result, numbers) for result in csv_table.ranked(results)]
        return [None, html.table(header, rows, csv_table.to_csv(header, rows), f"{self.title}.csv")]


@contextmanager
def _as_sentence() -> Iterator[None]:
    """Translate every error to one that Gradio shows as a sentence; the terminal has the details."""
    try:
        yield
    except (UploadError, gr.Error):
        raise
    except Exception as error:
        raise gr.Error(BROKEN) from error


def _color_limits(prediction: Prediction) -> tuple[float, float]:
    """(low, high) of the color scale of one part's maps."""
    maps = prediction.maps
    return (0.0, 1.0) if maps is None else color_limits(maps[prediction.present])


def _hide_paths(prediction: Prediction, upload: Upload) -> Prediction:
    """``prediction`` with problems that contain no path of the server."""
    return replace(prediction, problems=tuple(map(upload.hide_paths, prediction.problems)))
