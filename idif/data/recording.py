"""`Recording`: the files of a sample that is more than images, as a person looks at them."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Pixels = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Recording:
    """Pictures, frames, sound and series of one sample; None or empty for what it lacks."""

    stills: tuple[tuple[str, Pixels], ...]
    """(file name, uint8 [H,W,3], RGB) of each still that there is."""
    frames: Pixels | None
    """uint8 [N,3,S,S], RGB: frames of the video at even distances."""
    spectrogram: npt.NDArray[np.float32] | None
    """[frequencies,times] in decibels, low frequencies first."""
    seconds: float
    """Length of the sound; 0 without one."""
    highest_frequency: float
    """Highest frequency of the spectrogram, in hertz; 0 without one."""
    series: tuple[tuple[str, npt.NDArray[np.float32]], ...]
    """(name, values [N]) of each series."""
