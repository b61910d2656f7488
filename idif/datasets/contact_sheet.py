"""Contact sheets of a dataset: one row per sample, one column per view, defects outlined."""

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from idif.data.images import load_image, load_mask, write_picture
from idif.data.index import Index, Sample
from idif.datasets.realiad.files import RealIADLayout
from idif.datasets.realiad.reader import read_realiad
from idif.files import make_folder
from idif.paths import resolve_inside

PREVIEW = "preview"
"""Folder of the sheets, below the dataset's root."""
CELL = 128
"""Side of a view on the sheet, pixels."""
_CAPTION = 14
_GOOD_ROWS, _DEFECT_ROWS = 3, 2
_RED = (255, 40, 40)


def write_previews(layout: RealIADLayout, categories: Sequence[str]) -> list[Path]:
    """Write a sheet ``ROOT/preview/<category>.png`` for each category; an older one is replaced.

    Raises:
        DatasetError: the dataset cannot be read.
        PathError, CannotFinish: a sheet cannot be written.
    """
    written = []
    for category in categories:
        sheet = contact_sheet(layout.root, read_realiad(layout, categories=[category]))
        path = layout.root / PREVIEW / f"{category}.png"
        make_folder(path.parent)
        write_picture(path, sheet)
        written.append(path)
    return written


def chosen_samples(index: Index) -> list[Sample]:
    """The first three training samples, then the first two test samples of every class, good ones first."""
    chosen = [sample for sample in index.samples if sample.split == "train"][:_GOOD_ROWS]
    test = [sample for sample in index.samples if sample.split == "test"]
    for name in sorted({s.anomaly_class for s in test}, key=lambda name: (name != "OK", name)):
        chosen += [sample for sample in test if sample.anomaly_class == name][:_DEFECT_ROWS]
    return chosen


def contact_sheet(root: Path, index: Index) -> Image.Image:
    """The sheet of an index, RGB: `CELL` pixels per view, a caption above each row; absent views are black.

    Raises:
        DatasetError: a picture or mask cannot be read.
    """
    samples = chosen_samples(index)
    height = CELL + _CAPTION
    sheet = Image.new("RGB", (CELL * len(index.view_numbers), height * len(samples)))
    draw = ImageDraw.Draw(sheet)
    for row, sample in enumerate(samples):
        caption = f"{sample.sample_id}  {sample.split}  {sample.anomaly_class}"
        draw.text((2, row * height + 1), caption.encode("ascii", "replace").decode(), fill=(255, 255, 255))
        for column, view in enumerate(sample.views):
            if view is None:
                continue
            picture, shape = load_image(resolve_inside(root, view.image), CELL)
            cell = np.ascontiguousarray(picture.transpose(1, 2, 0))
            if view.mask is not None:
                cell[_outline(load_mask(resolve_inside(root, view.mask), CELL, shape))] = _RED
            sheet.paste(Image.fromarray(cell), (column * CELL, row * height + _CAPTION))
    return sheet


def _outline(mask: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """The pixels just around a mask."""
    dilated = cv2.dilate(mask.astype(np.uint8), np.ones((3, 3), np.uint8))
    return (dilated > 0) & ~mask
