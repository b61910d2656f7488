"""Frozen encoders: the families in `ENCODERS`, and loading, checking and hashing of weights."""

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from idif.data.arrays import ArraySpec, with_variants
from idif.data.features import EncoderSpec
from idif.encoders.family import EncoderFamily
from idif.encoders.resnet import RESNET18
from idif.errors import ConfigError, WeightsError

UNTRAINED_SEED = 0
"""Seed of the ``untrained`` weights, which are the same on every machine."""

ENCODERS: dict[str, EncoderFamily] = {
    "resnet18": RESNET18,
}
"""Name in configs and stores -> family."""


@dataclass(frozen=True)
class FrozenEncoder:
    """An encoder in eval mode without gradients, with the name and hash of its weights."""

    name: str
    """Key of `ENCODERS`."""
    weights: str
    """``imagenet``, ``untrained`` or ``file``."""
    sha256: str
    module: nn.Module

    @property
    def family(self) -> EncoderFamily:
        """The family: architecture, input and output arrays."""
        return ENCODERS[self.name]

    def arrays(self, image_size: int) -> tuple[ArraySpec, ...]:
        """The output arrays for images of the given size, in order."""
        return self.family.arrays(image_size)

    def spec(self, image_size: int, variants: bool = False) -> EncoderSpec:
        """The `EncoderSpec` for a `FeatureSpec`; ``variants`` prepends the axis ``variant`` to all arrays."""
        arrays = self.arrays(image_size)
        return EncoderSpec(
            name=self.name,
            weights=self.weights,
            weights_sha256=self.sha256,
            input=self.family.input,
            preparation=self.family.preparation,
            arrays=tuple(with_variants(array) for array in arrays) if variants else arrays,
        )

    @torch.no_grad()
    def __call__(self, inputs: Tensor) -> dict[str, Tensor]:
        """Decoded inputs [N,...] -> {array: float32 [N,...]}, on their device.

        An image is uint8 [N,3,H,W], RGB, or float32 in 0..1.
        """
        result: dict[str, Tensor] = self.module(self.family.prepare(inputs))
        return result


def hash_weights(weights: Mapping[str, Tensor]) -> str:
    """SHA-256 (hex) over names, types, shapes and bytes, sorted by name."""
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
    except Exception as error:  # torch raises pickle's errors for content that it refuses to unpickle
        raise WeightsError(f"{path}: not readable as encoder weights ({type(error).__name__})") from None
    if not isinstance(loaded, dict) or not all(isinstance(value, Tensor) for value in loaded.values()):
        raise WeightsError(f"{path}: expected a dictionary of tensors with torchvision's key names")
    return loaded


def _pretrained(family: EncoderFamily) -> Mapping[str, Tensor]:
    if family.pretrained is None:
        raise WeightsError("imagenet: this encoder has no such weights; give a weights file or `untrained`")
    return family.pretrained()


def load_encoder(weights: str | os.PathLike[str] = "imagenet", name: str = "resnet18") -> FrozenEncoder:
    """A frozen encoder on the CPU.

    Args:
        weights: ``imagenet`` (torchvision's cache or a download), ``untrained`` (seeded, for pipelines and
            tests) or a ``.safetensors`` / ``.pth`` file with torchvision's key names; keys of layers after
            the last used one are optional.
        name: a key of `ENCODERS`.

    Raises:
        ConfigError: there is no such encoder.
        WeightsError: not found, unreadable, or a tensor is missing, not finite or of another shape.
    """
    if name not in ENCODERS:
        raise ConfigError(f"encoder: there is no {name!r}; known: {', '.join(ENCODERS)}")
    family = ENCODERS[name]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(UNTRAINED_SEED)
        module = family.build()
    origin = str(weights) if str(weights) in ("imagenet", "untrained") else "file"
    if origin != "untrained":
        given = _pretrained(family) if origin == "imagenet" else _read_weights_file(Path(weights))
        _fill(module, given, str(weights), family.key_names)
    module.eval().requires_grad_(False)
    # batch norm's batch counters do not affect features, so the hash excludes them
    state = {k: v for k, v in module.state_dict().items() if not k.endswith("num_batches_tracked")}
    return FrozenEncoder(name=name, weights=origin, sha256=hash_weights(state), module=module)


def _fill(module: nn.Module, given: Mapping[str, Tensor], source: str, key_names: str) -> None:
    wanted = module.state_dict()
    chosen: dict[str, Tensor] = {}
    for key, default in wanted.items():
        if key not in given:
            if key.endswith("num_batches_tracked"):
                continue
            raise WeightsError(f"{source}: tensor {key!r} is missing; expected {key_names} key names")
        tensor = given[key]
        if tensor.shape != default.shape:
            raise WeightsError(
                f"{source}: tensor {key!r} has shape {list(tensor.shape)}, expected {list(default.shape)}"
            )
        if tensor.is_floating_point() and not torch.isfinite(tensor).all():
            raise WeightsError(f"{source}: tensor {key!r} holds values that are not finite")
        chosen[key] = tensor.to(default.dtype)
    module.load_state_dict(wanted | chosen)
