"""Write categories in the Real-IAD layout: each whole, or nothing that a reader would find."""

import contextlib
import json
import os
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from idif.data.index import NORMAL_CLASS, Split
from idif.datasets.realiad.reader import read_realiad
from idif.errors import CannotFinish, DatasetError
from idif.fingerprint import digest


@dataclass(frozen=True)
class ImportedView:
    """One view of a sample."""

    image: npt.NDArray[np.uint8]
    """[H,W,3], RGB, 0..255."""
    mask: npt.NDArray[np.bool_] | None
    """[H,W]: where the defect is; None where that is not known."""
    anomalous: bool
    """Whether the view shows the defect; the mask is written only then."""


@dataclass(frozen=True)
class ImportSummary:
    """What an import wrote."""

    out: str
    categories: tuple[str, ...]
    train_samples: int
    test_samples: int
    images: int
    masks: int
    kept: tuple[str, ...]
    """Categories that an earlier call with the same source and settings had finished."""


ImportSettings = dict[str, Any]
"""What a category is made from and how, as JSON: equal recipes give equal categories."""


def source_digest(src: Path, files: Iterable[Path]) -> str:
    """Tells sources apart by the names and sizes of their files.

    Raises:
        DatasetError: a file cannot be looked at.
    """
    try:
        return digest([[path.relative_to(src).as_posix(), path.stat().st_size] for path in files])
    except OSError as error:
        raise DatasetError(f"{error.filename}: cannot be read ({error.strerror or error})") from None


class CategoryWriter:
    """Gathers one category beside its place; `category_writer` moves it there at the end."""

    def __init__(self, staging: Path, category: str) -> None:
        self._staging = staging
        self._category = category
        self._entries: dict[Split, list[dict[str, str | None]]] = {"train": [], "test": []}
        self._count = 0

    def add(
        self,
        split: Split,
        defect: str | None,
        stamp: str,
        shots: Mapping[int, ImportedView],
    ) -> None:
        """Write one sample: a PNG for each view, a mask for each that is anomalous and has one.

        Args:
            defect: the sample's defect class, None for a normal sample.
            stamp: ends the file names, in the place of Real-IAD's time.
            shots: view number -> view; none is anomalous where ``defect`` is None.
        """
        assert defect is not None or not any(shot.anomalous for shot in shots.values())
        self._count += 1
        number = f"{self._count:04d}"
        folder = f"{NORMAL_CLASS if defect is None else f'NG/{defect}'}/S{number}"
        (self._staging / folder).mkdir(parents=True)
        for view, shot in sorted(shots.items()):
            name = f"{folder}/{self._category}_{number}_{defect or NORMAL_CLASS}_C{view}_{stamp}"
            Image.fromarray(shot.image).save(self._staging / f"{name}.png")
            mask_path = None
            if shot.anomalous and shot.mask is not None:
                mask_path = f"{name}_mask.png"
                Image.fromarray(shot.mask.astype(np.uint8) * 255).save(self._staging / mask_path)
            self._entries[split].append(
                {
                    "category": self._category,
                    "anomaly_class": defect if defect is not None and shot.anomalous else NORMAL_CLASS,
                    "image_path": f"{name}.png",
                    "mask_path": mask_path,
                }
            )

    def annotations(self, recipe: ImportSettings) -> bytes:
        """The category's annotation file."""
        meta = {"prefix": f"{self._category}/", "normal_class": NORMAL_CLASS, "imported": recipe}
        return (json.dumps({"meta": meta, **self._entries}, indent=1) + "\n").encode()


def check_out(out: Path, images: str, recipes: Mapping[str, ImportSettings]) -> tuple[str, ...]:
    """Refuse an output folder that could not take these categories.

    Returns:
        Those that are there already, made by the same recipe.

    Raises:
        DatasetError: ``out`` is a file, holds something other than this layout, has images of another size,
            or has one of the categories from elsewhere.
    """
    if out.exists() and not out.is_dir():
        raise DatasetError(f"{out}: expected a folder to write to, but it is a file")
    inside = sorted(path.name for path in out.iterdir()) if out.is_dir() else []
    foreign = [
        name for name in inside if not re.fullmatch(r"realiad_(jsons|[0-9]+)|preview|\.importing-.*", name)
    ]
    if foreign:
        raise DatasetError(
            f"{out}: expected no other files than a dataset in the Real-IAD layout, found {foreign[0]!r}"
        )
    other = [name for name in inside if name.startswith("realiad_") and name not in ("realiad_jsons", images)]
    if other:
        raise DatasetError(f"{out}: holds {other[0]!r}, images of another size than {images!r}")
    kept = []
    for category, recipe in recipes.items():
        annotations, folder = out / "realiad_jsons" / f"{category}.json", out / images / category
        if folder.exists() and _recipe(annotations) == recipe:
            kept.append(category)
            continue
        for path in (annotations, folder):
            if path.exists():
                raise DatasetError(
                    f"{path}: is there already, from another source or with other settings; remove it, "
                    f"or import to another folder"
                )
    return tuple(kept)


def _recipe(annotations: Path) -> ImportSettings | None:
    """What an import wrote into its annotations; None where there are none or others."""
    try:
        recipe: ImportSettings | None = json.loads(annotations.read_bytes())["meta"]["imported"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None
    return recipe


def summarise(out: Path, images: str, categories: Sequence[str], kept: tuple[str, ...]) -> ImportSummary:
    """What ``out`` now holds of these categories."""
    index = read_realiad(out, images=images, categories=categories)
    views = [view for sample in index.samples for view in sample.views if view is not None]
    train = sum(sample.split == "train" for sample in index.samples)
    return ImportSummary(
        out=str(out),
        categories=tuple(categories),
        train_samples=train,
        test_samples=len(index) - train,
        images=len(views),
        masks=sum(view.mask is not None for view in views),
        kept=kept,
    )


@contextlib.contextmanager
def category_writer(
    out: Path, images: str, category: str, recipe: ImportSettings
) -> Iterator[CategoryWriter]:
    """A writer whose category appears under ``out`` when the block ends well, and not at all otherwise.

    Annotations come last: a category without them does not exist for a reader.

    Raises:
        CannotFinish: the folder cannot be written or the disk is full.
    """
    staging = out / f".importing-{category}"
    try:
        shutil.rmtree(staging, ignore_errors=True)
        staging.mkdir(parents=True)
        writer = CategoryWriter(staging / category, category)
        yield writer
        (out / images).mkdir(exist_ok=True)
        (out / "realiad_jsons").mkdir(exist_ok=True)
        annotations = staging / f"{category}.json"
        annotations.write_bytes(writer.annotations(recipe))
        os.replace(staging / category, out / images / category)
        os.replace(annotations, out / "realiad_jsons" / annotations.name)
    except OSError as error:
        raise CannotFinish(f"{out}: category {category!r} could not be written ({error})") from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)
