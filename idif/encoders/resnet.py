"""ResNet encoders (He et al., CVPR 2016), with torchvision's key names and weights."""

from collections import OrderedDict
from pathlib import Path
from urllib.error import URLError

import torch
from torch import Tensor, nn
from torchvision.models import ResNet18_Weights, resnet18

from idif.data.arrays import ArraySpec, feature_map
from idif.data.images import IMAGENET_MEAN, IMAGENET_STD, RESIZE_RULE
from idif.encoders.family import EncoderFamily, read_square_image
from idif.errors import WeightsError


class ResNet18Trunk(nn.Module):
    """ResNet18 from conv1 to layer3, torchvision's key names.

    float32 [N,3,H,W], ImageNet-normalized -> {layer1: [N,64,H/4,W/4], layer2: [N,128,H/8,W/8],
    layer3: [N,256,H/16,W/16]}.
    """

    def __init__(self) -> None:
        super().__init__()
        net = resnet18(weights=None)
        self.conv1, self.bn1, self.relu, self.maxpool = net.conv1, net.bn1, net.relu, net.maxpool
        self.layer1, self.layer2, self.layer3 = net.layer1, net.layer2, net.layer3

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Features of all three layers; see the class."""
        x = self.maxpool(self.relu(self.bn1(self.conv1(images))))
        layer1 = self.layer1(x)
        layer2 = self.layer2(layer1)
        return {"layer1": layer1, "layer2": layer2, "layer3": self.layer3(layer2)}


def normalize(images: Tensor) -> Tensor:
    """uint8 [...,3,H,W] in 0..255 or float in 0..1 -> float32, normalized by ImageNet's mean and std."""
    scaled = images.float() / 255 if images.dtype == torch.uint8 else images
    mean = scaled.new_tensor(IMAGENET_MEAN).view(3, 1, 1)
    std = scaled.new_tensor(IMAGENET_STD).view(3, 1, 1)
    return (scaled - mean) / std


def _imagenet_resnet18() -> dict[str, Tensor]:
    try:
        state: OrderedDict[str, Tensor] = ResNet18_Weights.IMAGENET1K_V1.get_state_dict(
            progress=False, check_hash=True
        )
    except (URLError, OSError, RuntimeError) as error:
        cached = Path(torch.hub.get_dir()) / "checkpoints"
        url = ResNet18_Weights.IMAGENET1K_V1.url
        raise WeightsError(
            f"ImageNet weights of ResNet18 are neither in {cached} nor can they be downloaded ({error}); "
            f"put {url} there, give a .safetensors or .pth file, or ask for untrained weights"
        ) from None
    return state


def _resnet18_arrays(image_size: int) -> tuple[ArraySpec, ...]:
    taps = (("layer1", 64, 4), ("layer2", 128, 8), ("layer3", 256, 16))
    return tuple(
        feature_map(name, channels, image_size // stride, "resnet18") for name, channels, stride in taps
    )


RESNET18 = EncoderFamily(
    build=ResNet18Trunk,
    arrays=_resnet18_arrays,
    preparation={"resize": RESIZE_RULE, "mean": list(IMAGENET_MEAN), "std": list(IMAGENET_STD)},
    read=read_square_image,
    absent_shape=lambda size: (3, size, size),
    prepare=normalize,
    stride=16,
    key_names="torchvision's ResNet18",
    pretrained=_imagenet_resnet18,
)
