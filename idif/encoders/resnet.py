"""ResNet encoders (He et al., CVPR 2016) and their relatives, with torchvision's key names and weights."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import Any
from urllib.error import URLError

import torch
from torch import Tensor, nn

from idif.data.arrays import ArraySpec, feature_map
from idif.encoders.family import EncoderFamily, FamilyMaker
from idif.encoders.necks import NECKS
from idif.encoders.options import EncoderOptions
from idif.encoders.preparation import SquareImage, normalize, preparation_record, reflect_padding
from idif.errors import ConfigError, WeightsError

LAYERS = {2: "stem", 4: "layer1", 8: "layer2", 16: "layer3", 32: "layer4"}
"""Stride -> layer; the stem's tap is its activation before the pooling."""
DEFAULT_TAPS = (4, 8, 16)


@dataclass(frozen=True)
class Architecture:
    """One network of torchvision."""

    name: str
    """torchvision's name, also that of configs."""
    title: str
    expansion: int
    """Channels of a block's output by those of its inner convolutions, in the basic network."""

    def channels(self, stride: int) -> int:
        """Channels of the tap at a stride."""
        return 64 if stride == 2 else 16 * stride * self.expansion

    def build(self) -> nn.Module:
        """The untrained network."""
        # imported where it is used, here and below: commands that build no ResNet save seconds
        from torchvision.models import get_model

        network: nn.Module = get_model(self.name, weights=None)
        return network

    def imagenet(self) -> Any:
        """torchvision's entry of the weights that configs call ``imagenet``: their URL and a loader."""
        from torchvision.models import get_model_weights

        return get_model_weights(self.name).IMAGENET1K_V1


ARCHITECTURES = {
    architecture.name: architecture
    for architecture in (
        Architecture("resnet18", "ResNet18", 1),
        Architecture("resnet34", "ResNet34", 1),
        Architecture("resnet50", "ResNet50", 4),
        Architecture("resnet101", "ResNet101", 4),
        Architecture("resnet152", "ResNet152", 4),
        Architecture("wide_resnet50_2", "Wide ResNet50-2", 4),
        Architecture("resnext50_32x4d", "ResNeXt50 32x4d", 4),
    )
}


class ResNetTrunk(nn.Module):
    """A ResNet up to its last tap, with torchvision's key names.

    float32 [N,3,H,W], ImageNet-normalized -> the neck's arrays of {layer: [N,C,H/stride,W/stride]}.
    """

    def __init__(self, net: Any, options: EncoderOptions) -> None:
        """Take over the layers of torchvision's ``net`` up to the last of ``options.taps``."""
        super().__init__()
        self.conv1, self.bn1, self.relu, self.maxpool = net.conv1, net.bn1, net.relu, net.maxpool
        self._tapped = [LAYERS[stride] for stride in options.taps]
        self._stages = [name for stride, name in LAYERS.items() if 2 < stride <= options.taps[-1]]
        for name in self._stages:
            setattr(self, name, getattr(net, name))
        self._neck = NECKS[options.neck].apply

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """The arrays; see the class."""
        x = self.relu(self.bn1(self.conv1(images)))
        maps = {"stem": x}
        if self._stages:
            x = self.maxpool(x)
        for name in self._stages:
            x = getattr(self, name)(x)
            maps[name] = x
        return self._neck({name: maps[name] for name in self._tapped})


def resnet_maker(name: str) -> FamilyMaker:
    """The maker of the family ``name``, a key of `ARCHITECTURES`."""
    return partial(_resnet_family, name)


@cache
def _resnet_family(name: str, options: EncoderOptions) -> EncoderFamily:
    architecture = ARCHITECTURES[name]
    default = EncoderOptions(taps=DEFAULT_TAPS)
    chosen = replace(options, taps=options.taps or DEFAULT_TAPS)
    for stride in chosen.taps:
        if stride not in LAYERS:
            raise ConfigError(f"taps: {name} has strides {', '.join(map(str, LAYERS))}, got {stride}")
    deepest = chosen.taps[-1]

    def build() -> nn.Module:
        trunk = ResNetTrunk(architecture.build(), chosen)
        if chosen.padding == "reflect":
            reflect_padding(trunk, name)
        return trunk

    def arrays(image_size: int) -> tuple[ArraySpec, ...]:
        taps = [
            feature_map(LAYERS[stride], architecture.channels(stride), image_size // stride, name)
            for stride in chosen.taps
        ]
        return NECKS[chosen.neck].arrays(taps)

    def whole_network() -> frozenset[str]:
        with torch.device("meta"):
            return frozenset(architecture.build().state_dict())

    return EncoderFamily(
        build=build,
        arrays=arrays,
        preparation=preparation_record(normalize, chosen, default=default),
        read=SquareImage(chosen.resize, chosen.crop_from),
        absent_shape=lambda size: (3, size, size),
        prepare=normalize,
        stride=deepest,
        # reflection needs maps larger than its width
        smallest=2 * deepest if chosen.padding == "reflect" else deepest,
        key_names=f"torchvision's {architecture.title}",
        pretrained=partial(_imagenet, architecture),
        options=chosen,
        whole_network=whole_network,
    )


def _imagenet(architecture: Architecture) -> Mapping[str, Tensor]:
    weights = architecture.imagenet()
    try:
        state: Mapping[str, Tensor] = weights.get_state_dict(progress=False, check_hash=True)
    except (URLError, OSError, RuntimeError) as error:
        cached = Path(torch.hub.get_dir()) / "checkpoints"
        raise WeightsError(
            f"ImageNet weights of {architecture.title} are neither in {cached} nor can they be downloaded "
            f"({error}); put {weights.url} there, give a .safetensors or .pth file, or ask for untrained "
            "weights"
        ) from None
    return state
