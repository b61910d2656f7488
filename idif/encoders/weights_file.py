"""Reading of weights files that other projects wrote."""

from collections import OrderedDict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from idif.errors import WeightsError

SUFFIXES = (".safetensors", ".pth", ".pth.tar", ".pt")
_WRAPPERS = ("state_dict", "model_state_dict", "model")
"""Keys under which checkpoints hold the weights."""
_PARALLEL = "module."
"""Prefix of all keys of weights that `torch.nn.DataParallel` wrote."""
_POINTER = b"version https://git-lfs"
_PAGES = (b"<!doctype", b"<html")


class _Ignored:
    """Stands in for an object beside the weights: accepts what it is made of and runs nothing."""

    def __init__(self, *parts: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        """Accept the object's attributes."""


_BESIDE: list[Any] = [
    # a dictionary that can be filled, which torch allows to no other stand-in
    (OrderedDict, "easydict.EasyDict"),
    (_Ignored, "argparse.Namespace"),
    (_Ignored, "numpy.core.multiarray.scalar"),
    (_Ignored, "numpy._core.multiarray.scalar"),
    (_Ignored, "numpy.dtype"),
    (_Ignored, "_codecs.encode"),
]
"""Stand-ins for the settings and figures that checkpoints hold beside the weights."""


def read_weights_file(path: Path) -> dict[str, Tensor]:
    """The tensors of a ``.safetensors`` file or one that torch wrote, by name; of a folder, its only one.

    The weights may lie under ``state_dict``, ``model_state_dict`` or ``model``, and their names may all start
    with ``module.``.

    Raises:
        WeightsError: no such file, not weights, or not readable without running code.
    """
    if path.is_dir():
        path = _only_file(path)
    if not path.is_file():
        raise WeightsError(
            f"{path}: no such weights file; expected imagenet, untrained, or a .safetensors or .pth file"
        )
    loaded = _unwrapped(_read(path))
    if not isinstance(loaded, Mapping) or not all(isinstance(value, Tensor) for value in loaded.values()):
        raise WeightsError(f"{path}: expected a dictionary of tensors, by name")
    if loaded and all(key.startswith(_PARALLEL) for key in loaded):
        return {key.removeprefix(_PARALLEL): tensor for key, tensor in loaded.items()}
    return dict(loaded)


def read_nested_weights(path: Path) -> dict[str, Tensor]:
    """The tensors of a file in which several modules' weights lie in dictionaries and lists.

    Names are joined with dots, numbers of lists included. Everything beside tensors is left out, and so are
    the states of optimizers.

    Raises:
        WeightsError: as in `read_weights_file`.
    """
    if not path.is_file():
        raise WeightsError(f"{path}: no such weights file; expected a checkpoint that torch wrote")
    return dict(_tensors("", _read(path)))


def _tensors(name: str, value: Any) -> Iterator[tuple[str, Tensor]]:
    """(dotted name, tensor) of all tensors below ``value``."""
    if isinstance(value, Tensor):
        yield name, value
    elif isinstance(value, Mapping) and "param_groups" not in value:
        for key, part in value.items():
            yield from _tensors(f"{name}.{key}" if name else str(key), part)
    elif isinstance(value, list | tuple):
        for number, part in enumerate(value):
            yield from _tensors(f"{name}.{number}" if name else str(number), part)


def _only_file(folder: Path) -> Path:
    files = sorted(file for file in folder.iterdir() if file.suffix == ".safetensors")
    if len(files) != 1:
        found = ", ".join(file.name for file in files) or "none"
        raise WeightsError(f"{folder}: expected one .safetensors file in the folder, got {found}")
    return files[0]


def _read(path: Path) -> Any:
    try:
        with path.open("rb") as file:
            start = file.read(64).lstrip().lower()
        if start.startswith(_POINTER):
            raise WeightsError(
                f"{path}: is a pointer of Git LFS, not the weights; fetch the file with `git lfs pull`"
            )
        if start.startswith(_PAGES):
            raise WeightsError(
                f"{path}: is an HTML page, not weights; the download was refused or redirected"
            )
        if path.suffix == ".safetensors":
            return load_file(path)
        with torch.serialization.safe_globals(_BESIDE):
            return torch.load(path, map_location="cpu", weights_only=True)
    except WeightsError:
        raise
    except (SafetensorError, OSError, RuntimeError, EOFError, ValueError, KeyError) as error:
        raise WeightsError(f"{path}: not readable as encoder weights ({error})") from None
    except Exception as error:  # torch raises pickle's errors for content that it refuses to unpickle
        raise WeightsError(f"{path}: not readable as encoder weights ({type(error).__name__})") from None


def _unwrapped(loaded: Any) -> Any:
    for key in _WRAPPERS:
        if isinstance(loaded, Mapping) and isinstance(loaded.get(key), Mapping):
            return loaded[key]
    return loaded
