"""Event handlers of a viewed part; each returns updates of Gradio components."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

import gradio as gr
import numpy as np
import numpy.typing as npt

from idif.app import html
from idif.app.messages import BROKEN, errors_as_sentences, hide_paths
from idif.app.options import settings_of
from idif.app.pictures import view_pictures
from idif.app.session import AppSession, Settings
from idif.app.slider import Slider
from idif.app.uploads import Upload, UploadError, discard
from idif.app.visits import Visits
from idif.data.index import NORMAL_CLASS
from idif.inference.photo_grouping import AUTO, PredictInput, is_automatic
from idif.inference.predict import Prediction
from idif.visualization.heatmap import color_limits
from idif.visualization.text import as_sentence

SESSIONS = 50
"""Most visits, and so parts, kept in memory and on the disk."""
NOT_GIVEN = "no photograph"
"""Choice of a camera without a photograph."""


@dataclass(frozen=True)
class Photographs:
    """A part on the server's disk, before it is predicted."""

    part: PredictInput
    names: Mapping[Path, str]
    """Photograph -> its name for display; of an upload also those that no camera has."""
    unclear: str | None = None
    """A sentence if the names do not tell which camera each photograph is of."""
    told: bool = True
    """Whether names tell all cameras."""
    label: str | None = None
    """Label of a test sample; None for an upload."""
    sample_id: str | None = None
    """Id of a test sample; None for an upload."""
    masks: npt.NDArray[np.bool_] | None = None
    """bool [V,S,S]: the labeled defects of a test sample; None where there are none."""


@dataclass
class ViewedSample:
    """The part that a visitor is viewing."""

    upload: Upload
    photos: Photographs
    part: PredictInput
    """The part of ``photos``, with its category."""
    prediction: Prediction
    readable: list[int]
    """Cameras whose photograph can be read."""
    cameras: list[int]
    """Cameras that are switched on."""
    scale: tuple[float, float]
    """(low, high) of the color scale."""
    settings: Settings
    """The options that it was predicted with."""


def forget(viewed: ViewedSample | None) -> None:
    """Delete a visit's photographs."""
    if viewed is not None:
        viewed.upload.remove()


class Handlers:
    """The page's event handlers, for one session."""

    def __init__(self, session: AppSession, visits: Visits | None = None) -> None:
        self.session, self.visits = session, visits or Visits(SESSIONS)
        self.cameras = {number: session.cameras.get(number, f"C{number}") for number in session.view_numbers}
        self.several = len(self.cameras) > 1
        """Whether the run has several cameras."""

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

        def load(upload: Upload) -> Photographs:
            try:
                upload.add(files)
            finally:
                discard(files, self.session.uploads)
            one = upload.one_part(
                self.session.view_numbers, self.session.categories, category, self.session.cameras
            )
            return Photographs(one.part, {path: path.name for path in one.files}, one.unclear, one.told)

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
        """Show a test sample; returns the updates of `_show`, which change nothing if it is shown already.

        A browser may say a choice again when the visitor leaves the control.
        """
        if viewed is not None and viewed.photos.sample_id == sample_id:
            return [gr.skip()] * (8 + len(self._assignment(viewed)))

        def load(upload: Upload) -> Photographs:
            part, sample = self.session.copy_sample(category, sample_id, upload)
            assert self.session.samples is not None
            label = "normal" if sample.anomaly_class == NORMAL_CLASS else sample.anomaly_class
            names = {
                path: PurePosixPath(view.source or view.image).name
                for path, view in zip(part.images, sample.views, strict=True)
                if path is not None and view is not None
            }
            masks = self.session.samples.masks(sample) if any(sample.has_mask) else None
            return Photographs(part, names, label=label, sample_id=sample_id, masks=masks)

        return self._show(load, opacity, viewed, settings, request, sample_id=sample_id)

    def _show(
        self,
        load: Callable[[Upload], Photographs],
        opacity: float,
        previous: ViewedSample | None,
        settings: Settings,
        request: gr.Request | None,
        sample_id: str | None = None,
        automatic: bool = False,
    ) -> list[Any]:
        """Predict a new part with all its cameras.

        Args:
            load: fills an empty upload and returns what it contains.
            opacity: of the maps.
            previous: the part viewed before; its photographs are deleted.
            settings: options to predict with; empty: the run's own.
            request: that of the visit; its photographs are deleted when it ends.
            sample_id: of a test sample.
            automatic: whether the selected category is ``auto``, and stays so.

        Returns:
            Updates of category, upload, sample, cameras, threshold, viewed sample, verdict and maps; in a run
            of several cameras also of the box of the cameras' photographs, and of each one's.
        """
        forget(previous)
        try:
            upload = Upload.make(self.session.uploads)
        except UploadError as error:
            return self._refused(error)
        try:
            with upload.as_upload_error():
                viewed = self._predicted(upload, load(upload), settings or self.session.defaults)
                trained = self.session.trained(viewed.part.category)
        except UploadError as error:
            upload.remove()
            return self._refused(error)
        except Exception as error:
            upload.remove()
            raise gr.Error(BROKEN) from error
        if request is not None:
            self.visits.hold(str(request.session_hash), upload)
        slider, category = Slider.of(trained), viewed.part.category
        return [
            gr.skip() if automatic else category,
            None,
            # the files of an upload may name another category than the selected one
            gr.skip() if automatic else gr.update(choices=self.sample_choices(category), value=sample_id),
            self._camera_choices(viewed),
            _slider_update(slider),
            viewed,
            self.verdict(viewed, slider.value),
            self.maps(viewed, opacity),
            *self._assignment(viewed),
        ]

    def _refused(self, error: UploadError) -> list[Any]:
        """The updates of `_show` that say why there is no part."""
        unchanged = [gr.skip()] * 3
        message = html.alert(str(error))
        return [gr.skip(), None, *unchanged, None, message, "", *self._assignment(None)]

    def _predicted(self, upload: Upload, photos: Photographs, settings: Settings) -> ViewedSample:
        """A part with all its cameras."""
        (part,) = self.session.recognized([photos.part])
        prediction = self.session.predict_with(part, self.session.view_numbers, settings)
        scale = self.session.trained(part.category).scale or _color_limits(prediction)
        views = zip(self.session.view_numbers, prediction.present, strict=True)
        readable = [number for number, present in views if present]
        shown = hide_paths(prediction, upload)
        return ViewedSample(upload, photos, part, shown, readable, list(readable), scale, settings)

    def _camera_choices(self, viewed: ViewedSample) -> Any:
        """Update of the cameras to switch: those that can be read, all on."""
        choices = [(self.cameras[number], number) for number in viewed.readable]
        return gr.update(choices=choices, value=viewed.cameras)

    def _assignment(self, viewed: ViewedSample | None) -> list[Any]:
        """Updates of the box of the cameras' photographs and of each one's; none for a run of one camera."""
        if not self.several:
            return []
        if viewed is None or viewed.photos.label is not None:
            return [gr.update(visible=False), *(gr.skip() for _ in self.cameras)]
        photos = viewed.photos
        return [gr.update(visible=True, open=not photos.told), *self._assigned(photos)]

    def _assigned(self, photos: Photographs) -> list[Any]:
        """Updates of each camera's photograph: the choices are all of the upload."""
        choices = [NOT_GIVEN, *photos.names.values()]
        given = [NOT_GIVEN if path is None else photos.names[path] for path in photos.part.images]
        return [gr.update(choices=choices, value=name) for name in given]

    def assign(
        self, camera: int, threshold: float, opacity: float, viewed: ViewedSample | None, chosen: str
    ) -> list[Any]:
        """Give a camera another photograph of the upload; one that had it gets the former one in exchange.

        Args:
            camera: its number.
            threshold: that of the page.
            opacity: of the maps.
            viewed: the part.
            chosen: name of the photograph, or `NOT_GIVEN`.

        Returns:
            Updates of cameras, viewed sample, verdict and maps, and of each camera's photograph.
        """
        if viewed is None:
            return [gr.skip(), None, self.verdict(None, threshold), "", *(gr.skip() for _ in self.cameras)]
        photos, slot = viewed.photos, self.session.view_numbers.index(camera)
        images = list(photos.part.images)
        path = next((path for path, name in photos.names.items() if name == chosen), None)
        if path is not None and path in images:
            images[images.index(path)] = images[slot]
        images[slot] = path
        photos = replace(photos, part=replace(photos.part, images=tuple(images)))
        with errors_as_sentences():
            changed = self._predicted(viewed.upload, photos, viewed.settings)
        return [
            self._camera_choices(changed),
            changed,
            self.verdict(changed, threshold),
            self.maps(changed, opacity),
            *self._assigned(photos),
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
        with errors_as_sentences():
            predicted = self.session.predict_with(viewed.part, cameras, viewed.settings)
        viewed.prediction = hide_paths(predicted, viewed.upload)
        return [viewed, self.verdict(viewed, threshold), self.maps(viewed, opacity)]

    def widen(self, category: str, threshold: float) -> list[Any]:
        """Update of the threshold slider, which a value beyond its ends widens, and the value."""
        automatic = category not in self.session.categories
        slider = self.slider(self.session.categories[0] if automatic else category)
        wide = slider.widened(float(threshold))
        update = gr.skip() if wide == slider else gr.update(minimum=wide.low, maximum=wide.high)
        return [update, round(float(threshold), slider.precision)]

    def verdict(self, viewed: ViewedSample | None, threshold: float, category: str = AUTO) -> str:
        """The verdict at a threshold, as HTML; without a part, what to do and a category's decisions."""
        if viewed is None:
            what = "photographs of a part" if self.several else "a photograph of a part"
            also = "" if self.session.samples is None else " or select a test sample"
            asked = html.note(f"Upload {what}{also}.")
            if is_automatic(category, self.session.categories):
                return asked
            limit = self.slider(category).exact(threshold)
            known = self.session.trained(category).decisions_at(limit)
            return asked if known is None else asked + html.note(as_sentence(known))
        slider = self.slider(viewed.part.category)
        trained = self.session.trained(viewed.part.category, viewed.settings)
        limit = slider.exact(threshold)
        said = html.verdict(
            viewed.prediction,
            limit,
            slider.run_threshold,
            viewed.photos.label,
            trained.otherwise,
            trained.decisions_at(limit, viewed.prediction.present),
        )
        return said + self._unassigned(viewed.photos)

    def _unassigned(self, photos: Photographs) -> str:
        """Why cameras are unclear, and the photographs that no camera has, as HTML."""
        given = {path for path in photos.part.images if path is not None}
        names = [name for path, name in photos.names.items() if path not in given]
        if not names:
            return ""
        why = "" if photos.unclear is None else f"{photos.unclear}. "
        here = "; choose one below the upload." if self.several else "."
        return html.alert(f"{why}Without a camera: {', '.join(names)}{here}")

    def maps(self, viewed: ViewedSample | None, opacity: float) -> str:
        """The pictures of every camera, with anomaly maps at an opacity, as HTML."""
        if viewed is None:
            return ""
        photos, prediction = viewed.photos, viewed.prediction
        shown = []
        for slot, (number, camera) in enumerate(self.cameras.items()):
            path = photos.part.images[slot]
            view = html.ShownView(
                camera if self.several else None, None if path is None else photos.names[path]
            )
            if path is None:
                view = view._replace(absent=NOT_GIVEN)
            elif not prediction.present[slot]:
                view = view._replace(absent="switched off" if number in viewed.readable else "cannot be read")
            else:
                mask = None if photos.masks is None else photos.masks[slot]
                view = view._replace(
                    score=float(prediction.view_scores[slot]),
                    pictures=view_pictures(prediction, slot, path, viewed.scale, opacity, mask),
                )
            shown.append(view)
        return html.views(shown, None if prediction.maps is None else viewed.scale)

    def choose(self, category: str, viewed: ViewedSample | None) -> list[Any]:
        """Another category: updates of the test samples, the threshold and, without a part, the verdict.

        The category ``auto`` has no samples.
        """
        if is_automatic(category, self.session.categories):
            said = gr.skip() if viewed else self.verdict(None, 0.0)
            return [gr.update(choices=[], value=None), gr.skip(), said]
        with errors_as_sentences():
            slider = self.slider(category)
        return [
            gr.update(choices=self.sample_choices(category), value=None),
            _slider_update(slider),
            gr.skip() if viewed else self.verdict(None, slider.value, category),
        ]

    def sample_choices(self, category: str) -> list[tuple[str, str]]:
        """(displayed name, sample id) of a category's test samples; imported ones have their files' names."""
        samples = self.session.samples
        of_category = () if samples is None else samples.by_category.get(category, ())
        choices = []
        for sample in of_category:
            source = next((view.source for view in sample.views if view is not None and view.source), None)
            name = (source or sample.sample_id).removeprefix(f"{category}/").removeprefix("test/")
            choices.append((name, sample.sample_id))
        return choices


def _slider_update(slider: Slider) -> Any:
    """Update of the threshold slider to a category's, at its initial value."""
    return gr.update(
        minimum=slider.low,
        maximum=slider.high,
        step=slider.step,
        precision=slider.precision,
        value=slider.value,
    )


def _color_limits(prediction: Prediction) -> tuple[float, float]:
    """(low, high) of the color scale of one part's maps."""
    maps = prediction.maps
    return (0.0, 1.0) if maps is None else color_limits(maps[prediction.present])
