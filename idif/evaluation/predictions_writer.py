"""Writes the predictions file (`idif.evaluation.predictions`) block by block; it is complete or absent."""

import contextlib
import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Any, Self

import h5py
import numpy as np
import numpy.typing as npt
from torch import Tensor

from idif.data.index import Sample
from idif.errors import RunError
from idif.evaluation.predictions import (
    BRIGHTNESS,
    FORMAT,
    PER_VIEW,
    SAMPLE_CLASS,
    SOURCE_PATH,
    TEXT,
    TEXT_PER_VIEW,
    BoolArray,
    FloatArray,
    dataset_name,
    hash_text,
)
from idif.files import SteadyFile, remove_file, writing
from idif.hdf5_files import new_hdf5
from idif.methods.maps import MAP


class PredictionsWriter:
    """Writes a predictions file block by block; it appears under its name only when it is complete.

    Example:
        with PredictionsWriter(run / "predictions.h5", (1, 2, 3), 256) as writer:
            for samples, batch in ...:
                writer.append(samples, view_scores, sample_scores, maps, batch.masks)
    """

    def __init__(
        self,
        path: Path,
        view_numbers: Sequence[int],
        image_size: int | None,
        maps: bool = True,
        protocol: dict[str, Any] | None = None,
        derived: Sequence[Path] = (),
        sample_classes: bool = False,
        other_maps: Sequence[str] = (),
        brightness: bool = False,
        source_paths: bool = False,
    ) -> None:
        """Create a writer; a temporary file beside ``path`` is opened on entering the context.

        Args:
            path: path of the finished file; an existing one is replaced at the end.
            view_numbers: camera number of each of the V slots.
            image_size: side H = W of the maps in pixels; None if there are none.
            maps: false omits maps and masks (--no-maps): at 256 px about 0.5 MB less per sample of
                five views.
            protocol: description of the scores for readers and reports; any JSON value. Written on leaving
                the context, so that it may be updated until then.
            derived: files computed from the replaced predictions; removed just before, so that they are not
                mistaken for results of the new predictions.
            sample_classes: whether the samples have their own class, which the file then records.
            other_maps: names of the maps besides the anomaly map that a file with maps contains.
            brightness: whether the file has scores of the samples by their brightness.
            source_paths: whether the file records original paths of imported photographs.
        """
        self.path = path
        self._view_numbers = tuple(view_numbers)
        self._size = image_size
        self._maps = maps and image_size is not None
        self._other_maps = tuple(other_maps) if self._maps else ()
        self._brightness = brightness
        self._protocol = {} if protocol is None else protocol
        self._derived = tuple(derived)
        self._context: contextlib.AbstractContextManager[tuple[h5py.File, SteadyFile]] | None = None
        self._file: h5py.File | None = None
        self._out: SteadyFile | None = None
        self._rows = 0
        optional = {SAMPLE_CLASS: sample_classes, SOURCE_PATH: source_paths}
        self._text = (*TEXT, *(name for name, used in optional.items() if used))
        self._digest = hashlib.sha256()

    def __enter__(self) -> Self:
        """Open the partial file.

        Raises:
            RunError: the folder cannot be written. CannotFinish: the disk is full or fails.
        """
        # From this version on HDF5 has checksums of its own structures, e.g. of the chunk index.
        self._context = new_hdf5(
            self.path, refused=RunError, before=self._remove_derived, libver=("v110", "latest")
        )
        self._file, self._out = self._context.__enter__()
        self._file.attrs["format"] = FORMAT
        self._file.attrs["view_numbers"] = np.array(self._view_numbers, np.int64)
        views, text = len(self._view_numbers), h5py.string_dtype()
        for name in self._text:
            shape = (views,) if name in (*TEXT_PER_VIEW, SOURCE_PATH) else ()
            self._create(name, shape, text, 256)
        for name, dtype in PER_VIEW.items():
            self._create(name, (views,), dtype, 1024)
        self._create("sample_scores", (), np.float32, 1024)
        if self._brightness:
            self._create(BRIGHTNESS, (), np.float32, 1024)
        if self._maps:
            assert self._size is not None, "maps have a size"
            side = (views, self._size, self._size)
            # One chunk per sample. Maps hardly compress, but with shuffled bytes LZF is worth its little
            # time; masks compress to almost nothing.
            for name in (MAP, *self._other_maps):
                self._create(dataset_name(name), side, np.float16, 1, compression="lzf", shuffle=True)
            self._create("masks", side, np.bool_, 1, compression="lzf")
        return self

    def append(
        self,
        samples: Sequence[Sample],
        view_scores: Tensor | FloatArray,
        sample_scores: Tensor | FloatArray,
        maps: Tensor | npt.NDArray[Any] | None,
        masks: Tensor | BoolArray | None,
        *,
        other_maps: Mapping[str, Tensor] = MappingProxyType({}),
        brightness: Tensor | None = None,
    ) -> None:
        """Append B samples.

        Args:
            samples: B samples with V slots, which supply ids, labels, classes, presence and paths.
            view_scores: [B,V]; the scores of absent views are replaced by NaN.
            sample_scores: [B].
            maps: [B,V,H,W], stored as float16; not read in a file without maps.
            masks: bool [B,V,H,W]; not read in a file without maps.
            other_maps: {name: [B,V,H,W]}, like ``maps``.
            brightness: [B]; None if unknown.

        Raises:
            CannotFinish: the disk is full or cannot be written.
        """
        assert self._file is not None, "append belongs inside the with block"
        assert self._out is not None
        views = len(self._view_numbers)
        present = np.array([s.present for s in samples], bool).reshape(len(samples), views)
        scores = np.where(present, _array(view_scores), np.nan).astype(np.float32)
        block: dict[str, Any] = {
            "sample_id": [s.sample_id for s in samples],
            "category": [s.category for s in samples],
            "image_path": [["" if v is None else v.image for v in s.views] for s in samples],
            "mask_path": [["" if v is None else v.mask or "" for v in s.views] for s in samples],
            "anomaly_class": [["" if v is None else v.anomaly_class for v in s.views] for s in samples],
            "labels": np.array([s.labels for s in samples], bool).reshape(len(samples), views),
            "present": present,
            "has_mask": np.array(
                [[v is not None and v.mask is not None for v in s.views] for s in samples], bool
            ).reshape(len(samples), views),
            "view_scores": scores,
            "sample_scores": _array(sample_scores).astype(np.float32),
        }
        if self._brightness:
            unknown = np.full(len(samples), np.nan, np.float32)
            block[BRIGHTNESS] = unknown if brightness is None else _array(brightness)
        if SAMPLE_CLASS in self._text:
            block[SAMPLE_CLASS] = [s.sample_class or "" for s in samples]
        if SOURCE_PATH in self._text:
            block[SOURCE_PATH] = [["" if v is None else v.source or "" for v in s.views] for s in samples]
        if self._maps:
            assert maps is not None, "a file with maps needs them"
            assert masks is not None, "a file with maps needs masks"
            shown = present[:, :, None, None]
            block["maps"] = np.where(shown, half_maps(maps), np.float16(0))
            for name in self._other_maps:
                block[dataset_name(name)] = np.where(shown, half_maps(other_maps[name]), np.float16(0))
            block["masks"] = np.where(shown, _array(masks), False)
        end = self._rows + len(samples)
        for name, values in block.items():
            data = self._file[name]
            expected = (len(samples), *data.shape[1:])
            assert np.shape(values) == expected or not samples, (name, np.shape(values), expected)
            data.resize(end, axis=0)
            if samples:
                data[self._rows : end] = values
        with writing(self.path, RunError):
            self._out.check()
        hash_text(self._digest, *(block[name] for name in self._text))
        self._rows = end

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Publish the file; remove it instead if an exception passes."""
        assert self._file is not None
        assert self._context is not None
        if kind is None:
            self._file.attrs["protocol"] = json.dumps(self._protocol)
            self._file.attrs["text_sha256"] = self._digest.hexdigest()
        self._context.__exit__(kind, error, trace)

    def _remove_derived(self) -> None:
        for path in self._derived:
            remove_file(path)

    def _create(self, name: str, shape: tuple[int, ...], dtype: Any, rows: int, **options: Any) -> None:
        assert self._file is not None
        # HDF5 stores variable-length text outside the chunks, so it has a separate digest.
        # HDF5 allows no empty chunk axis, and an axis shorter than its chunk must be resizable
        self._file.create_dataset(
            name,
            shape=(0, *shape),
            maxshape=(None, *(size or None for size in shape)),
            chunks=(rows, *(size or 1 for size in shape)),
            dtype=dtype,
            fletcher32=name not in self._text,
            **options,
        )


def half_maps(maps: Tensor | npt.NDArray[Any]) -> npt.NDArray[np.float16]:
    """Maps as the file stores them, so that metrics of a streaming pass equal those of the file.

    Scores beyond float16's range become infinite, which the metrics refuse.
    """
    with np.errstate(over="ignore"):
        return _array(maps).astype(np.float16)


def _array(values: Tensor | npt.NDArray[Any]) -> npt.NDArray[Any]:
    return values.detach().cpu().numpy() if isinstance(values, Tensor) else values
