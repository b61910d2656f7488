"""Sensor values: columns by name, interpolated, standardized by the training samples' mean and deviation."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from idif.data.arrays import ArraySpec
from idif.data.media import interpolated, read_series
from idif.encoders.family import EncoderFamily

SENSOR_COLUMNS = (
    "Pressure",
    "CO2 Weld Flow",
    "Feed",
    "Primary Weld Current",
    "Wire Consumed",
    "Secondary Weld Voltage",
)
STEPS = 256
_CONSTANT = 1e-6
"""Deviation, as a share of the mean, of a column that counts as constant in all training samples."""


class _Standardization(nn.Module):
    """float32 [N,256,6] -> {sensor: [N,256,6]}; its weights are the statistics of the training samples."""

    mean: Tensor
    std: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(len(SENSOR_COLUMNS)))
        self.register_buffer("std", torch.ones(len(SENSOR_COLUMNS)))

    def forward(self, series: Tensor) -> dict[str, Tensor]:
        """The array; see the class."""
        return {"sensor": (series - self.mean) / self.std}


def _read(path: Path, image_size: int) -> npt.NDArray[np.float32]:
    return interpolated(read_series(path, SENSOR_COLUMNS), STEPS)


def _statistics(files: Sequence[Path]) -> Mapping[str, Tensor]:
    """Mean and standard deviation of each column over all steps of the given files; 1 for a constant column.

    Divided by its own deviation, a constant column would blow its rounding errors up.
    """
    series = np.concatenate([_read(path, 0) for path in files]).astype(np.float64)
    mean, deviation = series.mean(axis=0), series.std(axis=0)
    deviation[deviation <= _CONSTANT * np.maximum(1, np.abs(mean))] = 1
    return {
        "mean": torch.from_numpy(mean).float(),
        "std": torch.from_numpy(deviation).float(),
    }


def sensor_family(name: str) -> EncoderFamily:
    """The family of the standardized sensor values under a name of `ENCODERS`."""
    return EncoderFamily(
        build=_Standardization,
        arrays=lambda image_size: (
            ArraySpec(
                "sensor",
                ("time", "channel"),
                (STEPS, len(SENSOR_COLUMNS)),
                "float32",
                name,
                signed=True,
                exact=True,
            ),
        ),
        preparation={"columns": list(SENSOR_COLUMNS), "interpolation": f"linear, to {STEPS} steps"},
        read=_read,
        prepare=lambda series: series.float(),
        stride=1,
        key_names="weld_sensors'",
        pretrained=None,
        absent_shape=lambda image_size: (STEPS, len(SENSOR_COLUMNS)),
        input="sensor",
        learn=_statistics,
    )
