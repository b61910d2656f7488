"""Weights of a store's encoders: as bytes when it is built, and loaded wherever the store lies."""

import tempfile
from dataclasses import replace
from pathlib import Path

from safetensors.torch import save

from cache.format.layout import weights_files
from cache.format.object_store import StorePath
from idif.data.features import EncoderSpec, FeatureSpec
from idif.encoders.encode import EncoderSet
from idif.encoders.frozen import FrozenEncoder, load_encoder
from idif.errors import WeightsError


def weights_bytes(encoder: FrozenEncoder) -> bytes:
    """Content of the encoder's weights file."""
    return save({name: tensor.cpu().contiguous() for name, tensor in encoder.module.state_dict().items()})


def load_encoder_set(store: StorePath, spec: FeatureSpec) -> EncoderSet:
    """The encoders of a store, on the CPU, from its own copies of their weights.

    Raises:
        WeightsError: a file cannot be used, or holds other weights than the store was built with.
    """
    return set_of_encoders(
        spec, tuple(load_stored(store / file, encoder) for file, encoder in files_of(spec))
    )


def files_of(spec: FeatureSpec) -> list[tuple[str, EncoderSpec]]:
    """Each encoder with the name of its weights file."""
    return list(zip(weights_files(spec.encoders), spec.encoders, strict=True))


def set_of_encoders(spec: FeatureSpec, encoders: tuple[FrozenEncoder, ...]) -> EncoderSet:
    """These encoders as a set that keeps beside their arrays what ``spec`` keeps."""
    return EncoderSet(encoders, spec.image_size, spec.stores_images, spec.variants)


def load_stored(path: StorePath, spec: EncoderSpec) -> FrozenEncoder:
    """The encoder whose weights lie at ``path``, on the CPU.

    Raises:
        WeightsError: the file cannot be used (named), or holds other weights than ``spec`` says.
    """
    encoder = _load(path, spec.name)
    if encoder.sha256 != spec.weights_sha256:
        raise WeightsError(f"{path}: not the weights this store was built with")
    return replace(encoder, weights=spec.weights)


def _load(path: StorePath, name: str) -> FrozenEncoder:
    if isinstance(path, Path):
        return load_encoder(path, name)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        copy = Path(folder) / path.name
        try:
            copy.write_bytes(path.read_bytes())
            return load_encoder(copy, name)
        except FileNotFoundError:
            raise WeightsError(f"{path}: no such weights file") from None
        except WeightsError as error:
            raise WeightsError(str(error).replace(str(copy), str(path))) from None
