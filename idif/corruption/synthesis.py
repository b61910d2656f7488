"""Adds synthetic defects to clean images, with their masks (method of DeSTSeg)."""

import torch
from torch import Tensor

from idif.corruption.perlin import perlin_masks
from idif.corruption.streams import Stream
from idif.corruption.textures import TextureBank
from idif.randomness import integers, uniform

MAX_BETA = 0.8
"""Largest share of the clean image inside a defect."""


def corrupt(
    images: Tensor, seeds: Tensor, textures: TextureBank, probability: float = 1.0
) -> tuple[Tensor, Tensor]:
    """Blend a random texture into each view where Perlin noise is high: DeSTSeg's corruption.

    ``image * (1 - M) + (1 - beta) * texture * M + beta * image * M`` with beta uniform in [0, 0.8). All
    random values are determined by ``seeds``; pixels outside the mask equal the clean image exactly.

    Args:
        images: uint8 [B,V,3,S,S], clean, RGB.
        seeds: int64 [B,V], see `idif.randomness.view_seeds`.
        textures: size of the images, on their device or on the CPU.
        probability: chance that a view is corrupted at all.

    Returns:
        float32 [B,V,3,S,S] in 0..1 and bool [B,V,S,S], both on the device of ``images``. A view that is not
        corrupted has an all-false mask.
    """
    B, V, channels, H, W = images.shape
    size = textures.images.shape[-1]
    assert (channels, H, W) == (3, size, size), (images.shape, textures.images.shape)
    assert seeds.shape == (B, V), (seeds.shape, images.shape)
    seeds = seeds.to(images.device).reshape(B * V)
    row = integers(seeds, Stream.TEXTURE, 1, len(textures.images))[:, 0]
    texture = textures.images[row.to(textures.images.device)].to(images.device)
    drawn = uniform(seeds, Stream.CORRUPTED, 1) < probability
    mask = perlin_masks(seeds, size) & drawn[:, :, None]
    beta = (uniform(seeds, Stream.BETA, 1) * MAX_BETA)[:, :, None, None]

    # dividing by a number multiplies by its reciprocal on CUDA, which would round differently there
    white = torch.full((), 255.0, device=images.device)
    clean = images.reshape(B * V, 3, H, W) / white
    # clean + (1 - beta) M (texture - clean): the same blend, and outside the mask it adds exactly nothing
    corrupted = (texture / white).sub_(clean).mul_((1 - beta) * mask[:, None]).add_(clean)
    return corrupted.reshape(B, V, 3, H, W), mask.reshape(B, V, H, W)
