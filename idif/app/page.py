"""The page itself: Gradio's components, which answer each event, and how they are served."""

from collections.abc import Sequence
from typing import Any

import gradio as gr

from idif.app import html
from idif.app.handlers import Handlers, forget
from idif.app.session import AppSession
from idif.app.uploads import PHOTO_MB, UPLOAD_MB
from idif.data.images import SUFFIXES
from idif.visualization.heatmap import OPACITY

USER = "idif"
"""Who signs in, where a password is asked for."""
SESSIONS = 50
"""Visits remembered at once, and so parts kept in memory."""
FORGOTTEN_AFTER = 3600
"""Seconds until an upload of a visit without further action is deleted."""


def build(desk: AppSession, title: str, notes: Sequence[str]) -> gr.Blocks:
    """The page.

    Args:
        desk: the run.
        title: its name.
        notes: what a visitor must know, such as stand-ins, or what this page cannot do and why.
    """
    handlers, first = Handlers(desk), desk.categories[0]
    slider = handlers.slider(first)
    cameras = [(f"C{number}", number) for number in desk.view_numbers]
    page = gr.Blocks(
        title=f"idif: {title}",
        analytics_enabled=False,
        delete_cache=(FORGOTTEN_AFTER, FORGOTTEN_AFTER),
        fill_width=True,
    )
    private: dict[str, Any] = {"api_visibility": "private"}
    with page:
        gr.HTML(html.heading(title, notes))
        with gr.Row():
            with gr.Column(scale=1, min_width=280):
                category = gr.Dropdown(
                    list(desk.categories),
                    value=first,
                    label="Category",
                    visible=len(desk.categories) > 1,
                    info="Of photographs whose names do not say it.",
                )
            gr.Column(scale=3, min_width=320)
        with gr.Tab("One part"), gr.Row():
            with gr.Column(scale=1, min_width=280):
                uploaded = gr.File(
                    label="Photographs of one part",
                    file_count="multiple",
                    file_types=list(SUFFIXES),
                    height=150,
                    elem_id="upload",
                )
                gr.HTML(
                    html.note(
                        f"One for each camera, up to {PHOTO_MB} MB: told apart by names with _C1_, _C2_ ..., "
                        "or taken in the order of their names."
                    )
                )
                sample = gr.Dropdown(
                    handlers.sample_choices(first),
                    value=None,
                    label="or a test sample",
                    visible=desk.samples is not None,
                    elem_id="sample",
                )
                on = gr.CheckboxGroup(
                    cameras, value=list(desk.view_numbers), label="Cameras that are on", elem_id="cameras"
                )
                threshold = gr.Slider(
                    slider.low,
                    slider.high,
                    value=slider.value,
                    step=slider.step,
                    precision=4,
                    label="Threshold",
                    info="Anomalous from this score on.",
                    buttons=[],
                    elem_id="threshold",
                )
                opacity = gr.Slider(0, 1, value=OPACITY, step=0.02, label="Opacity of the map", buttons=[])
            with gr.Column(scale=3, min_width=320):
                verdict = gr.HTML(handlers.verdict(None, 0), elem_id="verdict")
                pictures = gr.HTML(elem_id="pictures")
        with gr.Tab("Many parts"):
            gr.Markdown(
                "Photographs named `<category>_<number>_…_C<view>_…` are put together by their names. For "
                "other names, send a zip archive with a folder for each part, its photographs in the order "
                "of the cameras. Each part is decided at the run's own threshold."
            )
            heap = gr.File(
                label=f"Photographs or a zip archive, up to {UPLOAD_MB} MB",
                file_count="multiple",
                file_types=[*SUFFIXES, ".zip"],
                height=170,
                elem_id="heap",
            )
            begin = gr.Button("Judge them", variant="primary")
            sheet_shown = gr.HTML(elem_id="sheet")
        seen = gr.State(None, time_to_live=FORGOTTEN_AFTER, delete_callback=forget)
        fresh = [category, uploaded, sample, on, threshold, seen, verdict, pictures]
        uploaded.upload(handlers.upload, [uploaded, category, opacity, seen], fresh, **private)
        sample.input(handlers.pick, [sample, category, opacity, seen], fresh, **private)
        category.input(handlers.choose, category, [sample, threshold], **private)
        latest: dict[str, Any] = {"trigger_mode": "always_last", "show_progress": "hidden", **private}
        on.input(handlers.switch, [on, threshold, opacity, seen], [seen, verdict, pictures], **latest)
        threshold.input(handlers.verdict, [seen, threshold], verdict, **latest)
        opacity.input(handlers.pictures, [seen, opacity], pictures, **latest)
        begin.click(handlers.many, [heap, category], [heap, sheet_shown], **private)
    return page


def serve(page: gr.Blocks, host: str, port: int | None, password: str | None) -> str:
    """Start serving and return the page's address; nothing is fetched from or sent to other machines.

    Args:
        page: from `build`; ``page.close()`` stops it.
        host: address to listen on.
        port: None takes a free one from 7860 on.
        password: asked for where it is given, beside the name `USER`.
    """
    plain = [gr.themes.Font("system-ui"), gr.themes.Font("sans-serif")]
    fixed = [gr.themes.Font("ui-monospace"), gr.themes.Font("monospace")]
    # Gradio's own subdued text is too pale to read on white (WCAG 2.2, 1.4.3)
    theme = gr.themes.Default(font=plain, font_mono=fixed).set(body_text_color_subdued="*neutral_600")
    _, address, _ = page.queue(api_open=False, max_size=64).launch(
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
        ssr_mode=False,
        mcp_server=False,
        theme=theme,
        css=html.STYLE,
    )
    return str(address)
