"""Reading of files that a sample has once: video, sound and series of numbers."""

import csv
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from idif.errors import ConfigError, DatasetError

# read when the first video is opened: a damaged one is reported once, by a sentence of ours
os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")

SAMPLE_RATE = 16_000
"""Samples per second of every sound."""
_LOST_FRAMES = 2
"""Last frames that the header of a sound video may count and the file lack, as some recorders stop."""


def read_frames(path: Path, count: int, size: int) -> npt.NDArray[np.uint8]:
    """Frames of a video at even distances, the first and the last among them.

    A video of fewer frames repeats some.

    Args:
        count: number of frames.
        size: side in pixels that whole frames are resized to, by areas.

    Returns:
        uint8 [count,3,size,size], RGB.

    Raises:
        DatasetError: missing, no video, without frames, or cut: it holds fewer frames than its header says.
    """
    # imported where it is used: most commands read no video
    import cv2

    _require_file(path)
    video = cv2.VideoCapture(str(path))
    try:
        total = int(video.get(cv2.CAP_PROP_FRAME_COUNT)) if video.isOpened() else 0
        if total <= 0:
            raise DatasetError(f"{path}: expected a video, got a file that none can be read from")
        frames = np.empty((count, 3, size, size), np.uint8)
        filled = position = 0
        wanted = np.linspace(0, total - 1, count).round().astype(int).tolist()
        while filled < count and video.grab():
            if wanted[filled] == position:
                read, picture = video.retrieve()
                if not read:
                    break
                small = cv2.resize(picture, (size, size), interpolation=cv2.INTER_AREA)
                while filled < count and wanted[filled] == position:
                    frames[filled] = cv2.cvtColor(small, cv2.COLOR_BGR2RGB).transpose(2, 0, 1)
                    filled += 1
            position += 1
    except cv2.error as error:
        raise DatasetError(f"{path}: cannot be read as video ({str(error).splitlines()[0]})") from None
    finally:
        video.release()
    if filled == 0 or position < total - _LOST_FRAMES:
        raise DatasetError(f"{path}: is cut; its header says {total} frames, {position} can be read")
    frames[filled:] = frames[filled - 1]
    return frames


def read_sound(path: Path) -> npt.NDArray[np.float32]:
    """The samples of a mono sound at `SAMPLE_RATE`, float32 [N] in -1..1.

    Raises:
        ConfigError: the library that reads sounds is not installed.
        DatasetError: missing, empty, damaged, cut, or of another rate or number of channels.
    """
    soundfile = _soundfile()
    _require_file(path)
    try:
        with soundfile.SoundFile(path) as file:
            if file.samplerate != SAMPLE_RATE:
                raise DatasetError(
                    f"{path}: expected {SAMPLE_RATE} samples per second, got {file.samplerate}"
                )
            if file.channels != 1:
                raise DatasetError(f"{path}: expected one channel, got {file.channels}")
            expected = int(file.frames)
            sound: npt.NDArray[np.float32] = file.read(dtype="float32")
    except (soundfile.SoundFileError, RuntimeError) as error:
        raise DatasetError(f"{path}: cannot be read as sound ({str(error).splitlines()[0]})") from None
    if not len(sound):
        raise DatasetError(f"{path}: holds no sound")
    if len(sound) < expected:
        raise DatasetError(
            f"{path}: is cut; its header says {expected} samples of sound, {len(sound)} can be read"
        )
    if not np.isfinite(sound).all():
        raise DatasetError(f"{path}: holds samples that are not finite")
    return sound


def write_sound(path: Path, sound: npt.NDArray[Any]) -> None:
    """Write a mono sound in -1..1 as FLAC of 16 bits at `SAMPLE_RATE`.

    Raises:
        ConfigError: the library that writes sounds is not installed.
    """
    levels = np.clip(np.round(sound * 32767), -32768, 32767).astype(np.int16)
    _soundfile().write(path, levels, SAMPLE_RATE, format="FLAC", subtype="PCM_16")


def read_series(path: Path, columns: Sequence[str]) -> npt.NDArray[np.float64]:
    """Columns of a CSV file by their names in its first line, float64 [rows,columns].

    Spaces around names and values, and letters' case in names, do not matter; other columns are ignored.

    Raises:
        DatasetError: missing, not text, empty, a column is missing or named twice, or a value is missing, no
            number or not finite; names the column and the line.
    """
    _require_file(path)
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            lines = list(csv.reader(file))
    except (UnicodeDecodeError, csv.Error) as error:
        raise DatasetError(f"{path}: cannot be read as CSV ({error})") from None
    names = [name.strip().casefold() for name in lines[0]] if lines else []
    if not any(names):
        raise DatasetError(f"{path}: is empty; expected columns {', '.join(columns)}")
    places: list[int] = []
    for column in columns:
        count = names.count(column.casefold())
        if count != 1:
            state = "is missing" if not count else f"occurs {count} times"
            raise DatasetError(f"{path}: column {column!r} {state}")
        places.append(names.index(column.casefold()))
    rows = [(number, line) for number, line in enumerate(lines[1:], 2) if any(map(str.strip, line))]
    if not rows:
        raise DatasetError(f"{path}: has names of columns, but no row")
    return np.array(
        [
            [
                _number(path, number, column, line, place)
                for column, place in zip(columns, places, strict=True)
            ]
            for number, line in rows
        ]
    )


def _number(path: Path, number: int, column: str, line: Sequence[str], place: int) -> float:
    text = line[place].strip() if place < len(line) else ""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise DatasetError(f"{path}: line {number}: column {column!r} holds {text!r}, expected a number")
    return value


def interpolated(series: npt.NDArray[np.float64], steps: int) -> npt.NDArray[np.float32]:
    """A series [N,C] at ``steps`` even distances from its first to its last row, float32 [steps,C]."""
    given = np.linspace(0, 1, len(series))
    wanted = np.linspace(0, 1, steps)
    return np.stack([np.interp(wanted, given, column) for column in series.T], axis=1).astype(np.float32)


def _require_file(path: Path) -> None:
    if not path.is_file():
        raise DatasetError(f"{path}: missing")
    if not path.stat().st_size:
        raise DatasetError(f"{path}: is empty")


def _soundfile() -> Any:
    try:
        import soundfile
    except ImportError:
        raise ConfigError("sounds need the library soundfile; install `idif[weld]`") from None
    return soundfile
