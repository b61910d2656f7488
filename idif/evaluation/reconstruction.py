"""The file of reconstructed features, for methods that rebuild stored arrays."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
from torch import Tensor

from idif.data.features import FeatureSource
from idif.errors import CannotFinish, ConfigError
from idif.evaluation.scoring import Scorer
from idif.files import make_folder
from idif.hdf5_files import new_hdf5
from idif.methods.protocol import Reconstructs
from idif.progress import Progress, silent

TEXT = h5py.string_dtype("utf-8")


@torch.inference_mode()
def write_reconstructions(
    path: Path, parts: Iterator[tuple[str, FeatureSource, Scorer]], *, progress: Progress = silent
) -> None:
    """Write ``sample_id`` [N], ``category`` [N], ``present`` bool [N,V] and float16 [N,V,...] of every array.

    Args:
        path: an HDF5 file, complete or absent.
        parts: (category, its samples, its scorer).
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
            samples, done = source.index.samples, 0
            for batch in source.batches(range(len(samples)), scorer.config.batch_size):
                rebuilt = method.reconstruct(batch.to(scorer.device))
                ids = [samples[row].sample_id for row in batch.rows.tolist()]
                _append(file, "sample_id", np.array(ids, dtype=object), TEXT)
                _append(file, "category", np.array([category] * len(ids), dtype=object), TEXT)
                _append(file, "present", batch.view_mask.cpu().numpy(), bool)
                for name, values in rebuilt.items():
                    _append(file, name, _half(values, ids), np.float16)
                out.check()
                done += len(batch)
                progress(done, len(samples), f"reconstructing {category}")


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
