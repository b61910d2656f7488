"""Contact sheets of a dataset: one row per sample, one column per view under its name, defects outlined.

With one camera the samples stand side by side, `COLUMNS` in a row.
"""

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from idif.data.images import load_image, load_mask, write_picture
from idif.data.index import Index, Sample, View, camera_name
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
_RED, _WHITE, _GRAY = (255, 40, 40), (255, 255, 255), (170, 170, 170)
_GAP = 4
_STEP = CELL + _GAP


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

    Cameras are named at the top, where there are several.

    Raises:
        DatasetError: a picture or mask cannot be read.
    """
    samples = chosen_samples(index)
    height, views = CELL + _CAPTION, len(index.view_numbers)
    across = min(COLUMNS, len(samples)) if views == 1 else 1
    top = 0 if views == 1 else _CAPTION
    rows = -(-len(samples) // across)
    sheet = Image.new("RGB", (_STEP * views * across - _GAP, top + height * rows))
    draw = ImageDraw.Draw(sheet)
    for column, number in enumerate(index.view_numbers if views > 1 else ()):
        _write(draw, (column * _STEP, 0), camera_name(index.camera_names, number), CELL, _GRAY)
    for number, sample in enumerate(samples):
        row, left = top + number // across * height, number % across * _STEP
        # a caption over one picture has room for little
        caption = f"{sample.split} {sample.anomaly_class}"
        if views > 1:
            caption = f"{sample.sample_id}  {sample.split}  {sample.anomaly_class}"
        _write(draw, (left, row), caption, CELL * views)
        for column, view in enumerate(sample.views):
            if view is not None:
                sheet.paste(_cell(root, view), (left + column * _STEP, row + _CAPTION))
    return sheet


def _write(
    draw: ImageDraw.ImageDraw,
    place: tuple[int, int],
    text: str,
    width: int,
    color: tuple[int, int, int] = _WHITE,
) -> None:
    """Write a line into ``width`` pixels, shortened to what fits."""
    text = text.encode("ascii", "replace").decode()
    line = text
    while draw.textlength(line) > width - 4 and text:
        text = text[:-1]
        line = f"{text.rstrip()}..."
    draw.text((place[0] + 2, place[1] + 1), line, fill=color)


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
