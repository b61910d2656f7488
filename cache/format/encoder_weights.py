"""Loads the encoder that a store keeps, wherever the store lies."""

import tempfile
from pathlib import Path

from cache.format.layout import TEACHER
from cache.format.object_store import StorePath
from idif.encoders.frozen import FrozenEncoder, load_encoder
from idif.errors import WeightsError


def load_teacher(path: StorePath, name: str = "resnet18") -> FrozenEncoder:
    """The encoder whose weights lie at ``path``, on the CPU.

    Raises:
        WeightsError: what `load_encoder` raises, naming ``path``.
    """
    if isinstance(path, Path):
        return load_encoder(path, name)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        copy = Path(folder) / TEACHER
        try:
            copy.write_bytes(path.read_bytes())
            return load_encoder(copy, name)
        except FileNotFoundError:
            raise WeightsError(f"{path}: no such weights file") from None
        except WeightsError as error:
            raise WeightsError(str(error).replace(str(copy), str(path))) from None
