"""Frozen encoders: plain functions in one literal dict, with their weights found, checked and hashed."""

import hashlib
import os
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.error import URLError

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torchvision.models import ResNet18_Weights, resnet18

from idif.data.features import FeatureSpec, LayerSpec, StorageType
from idif.data.images import IMAGENET_MEAN, IMAGENET_STD, RESIZE_RULE
from idif.errors import WeightsError

UNTRAINED_SEED = 0
"""Seed of the ``untrained`` weights, so that every machine has the same ones."""


class ResNet18Trunk(nn.Module):
    """ResNet18 from conv1 to layer3, torchvision's key names.

    float32 [N,3,H,W], ImageNet-normalised -> {layer1: [N,64,H/4,W/4], layer2: [N,128,H/8,W/8],
    layer3: [N,256,H/16,W/16]}.
    """

    def __init__(self) -> None:
        super().__init__()
        net = resnet18(weights=None)
        self.conv1, self.bn1, self.relu, self.maxpool = net.conv1, net.bn1, net.relu, net.maxpool
        self.layer1, self.layer2, self.layer3 = net.layer1, net.layer2, net.layer3

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Features of all three layers, see the class."""
        x = self.maxpool(self.relu(self.bn1(self.conv1(images))))
        layer1 = self.layer1(x)
        layer2 = self.layer2(layer1)
        return {"layer1": layer1, "layer2": layer2, "layer3": self.layer3(layer2)}


@dataclass(frozen=True)
class EncoderFamily:
    """How to make an encoder and what its layers are."""

    build: Callable[[], nn.Module]
    layers: tuple[LayerSpec, ...]


ENCODERS: dict[str, EncoderFamily] = {
    "resnet18": EncoderFamily(
        ResNet18Trunk,
        (LayerSpec("layer1", 64, 4), LayerSpec("layer2", 128, 8), LayerSpec("layer3", 256, 16)),
    ),
}


@dataclass(frozen=True)
class FrozenEncoder:
    """An encoder in eval mode that takes no gradient, with the name and hash of its weights."""

    name: str
    weights: str
    """``imagenet``, ``untrained`` or ``file``."""
    sha256: str
    module: nn.Module

    @property
    def layers(self) -> tuple[LayerSpec, ...]:
        """Its layers, shallow to deep."""
        return ENCODERS[self.name].layers

    def spec(self, image_size: int, storage: StorageType) -> FeatureSpec:
        """The spec of this encoder's features at one image size and storage type."""
        return FeatureSpec(
            encoder=self.name,
            weights=self.weights,
            weights_sha256=self.sha256,
            layers=self.layers,
            image_size=image_size,
            resize=RESIZE_RULE,
            mean=IMAGENET_MEAN,
            std=IMAGENET_STD,
            precision="float32",
            storage=storage,
        )

    @torch.no_grad()
    def __call__(self, images: Tensor) -> dict[str, Tensor]:
        """uint8 [N,3,H,W], RGB, or float32 in 0..1 -> {layer: float32 [N,C,h,w]}, on their device."""
        result: dict[str, Tensor] = self.module(normalize(images))
        return result


def normalize(images: Tensor) -> Tensor:
    """uint8 [...,3,H,W] in 0..255 or float in 0..1 -> float32, ImageNet mean and spread taken out."""
    scaled = images.float() / 255 if images.dtype == torch.uint8 else images
    mean = scaled.new_tensor(IMAGENET_MEAN).view(3, 1, 1)
    std = scaled.new_tensor(IMAGENET_STD).view(3, 1, 1)
    return (scaled - mean) / std


def hash_weights(weights: Mapping[str, Tensor]) -> str:
    """SHA-256 (hex) over names, types, shapes and bytes, in the order of the names."""
    sha = hashlib.sha256()
    for name in sorted(weights):
        array = weights[name].detach().cpu().contiguous().numpy()
        sha.update(f"{name}|{array.dtype.str}|{array.shape}|".encode())
        sha.update(array.tobytes())
    return sha.hexdigest()


def _read_weights_file(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        raise WeightsError(
            f"{path}: no such weights file; expected imagenet, untrained, or a .safetensors or .pth file"
        )
    try:
        if path.suffix == ".safetensors":
            return dict(load_file(path))
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except (SafetensorError, OSError, RuntimeError, EOFError, ValueError, KeyError) as error:
        raise WeightsError(f"{path}: not readable as encoder weights ({error})") from None
    except Exception as error:  # torch raises pickle's own errors for anything it will not unpickle
        raise WeightsError(f"{path}: not readable as encoder weights ({type(error).__name__})") from None
    if not isinstance(loaded, dict) or not all(isinstance(value, Tensor) for value in loaded.values()):
        raise WeightsError(f"{path}: expected a dictionary of tensors with torchvision's key names")
    return loaded


def _imagenet_weights() -> dict[str, Tensor]:
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


def load_encoder(weights: str | os.PathLike[str] = "imagenet", name: str = "resnet18") -> FrozenEncoder:
    """A frozen encoder on the CPU.

    Args:
        weights: ``imagenet`` (torchvision's cache or a download), ``untrained`` (seeded, for pipelines and
            tests) or a ``.safetensors`` / ``.pth`` file with torchvision's key names; keys beyond the last
            layer used may be there or not.
        name: a key of `ENCODERS`.

    Raises:
        WeightsError: not found, not readable, or a tensor missing, misshapen or not finite.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(UNTRAINED_SEED)
        module = ENCODERS[name].build()
    origin = str(weights) if str(weights) in ("imagenet", "untrained") else "file"
    if origin != "untrained":
        given = _imagenet_weights() if origin == "imagenet" else _read_weights_file(Path(weights))
        _fill(module, given, str(weights))
    module.eval().requires_grad_(False)
    # counters of batches seen do not change a feature, so they are no part of the identity
    state = {k: v for k, v in module.state_dict().items() if not k.endswith("num_batches_tracked")}
    return FrozenEncoder(name=name, weights=origin, sha256=hash_weights(state), module=module)


def _fill(module: nn.Module, given: Mapping[str, Tensor], source: str) -> None:
    wanted = module.state_dict()
    chosen: dict[str, Tensor] = {}
    for key, default in wanted.items():
        if key not in given:
            if key.endswith("num_batches_tracked"):
                continue
            raise WeightsError(
                f"{source}: tensor {key!r} is missing; expected torchvision's ResNet18 key names"
            )
        tensor = given[key]
        if tensor.shape != default.shape:
            raise WeightsError(
                f"{source}: tensor {key!r} has shape {list(tensor.shape)}, expected {list(default.shape)}"
            )
        if tensor.is_floating_point() and not torch.isfinite(tensor).all():
            raise WeightsError(f"{source}: tensor {key!r} holds values that are not finite")
        chosen[key] = tensor.to(default.dtype)
    module.load_state_dict(wanted | chosen)
