"""Messages to visitors: errors as sentences, and problems without paths of the server."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import gradio as gr

from idif.app.uploads import Upload, UploadError
from idif.inference.predict import Prediction

BROKEN = "This could not be scored; the terminal of idif app says why."


@contextmanager
def errors_as_sentences() -> Iterator[None]:
    """Translate every error to one that Gradio shows as a sentence; the terminal has the details."""
    try:
        yield
    except (UploadError, gr.Error):
        raise
    except Exception as error:
        raise gr.Error(BROKEN) from error


def hide_paths(prediction: Prediction, upload: Upload) -> Prediction:
    """``prediction`` with problems that contain no path of the server."""
    return replace(prediction, problems=tuple(map(upload.hide_paths, prediction.problems)))
