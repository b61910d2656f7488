"""Training loss and anomaly maps from latents, which are standard normal under the model."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from idif.methods.msflow.layers import resize, sum_per_sample


def energy(latents: Tensor) -> Tensor:
    """Half the squared norm of latents [N,C,h,w], [N]: their negative log-density but for a constant."""
    return 0.5 * sum_per_sample(latents.square())


def log_likelihood(latents: Tensor) -> Tensor:
    """Mean log-density of a channel at each position, but for a constant: [N,C,h,w] -> [N,h,w]."""
    return -0.5 * latents.square().mean(dim=1)


class LikelihoodMaps(NamedTuple):
    """Two maps [N,H,W] of the same latents; higher is more anomalous."""

    sum: Tensor
    """Localization: max S - S, S being the sum of each scale's likelihood relative to its largest."""
    product: Tensor
    """Detection: -P, P being the product of the scales' likelihoods relative to the largest, thus at most 1.
    The authors' map is 1 - P, in which small likelihoods round to equal scores."""


def likelihood_maps(log_likelihoods: Sequence[Tensor], size: tuple[int, int]) -> LikelihoodMaps:
    """Maps of ``size`` from the log-likelihoods [N,h,w] of each scale; each image by itself.

    Likelihoods are relative to the largest of the image, so that none overflows.
    """
    total = torch.stack([_upsampled(x, size) for x in log_likelihoods]).sum(dim=0)
    product = (total - _largest(total)).exp()
    relative = [_upsampled((x - _largest(x)).exp(), size) for x in log_likelihoods]
    summed = torch.stack(relative).sum(dim=0)
    return LikelihoodMaps(sum=_largest(summed) - summed, product=-product)


def top_mean(maps: Tensor, share: float) -> Tensor:
    """Mean of the largest ``share`` of the pixels of maps [N,H,W], at least one: [N]."""
    pixels = maps.flatten(1)
    count = max(1, int(share * pixels.shape[1]))
    return pixels.topk(count, dim=1, sorted=False).values.mean(dim=1)


def _upsampled(x: Tensor, size: tuple[int, int]) -> Tensor:
    return resize(x[:, None], size)[:, 0]


def _largest(x: Tensor) -> Tensor:
    """[N,1,1]."""
    return x.amax(dim=(1, 2), keepdim=True)
