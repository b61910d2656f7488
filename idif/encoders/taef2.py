"""``taef2``: a tiny convolutional autoencoder of 32 latent channels, with madebyollin's key names.

It stands in for a latent diffusion model's autoencoder where that is too slow, e.g. on a CPU. It has no
posterior and gives the latents alone, as a mean without a variance.
"""

from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

from idif.encoders.autoencoder import MU, STRIDE, latent_maps, latent_record, require_plain
from idif.encoders.family import EncoderFamily
from idif.encoders.options import EncoderOptions
from idif.encoders.preparation import Normalization, SquareImage

LATENTS, WIDTH = 32, 64
"""Channels of the latents, and of every layer between them and an image."""
BOUND = 3.0
"""Latents reach the decoder through ``BOUND * tanh(x / BOUND)``."""
FACTOR = 1.0
"""Factor of the latents: their standard deviation is about 0.8 as they are."""

UNCHANGED = Normalization((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))


class Block(nn.Module):
    """Three convolutions with a residual connection; where ``pooled``, after a layer over all positions.

    That layer's group norm, over the whole image, is all that carries information between distant positions.
    """

    def __init__(self, pooled: bool = False) -> None:
        super().__init__()
        self.conv = nn.Sequential(_conv(), nn.ReLU(), _conv(), nn.ReLU(), _conv())
        self.pool = (
            nn.Sequential(
                nn.Conv2d(WIDTH, 4 * WIDTH, 1, bias=False),
                nn.GroupNorm(4, 4 * WIDTH),
                nn.ReLU(),
                nn.Conv2d(4 * WIDTH, WIDTH, 1, bias=False),
            )
            if pooled
            else None
        )

    def forward(self, x: Tensor) -> Tensor:
        """[N,64,h,w] -> the same shape."""
        if self.pool is not None:
            x = x + self.pool(x)
        return torch.relu(self.conv(x) + x)


class Bound(nn.Module):
    """A smooth bound of the latents' magnitude."""

    def forward(self, latents: Tensor) -> Tensor:
        """Latents of any shape, in -3..3."""
        return BOUND * torch.tanh(latents / BOUND)


def _conv(inputs: int = WIDTH, outputs: int = WIDTH, **options: Any) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, padding=1, **options)


def _blocks(pooled: bool = False) -> list[nn.Module]:
    return [Block(pooled) for _ in range(3)]


def _doubled() -> list[nn.Module]:
    return [nn.Upsample(scale_factor=2), _conv(bias=False)]


class TinyAutoencoder(nn.Module):
    """float32 [N,3,S,S] in 0..1 -> {`MU`: [N,32,S/8,S/8]}."""

    def __init__(self) -> None:
        super().__init__()
        halved = [_conv(stride=2, bias=False) for _ in range(3)]
        self.encoder = nn.Sequential(
            *(_conv(3, WIDTH), Block()),
            *(halved[0], *_blocks()),
            *(halved[1], *_blocks()),
            *(halved[2], *_blocks(pooled=True)),
            _conv(WIDTH, LATENTS),
        )
        self.decoder = nn.Sequential(
            *(Bound(), _conv(LATENTS, WIDTH), nn.ReLU()),
            *(*_blocks(pooled=True), *_doubled()),
            *(*_blocks(), *_doubled()),
            *(*_blocks(), *_doubled()),
            *(Block(), _conv(WIDTH, 3)),
        )

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """The latents."""
        return {MU: self.encoder(images)}

    def decode(self, latents: Tensor) -> Tensor:
        """Images, about 0..1, of latents [N,32,h,w]."""
        images: Tensor = self.decoder(latents)
        return images


@cache
def taef2_family(options: EncoderOptions) -> EncoderFamily:
    """The family ``taef2``.

    Raises:
        ConfigError: the options have taps, a neck or a padding.
    """
    require_plain(options, "taef2")
    return EncoderFamily(
        build=TinyAutoencoder,
        arrays=lambda size: latent_maps((MU,), LATENTS, size, "taef2"),
        preparation=latent_record(UNCHANGED, options, FACTOR),
        read=SquareImage(options.resize, options.crop_from),
        absent_shape=lambda size: (3, size, size),
        prepare=UNCHANGED,
        stride=STRIDE,
        key_names="taef2's",
        pretrained=None,
        options=options,
        decode=TinyAutoencoder.decode,
    )
