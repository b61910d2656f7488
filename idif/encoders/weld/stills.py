"""DINOv3: all tokens of one block of a vision transformer, and the mean token of a later block."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

from idif.data.arrays import VIEW, ArraySpec
from idif.encoders.family import EncoderFamily
from idif.encoders.options import NO_OPTIONS
from idif.encoders.preparation import SquareImage, normalize, preparation_record
from idif.encoders.timm_models import pretrained_weights
from idif.errors import ConfigError

_ARCHITECTURE = "vit_huge_plus_patch16_dinov3"
_PATCH, _PREFIX = 16, 5
"""Side of a patch in pixels; tokens before those of patches: one of the class, four registers."""
TOKEN_BLOCK, MEAN_BLOCK = 20, 31
"""Blocks, counted from 1, whose outputs are kept: all tokens, and their mean."""


@dataclass(frozen=True)
class StillSize:
    """One size of the transformer; None: as published."""

    width: int | None = None
    heads: int | None = None
    image_size: int = 224
    """Side of the images where none is given."""


class _StillEncoder(nn.Module):
    """float32 [N,3,S,S], normalized -> {img_b20: [N,5+(S/16)^2,width], img_b31_mean: [N,width]}."""

    def __init__(self, size: StillSize, name: str) -> None:
        super().__init__()
        self.net = _create(size, name)
        self.net.prune_intermediate_layers([MEAN_BLOCK - 1], prune_norm=True, prune_head=True)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """The arrays; see the class."""
        blocks = self.net.forward_intermediates(
            images,
            indices=[TOKEN_BLOCK - 1, MEAN_BLOCK - 1],
            norm=False,
            output_fmt="NLC",
            return_prefix_tokens=True,
            intermediates_only=True,
        )
        tokens, last = (torch.cat([prefix, patches], dim=1) for patches, prefix in blocks)
        return {f"img_b{TOKEN_BLOCK}": tokens, f"img_b{MEAN_BLOCK}_mean": last.mean(dim=1)}

    def state_dict(self, *args: Any, **kwargs: Any) -> Any:
        """The net's own, so that key names are timm's."""
        return self.net.state_dict(*args, **kwargs)

    def load_state_dict(self, *args: Any, **kwargs: Any) -> Any:
        """The net's own, so that key names are timm's."""
        return self.net.load_state_dict(*args, **kwargs)


def still_family(name: str, size: StillSize) -> EncoderFamily:
    """The family of a size of DINOv3 ViT-H/16+ under a name of `ENCODERS`."""
    width = 1280 if size.width is None else size.width

    def arrays(image_size: int) -> tuple[ArraySpec, ...]:
        tokens = _PREFIX + (image_size // _PATCH) ** 2
        return (
            ArraySpec(
                f"img_b{TOKEN_BLOCK}",
                (VIEW, "token", "channel"),
                (tokens, width),
                "float32",
                name,
                signed=True,
            ),
            ArraySpec(f"img_b{MEAN_BLOCK}_mean", (VIEW, "channel"), (width,), "float32", name, signed=True),
        )

    def pretrained() -> Mapping[str, Tensor]:
        return pretrained_weights(_ARCHITECTURE, name)

    return EncoderFamily(
        build=lambda: _StillEncoder(size, name),
        arrays=arrays,
        preparation=preparation_record(normalize, NO_OPTIONS)
        | {"blocks": f"tokens of {TOKEN_BLOCK}, mean of {MEAN_BLOCK}, from 1, without norm"},
        read=SquareImage(),
        prepare=normalize,
        stride=_PATCH,
        key_names=f"timm's {_ARCHITECTURE}",
        pretrained=pretrained if size.width is None else None,
        absent_shape=lambda image_size: (3, image_size, image_size),
        image_size=size.image_size,
        whole_network=lambda: _key_names(size, name),
    )


@cache
def _key_names(size: StillSize, name: str) -> frozenset[str]:
    with torch.device("meta"):
        return frozenset(_create(size, name).state_dict())


def _create(size: StillSize, name: str) -> Any:
    try:
        import timm
    except ImportError:
        raise ConfigError(f"encoder: {name} needs timm; install `idif[weld]`") from None
    own = {"embed_dim": size.width, "num_heads": size.heads}
    return timm.create_model(
        _ARCHITECTURE,
        num_classes=0,
        dynamic_img_size=True,
        **{key: value for key, value in own.items() if value is not None},
    )
