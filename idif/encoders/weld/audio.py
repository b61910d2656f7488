"""AST, the audio spectrogram transformer: tokens of a sound, averaged over its frequencies."""

import threading
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor, nn

from idif.data.arrays import ArraySpec
from idif.data.media import SAMPLE_RATE, read_sound
from idif.encoders.family import EncoderFamily
from idif.encoders.hub import hub_weights
from idif.encoders.weld.library import transformers

_PATCH, _MELS = 16, 128
_PREFIX = 2
"""Tokens before those of patches: class and distillation."""
_WINDOW, _HOP = SAMPLE_RATE // 40, SAMPLE_RATE // 100
"""Samples of sound in one frame of the spectrogram, 25 ms, and from one frame to the next, 10 ms."""


@dataclass(frozen=True)
class AudioSize:
    """One size of AST."""

    frames: int
    """Frames of the spectrogram; 10 ms each, longer where a sound has more."""
    stride: int
    """Distance of patches in time and frequency."""
    width: int
    depth: int
    heads: int
    repository: str | None = None
    """Name of the pretrained weights on the Hugging Face hub."""

    @property
    def grid(self) -> tuple[int, int]:
        """Number of patches along frequency and time."""
        return (_MELS - _PATCH) // self.stride + 1, (self.frames - _PATCH) // self.stride + 1


class _AudioEncoder(nn.Module):
    """float32 [N,frames,128], normalized log-mel -> {audio: [N,time,width]}."""

    def __init__(self, size: AudioSize, name: str) -> None:
        super().__init__()
        library = transformers(name)
        config = library.ASTConfig(
            hidden_size=size.width,
            num_hidden_layers=size.depth,
            num_attention_heads=size.heads,
            intermediate_size=4 * size.width,
            max_length=size.frames,
            num_mel_bins=_MELS,
            patch_size=_PATCH,
            frequency_stride=size.stride,
            time_stride=size.stride,
        )
        # named as in the published checkpoints, which add a classifier
        self.audio_spectrogram_transformer = library.ASTModel(config)
        self.grid = size.grid

    def forward(self, spectrograms: Tensor) -> dict[str, Tensor]:
        """The array; see the class."""
        tokens = self.audio_spectrogram_transformer(spectrograms).last_hidden_state[:, _PREFIX:]
        return {"audio": tokens.unflatten(1, self.grid).mean(dim=1)}


class _Spectrogram:
    """The library's own extractor of log-mel spectrograms, [time,mel], made when first needed."""

    def __init__(self, frames: int, name: str) -> None:
        self._frames, self._name = frames, name
        self._lock, self._extractor = threading.Lock(), None

    def __call__(self, path: Path, image_size: int) -> npt.NDArray[np.float32]:
        """float32 [frames,128] of a file.

        A shorter sound is padded by the extractor, which would cut a longer one; there, groups of frames are
        averaged instead, since a defect may be heard at any time of a run.
        """
        sound, frames = read_sound(path), self._frames
        sound = np.pad(sound, (0, max(0, _WINDOW - len(sound))))
        own = max(frames, 1 + (len(sound) - _WINDOW) // _HOP)
        # frame by frame the spectrogram of a part is that of the whole
        parts = [
            self._extract(sound[first * _HOP : (first + frames - 1) * _HOP + _WINDOW])
            for first in range(0, own, frames)
        ]
        values = np.concatenate(parts)[:own]
        starts = np.arange(self._frames) * own // self._frames
        sums = np.add.reduceat(values, starts, axis=0)
        lengths = np.diff(starts, append=own)[:, None]
        spectrogram: npt.NDArray[np.float32] = (sums / lengths.astype(np.float32)).astype(np.float32)
        return spectrogram

    def _extract(self, sound: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        made = self._made()(sound, sampling_rate=SAMPLE_RATE, return_tensors="np")
        values: npt.NDArray[np.float32] = made["input_values"][0].astype(np.float32)
        return values

    def _made(self) -> Any:
        with self._lock:
            if self._extractor is None:
                library = transformers(self._name)
                with warnings.catch_warnings():  # of mel filters that are empty, as in the original
                    warnings.simplefilter("ignore")
                    self._extractor = library.ASTFeatureExtractor(max_length=self._frames, num_mel_bins=_MELS)
            return self._extractor


def audio_family(name: str, size: AudioSize) -> EncoderFamily:
    """The family of a size of AST under a name of `ENCODERS`."""
    repository = size.repository
    return EncoderFamily(
        build=lambda: _AudioEncoder(size, name),
        arrays=lambda image_size: (
            ArraySpec("audio", ("time", "channel"), (size.grid[1], size.width), "float32", name, signed=True),
        ),
        preparation={
            "spectrogram": f"ASTFeatureExtractor, {size.frames} frames of 10 ms by {_MELS} mel bands",
            "longer": "frames averaged in groups",
            "pooling": "mean over frequencies",
        },
        read=_Spectrogram(size.frames, name),
        prepare=lambda spectrograms: spectrograms.float(),
        stride=1,
        key_names="transformers' ASTForAudioClassification",
        pretrained=None
        if repository is None
        else partial[Mapping[str, Tensor]](hub_weights, name, repository),
        absent_shape=lambda image_size: (size.frames, _MELS),
        input="audio",
    )
