"""Arrays pooled to one vector of each sample."""

from typing import NamedTuple

import torch
from torch import Tensor

from idif.data.arrays import ArraySpec
from idif.data.batch import Batch
from idif.data.features import NO_INPUT, FeatureSpec, check_arrays
from idif.errors import ConfigError

CHANNEL = "channel"


class Pooled(NamedTuple):
    """Vectors of one array."""

    vectors: Tensor
    """float32 [B,C], zero for samples without the input."""
    present: Tensor
    """bool [B]."""


class Pooling:
    """The mean of each array over views, time, tokens and positions, i.e. all axes but the channels."""

    def __init__(self, names: tuple[str, ...] | None, features: FeatureSpec) -> None:
        """For arrays of a source; None takes all features that depend on an input.

        Raises:
            StoreMismatch: an array is missing.
            ConfigError: an array depends on no input or has no channels.
        """
        inputs = {encoder.name: encoder.input for encoder in features.encoders}
        if names is None:
            names = tuple(n for n, array in features.features.items() if inputs[array.origin] != NO_INPUT)
        check_arrays(names, features)
        self.names = names
        self.arrays: dict[str, ArraySpec] = {name: features.arrays[name] for name in names}
        for name, array in self.arrays.items():
            if inputs.get(array.origin, NO_INPUT) == NO_INPUT or CHANNEL not in array.own_axes:
                raise ConfigError(
                    f"method.arrays: {name}: expected features of an input with the axis channel, got "
                    f"{', '.join(array.axes)}"
                )
        self.inputs = {name: inputs[array.origin] for name, array in self.arrays.items()}
        self.channels = {
            name: array.shape[array.own_axes.index(CHANNEL)] for name, array in self.arrays.items()
        }

    def __call__(self, batch: Batch) -> dict[str, Pooled]:
        """{array: its vectors}."""
        return {name: self._pool(name, array, batch) for name, array in self.arrays.items()}

    def _pool(self, name: str, array: ArraySpec, batch: Batch) -> Pooled:
        values = batch.arrays[name].float()
        kept = 1 + array.per_view  # axes of samples and views
        values = values.movedim(kept + array.own_axes.index(CHANNEL), kept)
        vectors = values.reshape(*values.shape[: kept + 1], -1).mean(dim=-1)
        if array.per_view:
            shown = batch.view_mask[..., None]
            total = torch.where(shown, vectors, 0.0).sum(dim=1)
            present = batch.view_mask.any(dim=1)
            vectors = total / batch.view_mask.sum(dim=1, keepdim=True).clamp(min=1)
        else:
            present = batch.present[self.inputs[name]]
        return Pooled(vectors.masked_fill(~present[:, None], 0.0), present)
