"""Autoencoders of latent diffusion models (diffusers' ``AutoencoderKL``): images to latents and back."""

import math
import re
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

from torch import Tensor, nn

from idif.encoders.autoencoder import LOGVAR, MU, STRIDE, latent_maps, latent_record, require_plain
from idif.encoders.family import EncoderFamily, FamilyMaker
from idif.encoders.hub import hub_weights
from idif.encoders.options import EncoderOptions
from idif.encoders.preparation import Normalization, SquareImage
from idif.errors import ConfigError

MINUS_ONE_TO_ONE = Normalization((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))

_FILE = "diffusion_pytorch_model.safetensors"
"""The weights' file in repositories of diffusers."""
_ATTENTION = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}
"""Names of an attention's layers in files of earlier versions of diffusers -> current names."""


@dataclass(frozen=True)
class Layout:
    """The sizes of an autoencoder with three halvings of the image."""

    channels: tuple[int, int, int, int]
    """Channels of the levels, fine to coarse; multiples of ``groups``."""
    layers: int
    """Residual blocks of each level of the encoder; the decoder has one more."""
    groups: int
    """Groups of the group norms."""
    latents: int
    """Channels of the latents."""
    factor: float
    """The latents are multiplied by it, so that their standard deviation is about 1."""
    repository: str
    """Repository of the published weights on the Hugging Face hub."""


SD_VAE = Layout((128, 256, 512, 512), 2, 32, 4, 0.18215, "stabilityai/sd-vae-ft-ema")
"""The autoencoder of Stable Diffusion, fine-tuned; published with the weights ``ft-ema`` and ``ft-mse``."""


class KLAutoencoder(nn.Module):
    """An autoencoder with a normal posterior, with diffusers' key names.

    float32 [N,3,S,S] in -1..1 -> {`MU`, `LOGVAR`: [N,C,S/8,S/8]} of the latents times ``factor``.
    """

    def __init__(self, net: Any, factor: float) -> None:
        super().__init__()
        self.net, self.factor = net, factor

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Mean and logarithm of the variance."""
        posterior = self.net.encode(images).latent_dist
        shift = 2 * math.log(self.factor)
        return {MU: posterior.mean * self.factor, LOGVAR: posterior.logvar + shift}

    def decode(self, latents: Tensor) -> Tensor:
        """Images in -1..1 of latents times ``factor``."""
        images: Tensor = self.net.decode(latents / self.factor).sample
        return images

    def state_dict(self, *args: Any, **kwargs: Any) -> Any:
        """The net's own, so that key names are diffusers'."""
        return self.net.state_dict(*args, **kwargs)

    def load_state_dict(self, *args: Any, **kwargs: Any) -> Any:
        """The net's own, so that key names are diffusers'."""
        return self.net.load_state_dict(*args, **kwargs)


def sd_vae_maker(name: str, layout: Layout) -> FamilyMaker:
    """The maker of the family ``name``."""
    return partial(_family, name, layout)


@cache
def _family(name: str, layout: Layout, options: EncoderOptions) -> EncoderFamily:
    require_plain(options, name)
    return EncoderFamily(
        build=partial(_build, name, layout),
        arrays=lambda size: latent_maps((MU, LOGVAR), layout.latents, size, name),
        preparation=latent_record(MINUS_ONE_TO_ONE, options, layout.factor),
        read=SquareImage(options.resize, options.crop_from),
        absent_shape=lambda size: (3, size, size),
        prepare=MINUS_ONE_TO_ONE,
        stride=STRIDE,
        key_names="diffusers' AutoencoderKL",
        pretrained=partial(hub_weights, name, layout.repository, _FILE),
        options=options,
        decode=_decode,
        current_name=_current_name,
    )


def _build(name: str, layout: Layout) -> nn.Module:
    try:
        from diffusers import AutoencoderKL
    except ImportError:
        raise ConfigError(f"encoder: {name} needs diffusers; install `idif[diffusion]`") from None
    levels = len(layout.channels)
    net = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * levels,
        up_block_types=("UpDecoderBlock2D",) * levels,
        block_out_channels=layout.channels,
        layers_per_block=layout.layers,
        latent_channels=layout.latents,
        norm_num_groups=layout.groups,
    )
    return KLAutoencoder(net, layout.factor)


def _decode(module: KLAutoencoder, latents: Tensor) -> Tensor:
    return (module.decode(latents) + 1) / 2


def _current_name(name: str) -> str:
    match = re.fullmatch(r"(.+\.attentions\.\d+\.)(query|key|value|proj_attn)(\.(?:weight|bias))", name)
    return name if match is None else match[1] + _ATTENTION[match[2]] + match[3]
