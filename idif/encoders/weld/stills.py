"""DINOv3: all tokens of some blocks of a vision transformer, and the mean token of a later one."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor, nn

from idif.data.arrays import VIEW, ArraySpec
from idif.encoders.family import EncoderFamily, FamilyMaker
from idif.encoders.options import EncoderOptions
from idif.encoders.preparation import SquareImage, normalize, preparation_record
from idif.encoders.timm_models import pretrained_weights
from idif.errors import ConfigError

_ARCHITECTURE = "vit_huge_plus_patch16_dinov3"
_PATCH, _PREFIX = 16, 5
"""Side of a patch in pixels; tokens before those of patches: one of the class, four registers."""
DEPTH, MEAN_BLOCK = 32, 31
"""Blocks, counted from 1, and the one of whose output the mean is kept."""
DEFAULT = EncoderOptions(taps=(20,))
"""Taps are the blocks of whose output all tokens are kept."""


@dataclass(frozen=True)
class StillSize:
    """One size of the transformer; None: as published."""

    width: int | None = None
    heads: int | None = None
    image_size: int = 224
    """Side of the images where none is given."""


class _StillEncoder(nn.Module):
    """float32 [N,3,S,S], normalized -> {img_b20: [N,5+(S/16)^2,width], img_b31_mean: [N,width]}.

    Other taps than 20 give arrays of their own, before the mean.
    """

    def __init__(self, size: StillSize, name: str, taps: Sequence[int]) -> None:
        super().__init__()
        self.net = _create(size, name)
        self._taps = tuple(taps)
        self.net.prune_intermediate_layers([max(*taps, MEAN_BLOCK) - 1], prune_norm=True, prune_head=True)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """The arrays; see the class."""
        numbers = sorted({*self._taps, MEAN_BLOCK})
        outputs = self.net.forward_intermediates(
            images,
            indices=[number - 1 for number in numbers],
            norm=False,
            output_fmt="NLC",
            return_prefix_tokens=True,
            intermediates_only=True,
        )
        tokens = {
            number: torch.cat([prefix, patches], dim=1)
            for number, (patches, prefix) in zip(numbers, outputs, strict=True)
        }
        arrays = {f"img_b{number}": tokens[number] for number in self._taps}
        return arrays | {f"img_b{MEAN_BLOCK}_mean": tokens[MEAN_BLOCK].mean(dim=1)}

    def state_dict(self, *args: Any, **kwargs: Any) -> Any:
        """The net's own, so that key names are timm's."""
        return self.net.state_dict(*args, **kwargs)

    def load_state_dict(self, *args: Any, **kwargs: Any) -> Any:
        """The net's own, so that key names are timm's."""
        return self.net.load_state_dict(*args, **kwargs)


def still_maker(name: str, size: StillSize) -> FamilyMaker:
    """The maker of a size of DINOv3 ViT-H/16+ under a name of `ENCODERS`, with the option ``taps``."""
    return partial(_still_family, name, size)


def _still_family(name: str, size: StillSize, options: EncoderOptions) -> EncoderFamily:
    chosen = replace(options, taps=options.taps or DEFAULT.taps)
    if chosen != replace(DEFAULT, taps=chosen.taps):
        raise ConfigError(f"neck, padding, resize, crop_from: {name} has no such options")
    if min(chosen.taps) < 1 or max(chosen.taps) > DEPTH:
        raise ConfigError(f"taps: {name} has blocks 1 to {DEPTH}, got {list(chosen.taps)}")
    width = 1280 if size.width is None else size.width

    def arrays(image_size: int) -> tuple[ArraySpec, ...]:
        tokens = _PREFIX + (image_size // _PATCH) ** 2
        return (
            *(
                ArraySpec(
                    f"img_b{number}",
                    (VIEW, "token", "channel"),
                    (tokens, width),
                    "float32",
                    name,
                    signed=True,
                )
                for number in chosen.taps
            ),
            ArraySpec(f"img_b{MEAN_BLOCK}_mean", (VIEW, "channel"), (width,), "float32", name, signed=True),
        )

    def pretrained() -> Mapping[str, Tensor]:
        return pretrained_weights(_ARCHITECTURE, name)

    return EncoderFamily(
        build=lambda: _StillEncoder(size, name, chosen.taps),
        arrays=arrays,
        preparation=preparation_record(normalize, chosen, default=DEFAULT)
        | {"blocks": f"counted from 1, without norm; tokens of the taps, mean of {MEAN_BLOCK}"},
        read=SquareImage(),
        prepare=normalize,
        stride=_PATCH,
        key_names=f"timm's {_ARCHITECTURE}",
        pretrained=pretrained if size.width is None else None,
        absent_shape=lambda image_size: (3, image_size, image_size),
        image_size=size.image_size,
        options=chosen,
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
    own: dict[str, Any] = {"embed_dim": size.width, "num_heads": size.heads}
    return timm.create_model(
        _ARCHITECTURE,
        num_classes=0,
        dynamic_img_size=True,
        **{key: value for key, value in own.items() if value is not None},
    )
