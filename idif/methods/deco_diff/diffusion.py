"""Noise levels, the corruption that training undoes, and the deterministic way back to normal latents."""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

STEPS = 10
"""Noise levels."""


def betas() -> Tensor:
    """float64 [10]: the squared-cosine schedule (Nichol and Dhariwal, ICML 2021), at most 0.999."""

    def level(share: float) -> float:
        return math.cos((share + 0.008) / 1.008 * math.pi / 2) ** 2

    steps = [1 - level((step + 1) / STEPS) / level(step / STEPS) for step in range(STEPS)]
    return torch.tensor(steps, dtype=torch.float64).clamp(max=0.999)


def signal_levels() -> Tensor:
    """float64 [10]: the share of the signal's variance at each timestep."""
    return torch.cumprod(1 - betas(), dim=0)


def noise_scale() -> Tensor:
    """float32 [10]: standard deviation of the noise at each timestep."""
    return (1 - signal_levels()).sqrt().float()


def latent_scale() -> Tensor:
    """float32 [10]: factor of the clean latent in the deviation of each timestep."""
    levels = signal_levels()
    return ((1 - levels.sqrt()) / (1 - levels).sqrt()).float()


def reverse_timesteps(steps: int) -> list[int]:
    """The timesteps of a number of reverse steps, descending: the least even stride that gives so many.

    Raises:
        ValueError: no stride does.
    """
    for stride in range(1, STEPS):
        spaced = range(0, STEPS, stride)
        if len(spaced) == steps:
            return list(spaced)[::-1]
    raise ValueError(f"reverse_steps: expected 2, 3, 4, 5 or 10, got {steps}")


class Corrupted(NamedTuple):
    """Latents of a training step; all [N,C,h,w]."""

    latents: Tensor
    """The clean latents, corrupted where ``mask`` is 1."""
    deviation: Tensor
    """Target of the prediction; zero where ``mask`` is 0."""
    mask: Tensor
    """[N,1,h,w]: 1 on corrupted positions."""


def random_patches(
    count: int, grid: tuple[int, int], patch: int, most: float, generator: torch.Generator
) -> Tensor:
    """Float32 [N,1,h,w]: 1 on random patches, a share of them uniform in [0, ``most``) for each of N.

    The number of patches that stay 0 is rounded down.
    """
    rows, columns = grid[0] // patch, grid[1] // patch
    cells, device = rows * columns, generator.device
    share = torch.rand(count, 1, generator=generator, device=device) * most
    kept = (cells * (1 - share)).long()
    place = torch.rand(count, cells, generator=generator, device=device).argsort(dim=1).argsort(dim=1)
    chosen = (place >= kept).float().view(count, 1, rows, columns)
    return chosen.repeat_interleave(patch, dim=2).repeat_interleave(patch, dim=3)


def shuffled_patches(latents: Tensor, patch: int, generator: torch.Generator) -> Tensor:
    """The latents [N,C,h,w] with all patches of all of them in random order."""
    count, channels, height, width = latents.shape
    rows, columns = height // patch, width // patch
    cut = latents.view(count, channels, rows, patch, columns, patch).permute(0, 2, 4, 1, 3, 5)
    patches = cut.reshape(count * rows * columns, channels, patch, patch)
    order = torch.randperm(len(patches), generator=generator, device=generator.device)
    back = patches[order].view(count, rows, columns, channels, patch, patch).permute(0, 3, 1, 4, 2, 5)
    return back.reshape(latents.shape)


def corrupt(
    latents: Tensor,
    timesteps: Tensor,
    patch: int,
    generator: torch.Generator,
    *,
    corrupted: float,
    shuffled: float,
) -> Corrupted:
    """Corrupt random patches of clean latents [N,C,h,w] to the noise levels of ``timesteps`` int64 [N].

    Args:
        latents: clean latents.
        timesteps: noise level of each.
        patch: side of the patches.
        generator: all randomness, on the latents' device.
        corrupted: largest share of corrupted patches.
        shuffled: largest share of patches whose noise is a patch of other latents.
    """
    grid = (latents.shape[2], latents.shape[3])
    mask = random_patches(len(latents), grid, patch, corrupted, generator)
    replaced = random_patches(len(latents), grid, patch, shuffled, generator)
    gaussian = torch.randn(latents.shape, generator=generator, device=generator.device)
    noise = torch.where(replaced > 0, shuffled_patches(latents, patch, generator), gaussian)
    spread = noise_scale().to(latents.device)[timesteps].view(-1, 1, 1, 1)
    share = latent_scale().to(latents.device)[timesteps].view(-1, 1, 1, 1)
    deviation = mask * (noise - share * latents)
    return Corrupted(latents + spread * deviation, deviation, mask)


def correct(latents: Tensor, steps: int, deviation: Callable[[Tensor, int], Tensor]) -> Tensor:
    """Normal latents: the deviation is taken off in ``steps`` steps, as in DDIM without noise.

    Args:
        latents: [N,C,h,w]; taken for latents of the highest noise level.
        steps: see `reverse_timesteps`.
        deviation: (latents, timestep) -> the predicted deviation.
    """
    levels = reverse_timesteps(steps)
    spreads = [float(noise_scale()[level]) for level in levels] + [0.0]
    for level, spread, following in zip(levels, spreads, spreads[1:], strict=False):
        predicted = deviation(latents, level)
        latents = latents - spread * predicted + following * predicted
    return latents
