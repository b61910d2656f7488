"""Reads the predictions file: the results of a test pass in HDF5, from which all metrics can be recomputed.

Datasets (N samples, V views, H W pixels), a fixed format:

    sample_id, category   [N] text             image_path     [N,V] text, empty for an absent view
    labels, present       [N,V] bool           mask_path      [N,V] text, empty where there is none
    anomaly_class         [N,V] text, empty for an absent view
    view_scores           [N,V] float32, NaN for an absent view
    sample_scores         [N] float32, NaN for a sample without any view
    has_mask              [N,V] bool: the data has a mask of the view
    source_path           [N,V] text: original path of an imported photograph; absent if none was imported
    brightness            [N] float32, NaN where unknown; absent if the test pass saw no images
    maps, masks           [N,V,H,W] float16 and bool, zeros for an absent view; absent with --no-maps
    maps_NAME             as maps: another map of the method, see `idif.methods.protocol.Method.other_maps`

Attributes: ``format``, ``view_numbers`` [V], ``protocol``, a JSON text, and ``text_sha256`` of the texts.
All other datasets have a checksum per chunk, so that damage is detected on reading.
`idif.evaluation.predictions_writer` writes it.
"""

import contextlib
import hashlib
import json
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import h5py
import numpy as np
import numpy.typing as npt

from idif.data.index import NORMAL_CLASS, Sample, View, camera_name
from idif.errors import RunError
from idif.methods.maps import MAP

FORMAT = "idif predictions 2"

BRIGHTNESS = "brightness"
"""Dataset of files whose test pass saw images: scores of the samples by their brightness."""
OTHER = "maps_"
"""Prefix of the datasets of other maps."""

TEXT_PER_VIEW = ("image_path", "mask_path", "anomaly_class")
TEXT = ("sample_id", "category", *TEXT_PER_VIEW)
SAMPLE_CLASS = "sample_class"
"""Text column of files whose samples have their own class."""
SOURCE_PATH = "source_path"
"""Text column of files about imported photographs."""
PER_VIEW: dict[str, type] = {
    "labels": np.bool_,
    "present": np.bool_,
    "has_mask": np.bool_,
    "view_scores": np.float32,
}

BoolArray = npt.NDArray[np.bool_]
FloatArray = npt.NDArray[np.float32]
RowArray = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Predictions:
    """A complete predictions file: everything but the maps in memory, the maps streamed."""

    path: Path
    view_numbers: tuple[int, ...]
    protocol: dict[str, Any]
    sample_id: tuple[str, ...]
    category: tuple[str, ...]
    image_path: tuple[tuple[str, ...], ...]
    """[N,V]: relative to the dataset's root; empty for an absent view."""
    mask_path: tuple[tuple[str, ...], ...]
    """[N,V]: relative to the dataset's root; empty if the data has none."""
    anomaly_class: tuple[tuple[str, ...], ...]
    """[N,V]: ``OK`` or the name of the defect; empty for an absent view."""
    labels: BoolArray
    """[N,V]: present and anomalous."""
    present: BoolArray
    """[N,V]: whether the view is present."""
    has_mask: BoolArray
    """[N,V]: the data has a mask of the view; an anomalous view without one has no pixel labels."""
    view_scores: FloatArray
    """[N,V]: NaN for an absent view."""
    sample_scores: FloatArray
    """[N]: NaN for a sample without any view."""
    has_maps: bool
    """False for a file written with --no-maps, and for methods without maps."""
    sample_class: tuple[str, ...]
    """[N]: ``OK`` or the name of the defect if the data labels the sample itself; else empty."""
    other_maps: tuple[str, ...] = ()
    """Names of the maps besides the anomaly map."""
    brightness: FloatArray | None = None
    """[N]: scores of `idif.evaluation.brightness`; None if the test pass saw no images."""

    source_path: tuple[tuple[str, ...], ...] | None = None
    """[N,V]: original paths of imported photographs, below the category's source folder."""

    def __len__(self) -> int:
        return len(self.sample_id)

    def sample(self, row: int) -> Sample:
        """The sample of a row, as the test pass saw it."""
        sources = [""] * len(self.view_numbers) if self.source_path is None else self.source_path[row]
        views = tuple(
            View(number, image, mask or None, defect, source=source or None) if here else None
            for number, image, mask, defect, source, here in zip(
                self.view_numbers,
                self.image_path[row],
                self.mask_path[row],
                self.anomaly_class[row],
                sources,
                self.present[row],
                strict=True,
            )
        )
        split = self.protocol.get("split", "test")
        own = self.sample_class[row] or None
        return Sample(self.sample_id[row], self.category[row], split, views, sample_class=own)

    def original_name(self, row: int, slot: int) -> str:
        """Original path of a photograph if it was imported, else its path in the dataset."""
        source = "" if self.source_path is None else self.source_path[row][slot]
        return source or self.image_path[row][slot]

    def camera_name(self, number: int) -> str:
        """Name of a camera in the source of the data, by default ``C`` and its number."""
        return camera_name(self.protocol.get("cameras", {}), number)

    def defects_of(self, row: int) -> tuple[str, ...]:
        """Sorted defects of a sample: those of its anomalous present views, else of the sample itself."""
        labels = self.labels[row] & self.present[row]
        classes = {name for name, label in zip(self.anomaly_class[row], labels, strict=True) if label}
        if not classes and self.sample_class[row] not in ("", NORMAL_CLASS):
            return (self.sample_class[row],)
        return tuple(sorted(classes))

    @property
    def region_map(self) -> str:
        """Name of the map that AUPRO is computed from."""
        name: str = self.protocol.get("rules", {}).get("region_map", MAP)
        return name

    @property
    def scorable(self) -> BoolArray:
        """[N]: samples with a score: those with a view, or all if samples have no views."""
        if not self.view_numbers:
            return np.ones(len(self), np.bool_)
        seen: BoolArray = np.any(self.present, axis=1)
        return seen

    @property
    def sample_labels(self) -> BoolArray:
        """[N]: anomalous according to the sample's own class or any present view."""
        own = np.array([name not in ("", NORMAL_CLASS) for name in self.sample_class], np.bool_)
        labels: BoolArray = np.any(self.labels & self.present, axis=1) | own
        return labels

    @classmethod
    def open(cls, path: Path) -> Self:
        """Read everything but the maps.

        Raises:
            RunError: the file is missing, damaged, or not a predictions file.
        """
        if not path.is_file():
            raise RunError(f"{path}: expected a predictions file; there is none (run `idif eval` first)")
        with _reading(path), h5py.File(path, "r") as file:
            if file.attrs.get("format") != FORMAT:
                raise RunError(
                    f"{path}: expected a file of format {FORMAT!r}, found {file.attrs.get('format')!r}"
                )
            columns = (*TEXT, *(name for name in (SAMPLE_CLASS, SOURCE_PATH) if name in file))
            text = {name: file[name].asstr()[:].tolist() for name in columns}
            found = cls(
                path=path,
                view_numbers=tuple(int(number) for number in file.attrs["view_numbers"]),
                protocol=json.loads(file.attrs["protocol"]),
                sample_id=tuple(text["sample_id"]),
                category=tuple(text["category"]),
                image_path=tuple(map(tuple, text["image_path"])),
                mask_path=tuple(map(tuple, text["mask_path"])),
                anomaly_class=tuple(map(tuple, text["anomaly_class"])),
                labels=file["labels"][:],
                present=file["present"][:],
                has_mask=file["has_mask"][:],
                view_scores=file["view_scores"][:],
                sample_scores=file["sample_scores"][:],
                has_maps="maps" in file,
                sample_class=tuple(text.get(SAMPLE_CLASS, [""] * len(text["sample_id"]))),
                other_maps=tuple(name.removeprefix(OTHER) for name in file if name.startswith(OTHER)),
                brightness=file[BRIGHTNESS][:] if BRIGHTNESS in file else None,
                source_path=tuple(map(tuple, text[SOURCE_PATH])) if SOURCE_PATH in text else None,
            )
            _check_shapes(path, file, len(found), len(found.view_numbers))
            digest = hashlib.sha256()
            hash_text(digest, *(text[name] for name in columns))
            if digest.hexdigest() != file.attrs["text_sha256"]:
                raise RunError(
                    f"{path}: expected the ids and paths that were written, found others (damaged)"
                )
            return found

    def rows(self, category: str) -> RowArray:
        """The rows of one category, ascending; empty for an unknown category."""
        return np.flatnonzero(np.array(self.category, dtype=object) == category)

    def iter_maps(
        self, rows: Sequence[int] | RowArray, block: int = 8, name: str = MAP
    ) -> Generator[tuple[RowArray, npt.NDArray[np.float16], BoolArray]]:
        """Stream maps and masks of some rows, in their order.

        Args:
            rows: row numbers.
            block: samples read at a time; a sample of five views at 256 px takes about 1 MB.
            name: which map, ``map`` or one of ``other_maps``.

        Yields:
            The block's rows [B], maps float16 [B,V,H,W] and masks bool [B,V,H,W].

        Raises:
            RunError: the file has no maps, or is damaged.
        """
        if not self.has_maps:
            raise RunError(f"{self.path}: expected anomaly maps; the file was written without (--no-maps)")
        wanted = np.asarray(rows, np.int64)
        with _reading(self.path), h5py.File(self.path, "r") as file:
            maps, masks = file[dataset_name(name)], file["masks"]
            for start in range(0, len(wanted), block):
                part = wanted[start : start + block]
                yield (
                    part,
                    np.stack([maps[row] for row in part]),
                    np.stack([masks[row] for row in part]),
                )


def dataset_name(name: str) -> str:
    """The dataset that contains the map ``name``."""
    return "maps" if name == MAP else OTHER + name


def hash_text(digest: "hashlib._Hash", *columns: Sequence[Any]) -> None:
    """Update the digest with the texts of some rows, row by row, so that it is independent of block size."""
    for row in zip(*columns, strict=True):
        digest.update(json.dumps(row).encode() + b"\n")


@contextlib.contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Context that translates errors of HDF5 and of missing parts to `RunError`."""
    try:
        yield
    except (OSError, KeyError, RuntimeError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise RunError(f"{path}: expected a complete predictions file, found it damaged: {error}") from error


def _check_shapes(path: Path, file: h5py.File, samples: int, views: int) -> None:
    shapes: dict[str, tuple[int, ...]] = {"category": (samples,), "sample_scores": (samples,)}
    optional = [SOURCE_PATH] if SOURCE_PATH in file else []
    shapes.update(dict.fromkeys((*PER_VIEW, *TEXT_PER_VIEW, *optional), (samples, views)))
    maps = ["maps", "masks", *(name for name in file if name.startswith(OTHER))]
    for name in maps:
        if "maps" in file:
            shapes[name] = (samples, views, *file["maps"].shape[2:])
    for name, shape in shapes.items():
        if file[name].shape != shape:
            raise RunError(f"{path}: expected {name} of shape {list(shape)}, found {list(file[name].shape)}")
