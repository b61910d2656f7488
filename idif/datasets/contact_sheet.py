"""Contact sheets of a dataset: one row per sample, one column per view, defects outlined.

With one camera the samples stand side by side, `COLUMNS` in a row.
"""

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from idif.data.images import load_image, load_mask, write_picture
from idif.data.index import Index, Sample, View
from idif.datasets.realiad.files import RealIADLayout
from idif.datasets.realiad.reader import read_realiad
from idif.files import make_folder
from idif.paths import resolve_inside

PREVIEW = "preview"
"""Folder of the sheets, below the dataset's root."""
CELL = 128
"""Side of a view on the sheet, pixels."""
COLUMNS = 4
"""Samples in a row of a sheet of one camera."""
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
    height, views = CELL + _CAPTION, len(index.view_numbers)
    across = min(COLUMNS, len(samples)) if views == 1 else 1
    sheet = Image.new("RGB", (CELL * views * across, height * -(-len(samples) // across)))
    draw = ImageDraw.Draw(sheet)
    for number, sample in enumerate(samples):
        row, left = number // across, (number % across) * CELL
        # a caption over one picture has room for little
        caption = f"{sample.split} {sample.anomaly_class}"
        if views > 1:
            caption = f"{sample.sample_id}  {sample.split}  {sample.anomaly_class}"
        text = caption.encode("ascii", "replace").decode()
        draw.text((left + 2, row * height + 1), text[:21] if views == 1 else text, fill=(255, 255, 255))
        for column, view in enumerate(sample.views):
            if view is not None:
                place = (left + column * CELL, row * height + _CAPTION)
                sheet.paste(_cell(root, view), place)
    return sheet


def _cell(root: Path, view: View) -> Image.Image:
    """A view, `CELL` pixels, with its defect outlined."""
    picture, shape = load_image(resolve_inside(root, view.image), CELL)
    cell = np.ascontiguousarray(picture.transpose(1, 2, 0))
    if view.mask is not None:
        cell[_outline(load_mask(resolve_inside(root, view.mask), CELL, shape))] = _RED
    return Image.fromarray(cell)


def _outline(mask: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """The pixels just around a mask."""
    dilated = cv2.dilate(mask.astype(np.uint8), np.ones((3, 3), np.uint8))
    return (dilated > 0) & ~mask
