"""The page: Gradio components, their events, and the server."""

import sys
import traceback
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import gradio as gr
import gradio.queueing
import gradio.routes
import gradio.utils
from starlette.middleware import Middleware

from idif.app import html
from idif.app.guard import Guard
from idif.app.handlers import NOT_GIVEN, SESSIONS, Handlers, forget
from idif.app.many_parts import ManyParts
from idif.app.options import controls
from idif.app.session import AppSession
from idif.app.uploads import PHOTO_MB, UPLOAD_MB
from idif.data.images import SUFFIXES
from idif.inference.photo_grouping import AUTO
from idif.paths import shown
from idif.visualization.heatmap import OPACITY

USER = "idif"
"""User name, if a password is set."""
FORGOTTEN_AFTER = 3600
"""Seconds without activity until a visit's uploads are deleted."""


def build(session: AppSession, title: str, notes: Sequence[str]) -> gr.Blocks:
    """The page of a run.

    Args:
        session: the opened run.
        title: of the page.
        notes: the run's caveats, and what this page cannot do and why.
    """
    handlers, first = Handlers(session), session.categories[0]
    many_parts = ManyParts(session, handlers.cameras, title)
    slider = handlers.slider(first)
    several, choices = handlers.several, [(name, number) for number, name in handlers.cameras.items()]
    automatic = [] if session.probe is None or AUTO in session.categories else [AUTO]
    page = gr.Blocks(
        title=f"idif: {title}",
        analytics_enabled=False,
        delete_cache=(FORGOTTEN_AFTER, FORGOTTEN_AFTER),
        fill_width=True,
    )
    private: dict[str, Any] = {"api_visibility": "private"}
    with page:
        gr.HTML(html.heading(title, notes))
        with gr.Row(visible=len(session.categories) > 1):
            with gr.Column(scale=1, min_width=280):
                category = gr.Dropdown(
                    [*automatic, *session.categories],
                    value=first,
                    label="Category",
                    info="Used if a file name does not contain the category."
                    + (f" {AUTO}: the photographs tell it." if automatic else ""),
                )
            gr.Column(scale=3, min_width=320)
        with gr.Tab("One part"), gr.Row(elem_id="one-part"):
            with gr.Column(scale=1, min_width=280):
                uploaded = gr.File(
                    label="Photographs of one part" if several else "Photograph of one part",
                    file_count="multiple",
                    file_types=list(SUFFIXES),
                    height=150,
                    elem_id="upload",
                )
                gr.HTML(html.note(_upload_hint(handlers)))
                sample = gr.Dropdown(
                    handlers.sample_choices(first),
                    value=None,
                    label="Or a test sample",
                    visible=session.samples is not None,
                    elem_id="sample",
                )
                assigned: list[Any] = []
                if several:
                    title = "Photographs and cameras"
                    with gr.Accordion(title, open=False, visible=False, elem_id="assignment") as assignment:
                        assigned = [
                            gr.Dropdown(
                                [NOT_GIVEN], value=NOT_GIVEN, label=name, elem_id=f"photograph-{number}"
                            )
                            for number, name in handlers.cameras.items()
                        ]
                with gr.Group(elem_id="controls"):
                    cameras = gr.CheckboxGroup(
                        choices,
                        value=list(session.view_numbers),
                        label="Cameras",
                        info="Without one the part is scored as if that camera had failed.",
                        visible=several,
                        elem_id="cameras",
                    )
                    threshold = gr.Slider(
                        slider.low,
                        slider.high,
                        value=slider.value,
                        step=slider.step,
                        precision=slider.precision,
                        label="Threshold",
                        info="Scores from this value on are anomalous.",
                        buttons=[],
                        elem_id="threshold",
                    )
                    options = controls(session.options, session.defaults)
                    opacity = gr.Slider(
                        0, 1, value=OPACITY, step=0.02, label="Opacity of the maps", buttons=[]
                    )
            with gr.Column(scale=3, min_width=320):
                verdict = gr.HTML(handlers.verdict(None, slider.value, first), elem_id="verdict")
                maps = gr.HTML(elem_id="maps")
        with gr.Tab("Many parts"):
            gr.HTML(html.note(_many_hint(handlers)))
            archive = gr.File(
                label=f"Photographs or a zip archive, up to {UPLOAD_MB} MB",
                file_count="multiple",
                file_types=[*SUFFIXES, ".zip"],
                height=170,
                elem_id="archive",
            )
            start = gr.Button("Score all parts", variant="primary")
            results = gr.HTML(elem_id="results")
        viewed = gr.State(None, time_to_live=FORGOTTEN_AFTER, delete_callback=forget)
        settings = gr.State(session.defaults)
        scored = gr.State(None, time_to_live=FORGOTTEN_AFTER)
        chosen = gr.State(slider.value)
        shown = [category, uploaded, sample, cameras, threshold, viewed, verdict, maps]
        shown += [assignment, *assigned] if several else []
        uploaded.upload(handlers.upload, [uploaded, category, opacity, viewed, settings], shown, **private)
        sample.input(handlers.pick, [sample, category, opacity, viewed, settings], shown, **private)
        # An event that comes while the one before runs is handled after it; Gradio's default would drop it,
        # and the page would show the control's new value beside what follows from the old one.
        last: dict[str, Any] = {"trigger_mode": "always_last", **private}
        latest = {"show_progress": "hidden", **last}
        category.input(handlers.choose, [category, viewed], [sample, threshold, verdict], **last)
        cameras.input(
            handlers.switch,
            [cameras, threshold, opacity, viewed, settings],
            [viewed, verdict, maps],
            **latest,
        )
        for number, photograph in zip(handlers.cameras, assigned, strict=bool(assigned)):
            photograph.input(
                partial(handlers.assign, number),
                [threshold, opacity, viewed, photograph],
                [cameras, viewed, verdict, maps, *assigned],
                **private,
            )
        for option in options:
            option.input(
                handlers.change,
                [cameras, threshold, opacity, viewed, *options],
                [settings, viewed, verdict, maps],
                **last,
            )
        # Gradio's preprocessing refuses a typed value beyond the slider's ends, so they are moved without it.
        # What follows reads the value of that moment: the slider may hold a next one beyond its ends by now.
        threshold.input(
            handlers.widen, [category, threshold], [threshold, chosen], preprocess=False, **latest
        ).then(handlers.verdict, [viewed, chosen, category], verdict, **latest).then(
            many_parts.decide, [scored, category, chosen], results, **latest
        )
        opacity.input(handlers.maps, [viewed, opacity], maps, **latest)
        start.click(
            many_parts.score, [archive, category, settings, threshold], [archive, results, scored], **private
        )
        page.unload(handlers.leave)
    return page


def _upload_hint(handlers: Handlers) -> str:
    """How photographs of one part are to be named."""
    if not handlers.several:
        return f"Up to {PHOTO_MB} MB."
    first = next(iter(handlers.cameras.values()))
    return (
        f"One per camera, up to {PHOTO_MB} MB each. File names such as part7_{first}.jpg tell the camera; "
        "names that tell none are taken in their order. You can change that after the upload."
    )


def _many_hint(handlers: Handlers) -> str:
    """How photographs of many parts are to be named, and which threshold decides."""
    number, categories = handlers.session.view_numbers[0], handlers.session.categories
    if handlers.several:
        first, second = list(handlers.cameras.values())[:2]
        hint = (
            f"Photographs are grouped into parts by names that tell the camera, such as part7_{first}.jpg, "
            f"part7_{second}.jpg. For other names, upload a zip archive with one folder per part; its "
            "photographs are assigned to the cameras in the order of their names."
        )
    else:
        hint = "Each photograph is a part."
    if len(categories) == 1:
        return f"{hint} The threshold of the tab “One part” decides."
    return (
        f"{hint} Names such as {categories[0]}_0007_C{number}.jpg tell the category. The threshold of the "
        "tab “One part” decides on the selected category, the run's own on others."
    )


def serve(page: gr.Blocks, host: str, port: int | None, password: str | None, uploads: Path) -> str:
    """Start the server and return the page's URL; it contacts no other machine.

    Args:
        page: from `build`; ``page.close()`` stops it.
        host: address to listen on.
        port: None uses the first free port from 7860 on.
        password: required from visitors, with the user name `USER`; None requires none.
        uploads: folder of all visits' photographs.
    """
    sans = [gr.themes.Font("system-ui"), gr.themes.Font("sans-serif")]
    mono = [gr.themes.Font("ui-monospace"), gr.themes.Font("monospace")]
    # Gradio's own subdued text is too pale to read on white (WCAG 2.2, 1.4.3)
    theme = gr.themes.Default(font=sans, font_mono=mono).set(body_text_color_subdued="*neutral_600")
    for module in (gradio.queueing, gradio.routes, gradio.utils):
        vars(module)["traceback"] = _ShortTraceback()
    guard = Middleware(Guard, host=host, uploads=uploads, has_password=password is not None)
    _, url, _ = page.queue(api_open=False, max_size=64).launch(
        server_name=host,
        server_port=port,
        auth=None if password is None else (USER, password),
        share=False,
        quiet=True,
        prevent_thread_lock=True,
        show_error=False,
        max_file_size=UPLOAD_MB * 1_000_000,
        state_session_capacity=SESSIONS,
        footer_links=[],
        run_history=False,
        app_kwargs={"middleware": [guard]},
        ssr_mode=False,
        mcp_server=False,
        theme=theme,
        css=html.STYLE,
    )
    return str(url)


class _ShortTraceback:
    """The module ``traceback`` for Gradio, whose messages repeat what a visitor sent, of any length."""

    def __getattr__(self, name: str) -> Any:
        return getattr(traceback, name)

    def print_exc(self) -> None:
        """Print the place of the current error and the beginning of its message."""
        kind, error, trace = sys.exc_info()
        lines = [f"{frame.filename}:{frame.lineno} in {frame.name}" for frame in traceback.extract_tb(trace)]
        name = "error" if kind is None else kind.__name__
        sys.stderr.write("\n  ".join([f"{name}: {shown(str(error))}", *lines[-6:]]) + "\n")
