"""Reads the files of a weld run for reports: stills, a few frames, the spectrogram, the sensor values."""

from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from idif.data.index import Sample
from idif.data.media import SAMPLE_RATE, interpolated, read_frames, read_series, read_sound
from idif.data.recording import Pixels, Recording
from idif.encoders.weld.sensors import SENSOR_COLUMNS
from idif.errors import DatasetError
from idif.paths import resolve_inside

FRAMES = 5
SIDE = 256
"""Largest side of a still, and side of a frame, in pixels."""
_WINDOW = 512
"""Sound samples of a column of the spectrogram."""
_COLUMNS = 320
"""Most columns of a spectrogram."""
_STEPS = 240
"""Steps that sensor values are interpolated to."""
_FLOOR = 80.0
"""Decibels below the loudest value at which a spectrogram is cut."""


def read_recording(root: Path, sample: Sample) -> Recording:
    """All files of a run that there are.

    Raises:
        DatasetError: a file is damaged; names it.
    """
    files = {
        name: None if path is None else resolve_inside(root, path) for name, path in sample.inputs.items()
    }
    video, audio, sensor = (files.get(name) for name in ("video", "audio", "sensor"))
    stills = [_still(resolve_inside(root, view.image)) for view in sample.views if view is not None]
    spectrogram, seconds = None, 0.0
    if audio is not None:
        sound = read_sound(audio)
        spectrogram, seconds = _spectrogram(sound), len(sound) / SAMPLE_RATE
    series = None if sensor is None else interpolated(read_series(sensor, SENSOR_COLUMNS), _STEPS)
    return Recording(
        stills=tuple(stills),
        frames=None if video is None else read_frames(video, FRAMES, SIDE),
        spectrogram=spectrogram,
        seconds=seconds,
        highest_frequency=0.0 if spectrogram is None else SAMPLE_RATE / 2,
        series=() if series is None else tuple(zip(SENSOR_COLUMNS, series.T, strict=True)),
    )


def _still(path: Path) -> tuple[str, Pixels]:
    image = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if image is None:
        raise DatasetError(f"{path}: missing or no image")
    scale = min(1.0, SIDE / max(image.shape[:2]))
    size = (max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale)))
    small = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    return path.name, cv2.cvtColor(small, cv2.COLOR_BGR2RGB).astype(np.uint8)


def _spectrogram(sound: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Power in decibels [257,times] of windows at even distances, at most `_COLUMNS`."""
    padded = np.pad(sound, (0, max(0, _WINDOW - len(sound))))
    count = min(_COLUMNS, 1 + 2 * (len(padded) - _WINDOW) // _WINDOW)
    starts = np.linspace(0, len(padded) - _WINDOW, count).astype(int)
    windows = np.stack([padded[start : start + _WINDOW] for start in starts]) * np.hanning(_WINDOW)
    power = np.abs(np.fft.rfft(windows, axis=1)) ** 2
    decibels = 10 * np.log10(power + 1e-12)
    shown: npt.NDArray[np.float32] = np.maximum(decibels, decibels.max() - _FLOOR).T.astype(np.float32)
    return shown
