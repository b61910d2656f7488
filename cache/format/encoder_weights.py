"""Weights of a store's encoders: serialized for a build, and loaded from local or remote stores."""

import tempfile
from pathlib import Path

from safetensors.torch import save

from cache.format.object_store import StorePath
from idif.data.features import EncoderSpec, FeatureSpec
from idif.encoders.encode import EncoderSet
from idif.encoders.frozen import FrozenEncoder, reload_encoder
from idif.errors import WeightsError


def weights_bytes(encoder: FrozenEncoder) -> bytes:
    """Content of the encoder's weights file."""
    return save({name: tensor.cpu().contiguous() for name, tensor in encoder.module.state_dict().items()})


def load_encoder_set(store: StorePath, spec: FeatureSpec) -> EncoderSet:
    """The encoders of a store, on the CPU, from its own copies of their weights.

    Raises:
        WeightsError: a file cannot be used, or contains other weights than those of the build.
    """
    return set_of_encoders(
        spec, tuple(load_stored(store / file, encoder) for file, encoder in files_of(spec))
    )


def files_of(spec: FeatureSpec) -> list[tuple[str, EncoderSpec]]:
    """Pairs of weights file name and encoder."""
    return list(zip(spec.weights_files, spec.encoders, strict=True))


def set_of_encoders(spec: FeatureSpec, encoders: tuple[FrozenEncoder, ...]) -> EncoderSet:
    """The encoders as an `EncoderSet` with the image settings and variants of ``spec``."""
    return EncoderSet(encoders, spec.image_size, spec.stores_images, spec.variants, spec.shift)


def load_stored(path: StorePath, spec: EncoderSpec) -> FrozenEncoder:
    """Load the encoder with the weights at ``path``, on the CPU.

    Raises:
        WeightsError: the file cannot be used (named), or contains other weights than ``spec`` states.
    """
    if isinstance(path, Path):
        return reload_encoder(path, spec)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        copy = Path(folder) / path.name
        try:
            copy.write_bytes(path.read_bytes())
            return reload_encoder(copy, spec)
        except FileNotFoundError:
            raise WeightsError(f"{path}: no such weights file") from None
        except WeightsError as error:
            raise WeightsError(str(error).replace(str(copy), str(path))) from None
