"""The table of many parts: their scoring, and the decisions that follow the threshold of the page."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import gradio as gr

from idif.app import html
from idif.app.messages import errors_as_sentences, hide_paths
from idif.app.session import AppSession, Settings
from idif.app.slider import Slider
from idif.app.uploads import Upload, UploadError, discard
from idif.inference.photo_grouping import is_automatic
from idif.inference.predict import Thresholds, prediction_json
from idif.inference.results_table import Result, counts, decided_at, results_csv, summary
from idif.paths import portable_name

OWN_THRESHOLD = "chosen on the page"
"""Origin of a threshold that is not the run's."""


@dataclass(frozen=True)
class ScoredParts:
    """The parts of the table, whose decisions follow the threshold."""

    results: tuple[Result, ...]
    settings: Settings
    """Those they were scored with."""


class ManyParts:
    """The event handlers of the table, for one session."""

    def __init__(self, session: AppSession, cameras: Mapping[int, str], title: str = "idif") -> None:
        """Handlers of a session.

        Args:
            session: the opened run.
            cameras: {number: name for display}.
            title: of the page; the saved table is named after it.
        """
        self.session, self.cameras, self.title = session, cameras, portable_name(title)

    def score(
        self,
        files: list[str] | None,
        category: str,
        progress: Any = gr.Progress(),  # noqa: B008
        settings: Settings = (),
        threshold: float | None = None,
    ) -> list[Any]:
        """Predict photographs of many parts: updates of the upload, the table and the scored parts.

        Args:
            files: photographs and archives.
            category: the selected one.
            progress: shown meanwhile.
            settings: options to predict with; empty: the run's own.
            threshold: that of the page, for parts of the selected category; others have the run's own.
        """
        if not files:
            return [None, html.alert("Select photographs or a zip archive of photographs first."), None]
        try:
            upload = Upload.make(self.session.uploads)
        except UploadError as error:
            return [None, html.alert(str(error)), None]
        try:
            try:
                upload.add(files)
            finally:
                discard(files, self.session.uploads)
            numbers, results = self.session.view_numbers, list[Result]()
            parts = upload.parts(numbers, self.session.categories, category, self.session.cameras)
            if any(is_automatic(part.category, self.session.categories) for part in parts):
                parts = self.session.recognized(parts)
            for name in dict.fromkeys(part.category for part in parts):
                with errors_as_sentences():
                    limits = self.session.trained(name).limits
                    chosen = [part for part in parts if part.category == name]
                    for prediction in self.session.predict(chosen, settings or None):
                        result = prediction_json(hide_paths(prediction, upload), numbers, limits)
                        results.append(_with_plain_files(result, upload))
                        progress((len(results), len(parts)), unit="parts")
        except UploadError as error:
            return [None, html.alert(str(error)), None]
        finally:
            upload.remove()
        scored = ScoredParts(tuple(results), settings)
        return [None, self.decide(scored, category, threshold), scored]

    def decide(self, scored: ScoredParts | None, category: str, threshold: float | None) -> Any:
        """The table of the parts that `score` predicted; without any an update that changes nothing.

        Args:
            scored: the parts.
            category: the selected one.
            threshold: that of the page, for parts of the selected category; others have the run's own.
        """
        if scored is None:
            return gr.skip()
        with errors_as_sentences():
            names = dict.fromkeys(result["category"] for result in scored.results)
            limits = {name: self._limits_at(name, category, threshold) for name in names}
            results = []
            for result in scored.results:
                decisive = limits[result["category"]]
                results.append(decided_at(result, decisive.part, decisive.origin))
            notes = [summary(results)]
            for name, decisive in limits.items() if len(limits) == 1 else ():
                if decisive.part is None:
                    continue
                trained = self.session.trained(name, scored.settings or None)
                if (known := trained.decisions_at(decisive.part)) is not None:
                    notes = [counts(results) if trained.holds_at(decisive.part) else summary(results), known]
        saved = results_csv(results, self.cameras)
        return html.results(results, self.cameras, saved, f"{self.title}.csv", notes)

    def _limits_at(self, name: str, selected: str, threshold: float | None) -> Thresholds:
        """The thresholds of a category: with that of the page for the selected one."""
        trained = self.session.trained(name)
        recorded, slider = trained.limits, Slider.of(trained)
        # without a threshold of the run, the slider's initial value is nobody's decision
        chosen_here = slider.run_threshold is not None or threshold != slider.value
        if threshold is None or name != selected or not chosen_here:
            return recorded
        return _limits(recorded, slider.exact(threshold))


def _limits(recorded: Thresholds, threshold: float) -> Thresholds:
    """The run's thresholds with that of the page for parts."""
    if threshold == recorded.part:
        return recorded
    return replace(recorded, part=threshold, origin=OWN_THRESHOLD)


def _with_plain_files(result: Result, upload: Upload) -> Result:
    """A result whose photographs are named without the folder of the upload."""
    views = result["views"].items()
    return {**result, "views": {n: view | {"image": upload.hide_paths(view["image"])} for n, view in views}}
