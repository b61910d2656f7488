"""The pictures of one view: photograph, reconstruction, anomaly map and mask, where there are such."""

from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from idif.data.images import uncropped
from idif.inference.predict import Prediction, overlay, photograph, rebuilt_picture
from idif.visualization.heatmap import Pixels

SIDE = 720
"""Longest side of a picture in pixels; the page shows it smaller until it is enlarged."""


class Picture(NamedTuple):
    """One picture of a view."""

    title: str
    image: Pixels
    """uint8 [h,w,3], RGB."""


def view_pictures(
    prediction: Prediction,
    slot: int,
    path: Path,
    scale: tuple[float, float],
    opacity: float,
    mask: npt.NDArray[np.bool_] | None,
) -> list[Picture]:
    """The pictures of one present view, all of one size, in the order of the page.

    Args:
        prediction: of the part.
        slot: of the view.
        path: its photograph.
        scale: (low, high) of the color scale.
        opacity: of the map's colors, 0..1.
        mask: bool [S,S], the labeled defect of a test sample; None where there is none.

    Raises:
        DatasetError: the photograph cannot be read.
    """
    photo, crop_from = photograph(path, SIDE), prediction.crop_from
    pictures = [Picture("photograph", photo)]
    if prediction.rebuilt is not None:
        again = rebuilt_picture(prediction.rebuilt[slot], photo.shape[:2], crop_from)
        pictures.append(Picture("reconstruction", again))
    if prediction.maps is not None:
        heat = overlay(photo, prediction.maps[slot], scale, crop_from, opacity)
        pictures.append(Picture("anomaly map", heat))
    if mask is not None:
        pictures.append(Picture("labeled defect", _mask_picture(mask, photo, crop_from)))
    return pictures


def _mask_picture(mask: npt.NDArray[np.bool_], photo: Pixels, crop_from: int | None) -> Pixels:
    """The mask in white on black, in the proportions of the photograph."""
    marked = uncropped(mask, crop_from, fill=0).astype(np.uint8) * 255
    drawn = cv2.resize(marked, (photo.shape[1], photo.shape[0]), interpolation=cv2.INTER_NEAREST)
    return np.repeat(drawn[:, :, None], 3, axis=2).astype(np.uint8)
