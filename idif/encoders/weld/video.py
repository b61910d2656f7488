"""V-JEPA 2: tokens of a video, by default averaged over the picture so that one per moment remains."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor, nn

from idif.data.arrays import ArraySpec
from idif.data.media import read_frames
from idif.encoders.family import EncoderFamily
from idif.encoders.hub import hub_weights
from idif.encoders.preparation import normalize
from idif.encoders.weld.library import transformers

_PATCH, _TUBELET = 16, 2
"""Side in pixels, and number of frames, of the part of a video that a token describes."""


@dataclass(frozen=True)
class VideoSize:
    """One size of V-JEPA 2."""

    side: int
    """Side of the frames in pixels: that of pretraining, since positions are counted in its grid."""
    frames: int
    width: int
    depth: int
    heads: int
    repository: str | None = None
    """Name of the pretrained weights on the Hugging Face hub."""
    full: bool = False
    """Whether all tokens are given, moment after moment, each row by row, instead of a mean per moment."""

    @property
    def times(self) -> int:
        """Number of vectors of a video."""
        moments = self.frames // _TUBELET
        return moments * (self.side // _PATCH) ** 2 if self.full else moments


class _VideoEncoder(nn.Module):
    """float32 [N,T,3,S,S], normalized -> {video: [N,times,width]}."""

    def __init__(self, size: VideoSize, name: str) -> None:
        super().__init__()
        library = transformers(name)
        config = library.VJEPA2Config(
            crop_size=size.side,
            frames_per_clip=size.frames,
            patch_size=_PATCH,
            tubelet_size=_TUBELET,
            hidden_size=size.width,
            num_hidden_layers=size.depth,
            num_attention_heads=size.heads,
            # the predictor is not used: the smallest one, removed below
            pred_hidden_size=12,
            pred_num_attention_heads=1,
            pred_num_hidden_layers=1,
        )
        self.full = size.full
        self.net = library.VJEPA2Model(config)
        self.net.predictor = nn.Identity()

    def forward(self, frames: Tensor) -> dict[str, Tensor]:
        """The array; see the class."""
        tokens = self.net(frames, skip_predictor=True).last_hidden_state
        if self.full:
            return {"video": tokens}
        moments = frames.shape[1] // _TUBELET
        return {"video": tokens.unflatten(1, (moments, -1)).mean(dim=2)}

    def state_dict(self, *args: Any, **kwargs: Any) -> Any:
        """The net's own, so that key names are the library's."""
        return self.net.state_dict(*args, **kwargs)

    def load_state_dict(self, *args: Any, **kwargs: Any) -> Any:
        """The net's own, so that key names are the library's."""
        return self.net.load_state_dict(*args, **kwargs)


def video_family(name: str, size: VideoSize) -> EncoderFamily:
    """The family of a size of V-JEPA 2 under a name of `ENCODERS`."""
    repository = size.repository

    def read(path: Path, image_size: int) -> npt.NDArray[np.uint8]:
        return read_frames(path, size.frames, size.side)

    return EncoderFamily(
        build=lambda: _VideoEncoder(size, name),
        arrays=lambda image_size: (
            ArraySpec("video", ("time", "channel"), (size.times, size.width), "float32", name, signed=True),
        ),
        preparation={
            "frames": f"{size.frames} at even distances, the first and the last among them",
            "resize": f"whole frames to {size.side} px by areas",
            "mean": list(normalize.mean),
            "std": list(normalize.std),
            "pooling": "none" if size.full else "mean over the picture",
        },
        read=read,
        prepare=normalize,
        stride=1,
        key_names="transformers' VJEPA2Model",
        pretrained=None
        if repository is None
        else partial[Mapping[str, Tensor]](hub_weights, name, repository),
        absent_shape=lambda image_size: (size.frames, 3, size.side, size.side),
        absent_type=np.uint8,
        input="video",
    )
