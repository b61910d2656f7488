"""Sheets of samples that are more than images: stills, frames, sound, series, and where the score is from."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt
from markupsafe import Markup

from idif.data.index import Split
from idif.data.recording import Pixels, Recording
from idif.evaluation.predictions import Predictions
from idif.missing_views.explanation import Explanation
from idif.report.gallery import sample_class, score_text
from idif.report.loading import SampleLoader, load_samples
from idif.visualization.data_uri import webp_data_uri

QUALITY = 72
"""Quality of pictures, 0..100."""
SPECTROGRAM = (640, 160)
"""Width and height of a spectrogram in pixels."""
_WIDTH, _HEIGHT = 200.0, 46.0


class Examined(NamedTuple):
    """A sample as the loader gives it."""

    recording: Recording
    explanation: Explanation | None
    """None where the model is not at hand."""


RecordingLoader = SampleLoader[Mapping[str, Examined] | None]
"""Loads the files of samples, and where their scores came from, by sample id; None for data whose views and
maps show all there is."""


@dataclass(frozen=True)
class Picture:
    """A picture as a data URI."""

    address: str
    width: int
    height: int
    alt: str
    file: str = ""


@dataclass(frozen=True)
class Trace:
    """The chart of one series."""

    name: str
    svg: Markup
    text: str
    """Its range."""


@dataclass(frozen=True)
class Sheet:
    """One sample of a category."""

    kind: str
    """Why it was selected."""
    sample_id: str
    score: str
    defect: str
    parts: tuple[tuple[str, str], ...]
    """(name, value) of what the score is made of."""
    without: tuple[tuple[str, str, str], ...]
    """(input, score without it, change)."""
    stills: tuple[Picture, ...]
    frames: tuple[Picture, ...]
    spectrogram: Picture | None
    seconds: str
    highest: str
    traces: tuple[Trace, ...]
    lacks: str
    """The inputs that the sample lacks, as text; empty if it has all."""


def make_sheets(
    predictions: Predictions, selected: Mapping[int, str], examined: Mapping[str, Examined]
) -> list[Sheet]:
    """The sheets of the selected rows of a category, without samples whose files are not there."""
    known = {row: kind for row, kind in selected.items() if predictions.sample_id[row] in examined}
    ranges = _ranges([examined[predictions.sample_id[row]].recording for row in known])
    return [
        _sheet(predictions, row, kind, examined[predictions.sample_id[row]], ranges)
        for row, kind in known.items()
    ]


def load_recordings(
    loader: RecordingLoader | None, run: Path, split: Split, predictions: Predictions, rows: Sequence[int]
) -> tuple[Mapping[str, Examined] | None, str | None]:
    """The files of some rows of a category, None if the data needs no sheets; and why they are missing."""
    if loader is None or not rows:
        return None, None
    shown = "Stills, video, sound and sensor values"
    examined, missing = load_samples(loader, run, split, predictions, rows, shown)
    return ({} if missing is not None else examined), missing


def _ranges(recordings: Sequence[Recording]) -> dict[str, tuple[float, float]]:
    """Lowest and highest value of each series over all sheets, so that they can be compared."""
    found: dict[str, list[npt.NDArray[np.float32]]] = {}
    for recording in recordings:
        for name, values in recording.series:
            found.setdefault(name, []).append(values)
    return {
        name: (float(min(v.min() for v in each)), float(max(v.max() for v in each)))
        for name, each in found.items()
    }


def _sheet(
    p: Predictions, row: int, kind: str, examined: Examined, ranges: Mapping[str, tuple[float, float]]
) -> Sheet:
    recording, explanation = examined
    score = float(p.sample_scores[row])
    parts: tuple[tuple[str, str], ...] = ()
    without: tuple[tuple[str, str, str], ...] = ()
    if explanation is not None:
        parts = tuple((name, score_text(value)) for name, value in explanation.parts.items())
        without = tuple(
            (name, score_text(value), f"{value - score:+.3g}") for name, value in explanation.without.items()
        )
    frames = () if recording.frames is None else tuple(_frames(recording.frames))
    spectrogram = None if recording.spectrogram is None else _spectrogram(recording)
    lacking = {
        "stills": not recording.stills,
        "video": recording.frames is None,
        "sound": recording.spectrogram is None,
        "sensor values": not recording.series,
    }
    return Sheet(
        kind=kind,
        sample_id=p.sample_id[row],
        score=score_text(score),
        defect=sample_class(p, row),
        parts=parts,
        without=without,
        stills=tuple(
            Picture(webp_data_uri(image, QUALITY), image.shape[1], image.shape[0], f"still {number}", name)
            for number, (name, image) in enumerate(recording.stills, 1)
        ),
        frames=frames,
        spectrogram=spectrogram,
        seconds=f"{recording.seconds:.1f}",
        highest=f"{recording.highest_frequency / 1000:g}",
        traces=tuple(_trace(name, values, ranges[name]) for name, values in recording.series),
        lacks=", ".join(name for name, missing in lacking.items() if missing),
    )


def _frames(frames: Pixels) -> list[Picture]:
    last = max(len(frames) - 1, 1)
    return [
        Picture(
            webp_data_uri(np.ascontiguousarray(frame.transpose(1, 2, 0)), QUALITY),
            frame.shape[2],
            frame.shape[1],
            f"frame at {100 * place / last:.0f} % of the video",
        )
        for place, frame in enumerate(frames)
    ]


def _spectrogram(recording: Recording) -> Picture:
    """High frequencies on top, bright where it is loud."""
    assert recording.spectrogram is not None
    values = recording.spectrogram[::-1]
    low, high = float(values.min()), float(values.max())
    levels = ((values - low) / max(high - low, 1e-9) * 255).astype(np.uint8)
    resized = cv2.resize(levels, SPECTROGRAM, interpolation=cv2.INTER_AREA)
    colors = np.ascontiguousarray(cv2.applyColorMap(resized, cv2.COLORMAP_VIRIDIS)[:, :, ::-1]).astype(
        np.uint8
    )
    alt = f"spectrogram of {recording.seconds:.1f} s of sound"
    return Picture(webp_data_uri(colors, QUALITY), *SPECTROGRAM, alt)


def _trace(name: str, values: npt.NDArray[np.float32], limits: tuple[float, float]) -> Trace:
    low, high = limits
    heights = (values - low) / max(high - low, 1e-9)
    steps = np.linspace(0, _WIDTH, len(values))
    points = " ".join(
        f"{x:.1f},{y:.1f}" for x, y in zip(steps, 2 + (1 - heights) * (_HEIGHT - 4), strict=True)
    )
    text = f"{values.min():.4g} to {values.max():.4g}"
    svg = Markup(
        '<svg class="trace" viewBox="0 0 {:g} {:g}" preserveAspectRatio="none" role="img" aria-label="{}">'
        '<polyline class="line c1" points="{}"/></svg>'
    ).format(_WIDTH, _HEIGHT, f"{name}: {text}", points)
    return Trace(name, svg, text)
