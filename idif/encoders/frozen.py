"""Frozen encoders: the families in `ENCODERS`, and loading, checking and hashing of weights."""

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from idif.data.arrays import VIEW, ArraySpec, with_variants
from idif.data.features import EncoderSpec
from idif.data.index import Index
from idif.encoders.autoencoder import MU
from idif.encoders.family import EncoderFamily, FamilyMaker
from idif.encoders.options import DECODED, NO_OPTIONS, EncoderOptions
from idif.encoders.resnet import ARCHITECTURES, resnet_maker
from idif.encoders.sd_vae import SD_VAE, sd_vae_maker
from idif.encoders.taef2 import taef2_family
from idif.encoders.timm_models import ALIASES, PREFIX, timm_maker
from idif.encoders.weights_file import read_weights_file
from idif.encoders.weld.catalog import WELD_ENCODERS, WELD_SETS
from idif.errors import ConfigError, DatasetError, WeightsError
from idif.paths import resolve_inside

UNTRAINED_SEED = 0
"""Seed of the ``untrained`` weights, which are the same on every machine."""

ENCODERS: dict[str, FamilyMaker] = {
    **{name: resnet_maker(name) for name in ARCHITECTURES},
    **{name: timm_maker(model, name) for name, model in ALIASES.items()},
    "sd_vae": sd_vae_maker("sd_vae", SD_VAE),
    "taef2": taef2_family,
    **WELD_ENCODERS,
}
"""Name in configs and stores -> maker of the family. Names with the prefix ``timm:`` need no entry."""

LEARNED = "training"
"""Origin of weights that are statistics of the training samples, whatever weights are asked for."""

ENCODER_SETS: Mapping[str, tuple[str, ...]] = WELD_SETS
"""Name that configs and commands may give for several encoders together -> names of the encoders."""


def encoder_names(name: str) -> tuple[str, ...]:
    """The encoders that a name stands for: those of a set, or itself."""
    return ENCODER_SETS.get(name, (name,))


def is_known(name: str) -> bool:
    """Whether there may be an encoder of this name: timm's models are not looked up."""
    return name in ENCODERS or name.startswith(PREFIX)


def find_family(name: str, options: EncoderOptions = NO_OPTIONS) -> EncoderFamily:
    """The family of an encoder with the given options.

    Args:
        name: a key of `ENCODERS`, or a timm model's name after ``timm:``.

    Raises:
        ConfigError: there is no such encoder, or the options do not fit it.
    """
    plain = replace(options, decoded=False)
    if name in ENCODERS:
        family = ENCODERS[name](plain)
        return _with_decoded(family, name) if options.decoded else family
    if name.startswith(PREFIX) and not options.decoded:
        return timm_maker(name.removeprefix(PREFIX), name)(plain)
    if name.startswith(PREFIX):
        raise ConfigError(f"decoded: {name} has no decoder")
    raise ConfigError(f"encoder: there is no {name!r}; known: {', '.join(ENCODERS)}, {PREFIX}NAME")


def _with_decoded(family: EncoderFamily, name: str) -> EncoderFamily:
    """The family of an autoencoder that also gives `DECODED`."""
    if family.decode is None:
        raise ConfigError(f"decoded: {name} has no decoder")

    def arrays(size: int) -> tuple[ArraySpec, ...]:
        view = ArraySpec(DECODED, (VIEW, "rgb", "y", "x"), (3, size, size), "float32", name, signed=True)
        return (*family.arrays(size), view)

    return replace(family, arrays=arrays, options=replace(family.options, decoded=True))


@dataclass(frozen=True)
class FrozenEncoder:
    """An encoder in eval mode without gradients, with the name and hash of its weights."""

    name: str
    """As that of `find_family`."""
    weights: str
    """``imagenet``, ``untrained``, ``file`` or ``training`` (statistics of the training samples)."""
    sha256: str
    module: nn.Module
    options: EncoderOptions = NO_OPTIONS

    @property
    def family(self) -> EncoderFamily:
        """The family: architecture, input and output arrays."""
        return find_family(self.name, self.options)

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
        family = self.family
        result: dict[str, Tensor] = self.module(family.prepare(inputs))
        if self.options.decoded and family.decode is not None:
            result[DECODED] = family.decode(self.module, result[MU])
        return result

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        """Images float32 [N,3,S,S], RGB, about 0..1, of latents [N,C,h,w], on the latents' device.

        The module is moved there. Only for encoders whose family has a decoder.
        """
        decode = self.family.decode
        assert decode is not None, f"{self.name} has no decoder"
        return decode(self.module.to(latents.device), latents)


def hash_weights(weights: Mapping[str, Tensor]) -> str:
    """SHA-256 (hex) over names, types, shapes and bytes, sorted by name."""
    sha = hashlib.sha256()
    for name in sorted(weights):
        array = weights[name].detach().cpu().contiguous().numpy()
        sha.update(f"{name}|{array.dtype.str}|{array.shape}|".encode())
        sha.update(array.tobytes())
    return sha.hexdigest()


def load_encoder(
    weights: str | os.PathLike[str] = "imagenet",
    name: str = "resnet18",
    options: EncoderOptions = NO_OPTIONS,
) -> FrozenEncoder:
    """A frozen encoder on the CPU.

    Args:
        weights: ``imagenet`` (the library's cache or a download), ``untrained`` (seeded, for pipelines and
            tests) or a file with the library's key names, see `idif.encoders.weights_file`; keys of layers
            after the last used one are optional.
        name: a key of `ENCODERS`, or a timm model's name after ``timm:``.
        options: taps, neck and preparation.

    Raises:
        ConfigError: there is no such encoder, or the options do not fit it.
        WeightsError: not found, unreadable, or a tensor is missing, unknown, not finite or of another shape.
    """
    family = find_family(name, options)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(UNTRAINED_SEED)
        module = family.build()
    origin = str(weights) if str(weights) in ("imagenet", "untrained") else "file"
    if origin != "untrained":
        given = _pretrained(family) if origin == "imagenet" else read_weights_file(Path(weights))
        _fill(module, given, str(weights), family)
    return _frozen(name, origin, module, options)


def learn_encoder(name: str, root: Path, training: Index) -> FrozenEncoder:
    """A frozen encoder whose weights are statistics of the training samples, on the CPU.

    Args:
        name: of a family that learns.
        root: the dataset's folder.
        training: all training samples.

    Raises:
        DatasetError: a file cannot be used, or no training sample has the encoder's input.
    """
    family = find_family(name)
    assert family.learn is not None, name
    paths = [sample.inputs.get(family.input) for sample in training.samples]
    files = [resolve_inside(root, path) for path in paths if path is not None]
    if not files:
        raise DatasetError(
            f"{root}: no training sample has the input {family.input!r}, which {name} learns from"
        )
    module = family.build()
    _fill(module, family.learn(files), str(root), family)
    return _frozen(name, LEARNED, module, NO_OPTIONS)


def _frozen(name: str, origin: str, module: nn.Module, options: EncoderOptions) -> FrozenEncoder:
    module.eval().requires_grad_(False)
    # batch norm's batch counters do not affect features, so the hash excludes them
    state = {k: v for k, v in module.state_dict().items() if not k.endswith("num_batches_tracked")}
    return FrozenEncoder(name, origin, hash_weights(state), module, options)


def reload_encoder(path: Path, recorded: EncoderSpec) -> FrozenEncoder:
    """The encoder that a store or run recorded, from its own copy of the weights, on the CPU.

    Raises:
        WeightsError: the file cannot be used, contains other weights than recorded, or the encoder of this
            name prepares its images otherwise than recorded.
    """
    encoder = load_encoder(path, recorded.name, EncoderOptions.recorded(recorded))
    if encoder.sha256 != recorded.weights_sha256:
        raise WeightsError(
            f"{path}: not the weights that were recorded: SHA-256 {encoder.sha256[:12]}, expected "
            f"{recorded.weights_sha256[:12]}"
        )
    now, then = encoder.family.preparation, recorded.preparation
    for key in dict.fromkeys([*then, *now]):
        if now.get(key) != then.get(key):
            raise WeightsError(
                f"{path}: the recorded {recorded.name} prepares images with {key} {then.get(key)!r}, this "
                f"version's with {now.get(key)!r}"
            )
    return replace(encoder, weights=recorded.weights)


def _pretrained(family: EncoderFamily) -> Mapping[str, Tensor]:
    if family.pretrained is None:
        raise WeightsError("imagenet: this encoder has no such weights; give a weights file or `untrained`")
    return family.pretrained()


def _fill(module: nn.Module, given: Mapping[str, Tensor], source: str, family: EncoderFamily) -> None:
    wanted = module.state_dict()
    given = {family.current_name(key): tensor for key, tensor in given.items()}
    chosen: dict[str, Tensor] = {}
    for key, default in wanted.items():
        if key not in given:
            if key.endswith("num_batches_tracked"):
                continue
            raise WeightsError(f"{source}: tensor {key!r} is missing; expected {family.key_names} key names")
        tensor = given[key]
        if tensor.shape != default.shape:
            raise WeightsError(
                f"{source}: tensor {key!r} has shape {list(tensor.shape)}, expected {list(default.shape)}"
            )
        if tensor.is_floating_point() and not torch.isfinite(tensor).all():
            raise WeightsError(f"{source}: tensor {key!r} holds values that are not finite")
        chosen[key] = tensor.to(default.dtype)
    used = {key.partition(".")[0] for key in wanted}
    unknown = [key for key in given if key not in wanted and key.partition(".")[0] in used]
    if unknown and (surplus := [key for key in unknown if key not in family.whole_network()]):
        raise WeightsError(
            f"{source}: tensor {surplus[0]!r} belongs to another network than {family.key_names}"
        )
    module.load_state_dict(wanted | chosen)
