"""The options of inference as controls of the page."""

from collections.abc import Sequence
from typing import Any

import gradio as gr

from idif.app.session import Settings
from idif.methods.section import InferenceOption


def controls(options: Sequence[InferenceOption], defaults: Settings) -> list[Any]:
    """A control of each option, at the run's own value."""
    values = dict(defaults)
    made: list[Any] = []
    for option in options:
        name = {"value": values[option.key], "label": option.label, "elem_id": option.key.replace(".", "-")}
        if option.kind == "toggle":
            made.append(gr.Checkbox(**name))
        else:
            made.append(gr.Radio(list(option.choices), **name))
    return made


def settings_of(options: Sequence[InferenceOption], values: Sequence[Any]) -> Settings:
    """The settings that the values of the controls stand for.

    Raises:
        ValueError: a value is none of its option's.
    """
    for option, value in zip(options, values, strict=True):
        if value not in ((False, True) if option.kind == "toggle" else option.choices):
            raise ValueError(f"{option.label}: {value!r} is none of its choices")
    return tuple((option.key, value) for option, value in zip(options, values, strict=True))
