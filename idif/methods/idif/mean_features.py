"""`MeanFeatures`: the mean of the training features at each position of each camera."""

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from idif.data.batch import Batch
from idif.methods.idif.layers import LayerSpec


class MeanFeatures(nn.Module):
    """Mean directions of the training features, which a decoder's output is added to.

    One buffer float32 [V,C,h,w] a layer: the mean of the features at unit length, times the root of C, so
    that a value is about 1. Zero, [V,C,1,1], before `learn`; a state dict brings its sizes along.
    """

    def __init__(self, views: int, layers: Sequence[LayerSpec]) -> None:
        super().__init__()
        self.names = tuple(layer.name for layer in layers)
        for number, layer in enumerate(layers):
            self.register_buffer(_key(number), torch.zeros(views, layer.channels, 1, 1))

    def learn(self, batches: Iterable[Batch]) -> None:
        """Replace the means by those over the present views of samples; zero for a camera without views."""
        sums: dict[str, Tensor] = {}
        seen: Tensor | None = None
        for batch in batches:
            present = batch.view_mask[:, :, None, None, None]
            for name, features in batch.features(self.names).items():
                total = (F.normalize(features.double(), dim=2) * present).sum(dim=0)
                sums[name] = sums[name] + total if name in sums else total
            count = batch.view_mask.sum(dim=0)
            seen = count if seen is None else seen + count
        assert seen is not None, "there are training samples"
        each = seen.clamp_min(1)[:, None, None, None]
        for number, name in enumerate(self.names):
            mean = sums[name] / each * sums[name].shape[1] ** 0.5
            setattr(self, _key(number), mean.float().to(getattr(self, _key(number)).device))

    def forward(self, name: str, deviation: Tensor) -> Tensor:
        """A layer's features [B,V,C,h,w]: their deviation from the mean, plus the mean."""
        mean: Tensor = getattr(self, _key(self.names.index(name)))
        return deviation + mean

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        for number in range(len(self.names)):
            given, own = state_dict.get(prefix + _key(number)), getattr(self, _key(number))
            if given is not None and given.shape[:2] == own.shape[:2]:
                # h and w are known only after `learn`
                setattr(self, _key(number), own.new_zeros(given.shape))
        super()._load_from_state_dict(state_dict, prefix, *rest)


def _key(number: int) -> str:
    return f"mean{number}"
