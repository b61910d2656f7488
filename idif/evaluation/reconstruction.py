"""The file of reconstructions, for methods that rebuild stored arrays or the images themselves."""

import contextlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import h5py
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from idif.data.features import IMAGES, FeatureSource
from idif.errors import CannotFinish, ConfigError, RunError
from idif.evaluation.scoring import Scorer
from idif.files import make_folder
from idif.hdf5_files import new_hdf5
from idif.methods.protocol import Reconstructs
from idif.progress import Progress, silent

TEXT = h5py.string_dtype("utf-8")


@torch.inference_mode()
def write_reconstructions(
    path: Path,
    parts: Iterator[tuple[str, FeatureSource, Scorer]],
    provenance: Mapping[str, Any],
    *,
    progress: Progress = silent,
) -> None:
    """Write ``sample_id`` [N], ``category`` [N], ``present`` bool [N,V], float16 [N,V,...] of every rebuilt
    array, ``images`` uint8 [N,V,3,H,W] if the method rebuilds images, and its description as ``protocol``.

    Args:
        path: an HDF5 file, complete or absent.
        parts: (category, its samples, its scorer).
        provenance: further entries of the protocol, e.g. the digests of the weights.
        progress: called with the samples done in a category and their number.

    Raises:
        ConfigError: the method rebuilds nothing.
        PathError: the folder cannot be written.
        CannotFinish: the disk is full, or a reconstruction is not finite in float16; the sample is named.
    """
    make_folder(path.parent)
    with new_hdf5(path) as (file, out):
        for category, source, scorer in parts:
            method = scorer.method.eval()
            if not isinstance(method, Reconstructs):
                raise ConfigError("--save-reconstruction: this method rebuilds no features")
            file.attrs["protocol"] = json.dumps({**method.describe(), **provenance})
            samples, done = source.index.samples, 0
            for batch in source.batches(range(len(samples)), scorer.config.batch_size):
                rebuilt = method.reconstruct(batch.to(scorer.device))
                ids = [samples[row].sample_id for row in batch.rows.tolist()]
                _append(file, "sample_id", np.array(ids, dtype=object), TEXT)
                _append(file, "category", np.array([category] * len(ids), dtype=object), TEXT)
                _append(file, "present", batch.view_mask.cpu().numpy(), bool)
                for name, values in rebuilt.items():
                    if name == IMAGES:
                        _append(file, name, image_bytes(values), np.uint8)
                    else:
                        _append(file, name, _half(values, ids), np.float16)
                out.check()
                done += len(batch)
                progress(done, len(samples), f"reconstructing {category}")


def image_bytes(images: Tensor) -> npt.NDArray[np.uint8]:
    """uint8 of rebuilt images in about 0..1, of any shape."""
    values: npt.NDArray[np.uint8] = (images.clamp(0, 1) * 255).round().byte().cpu().numpy()
    return values


@dataclass(frozen=True)
class RebuiltImages:
    """The rebuilt images of a file that `write_reconstructions` wrote; read one by one."""

    path: Path
    protocol: Mapping[str, Any]
    rows: Mapping[str, int]
    """{sample id: row}."""

    @classmethod
    def open(cls, path: Path) -> Self | None:
        """Open the file; None if there is none or it holds no images.

        Raises:
            RunError: the file is damaged.
        """
        if not path.is_file():
            return None
        with _reading(path), h5py.File(path, "r") as file:
            if IMAGES not in file or "protocol" not in file.attrs:
                return None
            ids = file["sample_id"].asstr()[:].tolist()
            return cls(path, json.loads(file.attrs["protocol"]), {name: n for n, name in enumerate(ids)})

    def belongs_to(self, protocol: Mapping[str, Any]) -> bool:
        """Whether weights and settings are those of the predictions with this protocol."""
        return all(protocol.get(key) == value for key, value in self.protocol.items())

    def images(self, sample_id: str) -> npt.NDArray[np.uint8]:
        """uint8 [V,3,H,W] of a sample of ``rows``; zero for absent views.

        Raises:
            RunError: the file is damaged.
        """
        with _reading(self.path), h5py.File(self.path, "r") as file:
            found: npt.NDArray[np.uint8] = file[IMAGES][self.rows[sample_id]]
            return found


@contextlib.contextmanager
def _reading(path: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, KeyError, RuntimeError, ValueError) as error:
        raise RunError(
            f"{path}: damaged ({error}); evaluate the run again with --save-reconstruction"
        ) from error


def _half(values: Tensor, ids: list[str]) -> Any:
    half = values.half()
    sound = torch.isfinite(half).flatten(1).all(dim=1)
    if not sound.all():
        raise CannotFinish(f"{ids[int((~sound).nonzero()[0])]}: its reconstruction is not finite in float16")
    return half.cpu().numpy()


def _append(file: h5py.File, name: str, values: Any, dtype: Any) -> None:
    """Append rows to a dataset, which the first block creates."""
    if name not in file:
        shape = values.shape[1:]
        file.create_dataset(
            name, (0, *shape), dtype, maxshape=(None, *shape), chunks=(1, *shape) if shape else True
        )
    dataset = file[name]
    start = len(dataset)
    dataset.resize(start + len(values), axis=0)
    dataset[start:] = values
