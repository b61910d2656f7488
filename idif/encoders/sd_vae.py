"""Autoencoders of latent diffusion models (diffusers' ``AutoencoderKL``): images to latents and back."""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from idif.encoders.autoencoder import LOGVAR, MU, STRIDE, latent_maps, latent_record, require_plain
from idif.encoders.family import EncoderFamily, FamilyMaker
from idif.encoders.hub import cached_file, require_network
from idif.encoders.options import EncoderOptions
from idif.encoders.preparation import Normalization, SquareImage
from idif.encoders.weights_file import read_weights_file
from idif.errors import ConfigError, WeightsError

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
        pretrained=partial(_pretrained, name, layout.repository),
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


def _pretrained(name: str, repository: str) -> Mapping[str, Tensor]:
    try:
        from huggingface_hub import hf_hub_download

        # a file in the cache is found without asking the network, which would be tried for a minute
        found = cached_file(repository, _FILE)
        if found is None:
            require_network()
            found = hf_hub_download(repository, _FILE)
    except Exception as error:  # the hub's client raises its HTTP library's exceptions too
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise WeightsError(
            f"pretrained weights of {name} are not in the cache of the Hugging Face hub and cannot be "
            f"downloaded ({reason}); get https://huggingface.co/{repository}/resolve/main/{_FILE} and give "
            "that file or its folder, or ask for untrained weights"
        ) from None
    return read_weights_file(Path(found))
