"""Strips: photograph, reconstruction, mask and every map of a view, for methods that rebuild images."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from idif.evaluation.predictions import Predictions
from idif.evaluation.reconstruction import RebuiltImages
from idif.methods.maps import MAP
from idif.report.gallery import Images, outline, resized, score_text
from idif.visualization.data_uri import webp_data_uri
from idif.visualization.heatmap import Pixels, color_limits, heatmap_image

SIZES = ((192, 80), (144, 74), (112, 66), (80, 60))
"""(side in pixels, WebP quality), tried in this order until the strips fit their budget."""


@dataclass(frozen=True)
class Strip:
    """The pictures of one view."""

    kind: str
    """Why its sample was selected."""
    sample_id: str
    camera: str
    """Name of the camera; empty if samples have only one."""
    score: str
    defect: str
    file: str
    pictures: tuple[tuple[str, str], ...]
    """(subject, data URI)."""


@dataclass(frozen=True)
class Strips:
    """The strips of one category."""

    strips: tuple[Strip, ...]
    side: int
    """Side of every picture in pixels."""


def make_strips(
    predictions: Predictions,
    selected: Mapping[int, str],
    photos: Mapping[str, Images],
    rebuilt: RebuiltImages,
    budget: int,
) -> Strips | None:
    """The strips of the selected samples, each of one view; None if there are none.

    Args:
        predictions: of the run, with maps.
        selected: row of the predictions -> why it is selected.
        photos: clean images by sample id; strips of other samples begin with the reconstruction.
        rebuilt: the reconstructions.
        budget: bytes that the pictures may take on the page.
    """
    rows = [row for row in selected if predictions.sample_id[row] in rebuilt.rows]
    if not rows:
        return None
    slots = [_slot(predictions, row) for row in rows]
    masks, heats = _maps(predictions, rows, slots)
    drawn = []
    for place, (row, slot) in enumerate(zip(rows, slots, strict=True)):
        photo = photos.get(predictions.sample_id[row])
        image = rebuilt.images(predictions.sample_id[row])[slot]
        pictures: dict[str, Pixels] = {}
        if photo is not None:
            pictures["photograph"] = np.moveaxis(photo[slot], 0, 2)
        pictures["reconstruction"] = np.moveaxis(image, 0, 2)
        drawn.append((row, slot, pictures, masks[place], {name: heat[place] for name, heat in heats.items()}))
    for side, quality in SIZES:
        strips = tuple(
            _strip(predictions, selected[row], row, slot, pictures, mask, maps, side, quality)
            for row, slot, pictures, mask, maps in drawn
        )
        if sum(len(data) for strip in strips for _, data in strip.pictures) <= budget:
            return Strips(strips, side)
    return None


def _slot(predictions: Predictions, row: int) -> int:
    """The view with the highest score, of an anomalous sample among its anomalous ones."""
    labels, scores = predictions.labels[row], predictions.view_scores[row]
    return int(np.nanargmax(np.where(labels, scores, np.nan) if labels.any() else scores))


def _maps(
    predictions: Predictions, rows: list[int], slots: list[int]
) -> tuple[npt.NDArray[np.bool_], dict[str, npt.NDArray[np.float32]]]:
    """Masks [N,H,W], and {name: maps [N,H,W], 0 and 1 at the ends of the map's color scale}."""
    heats = {}
    for name in (MAP, *predictions.other_maps):
        _, maps, masks = next(iter(predictions.iter_maps(rows, len(rows), name)))
        values = maps[np.arange(len(rows)), slots].astype(np.float32)
        low, high = color_limits(values)
        heats["anomaly map" if name == MAP else name] = (values - low) / (high - low)
    return masks[np.arange(len(rows)), slots], heats


def _strip(
    predictions: Predictions,
    kind: str,
    row: int,
    slot: int,
    pictures: Mapping[str, Pixels],
    mask: npt.NDArray[np.bool_],
    heats: Mapping[str, npt.NDArray[np.float32]],
    side: int,
    quality: int,
) -> Strip:
    p = predictions
    shown = {name: resized(picture, side) for name, picture in pictures.items()}
    small = resized(mask.astype(np.float32), side) > 0.25
    shown["mask"] = np.repeat((small * np.uint8(255))[..., None], 3, axis=2)
    for name, heat in heats.items():
        shown[name] = heatmap_image(resized(heat, side), None)
        outline(shown[name], small)
    return Strip(
        kind=kind,
        sample_id=p.sample_id[row],
        camera="" if len(p.view_numbers) == 1 else p.camera_name(p.view_numbers[slot]),
        score=score_text(p.view_scores[row, slot]),
        defect=p.anomaly_class[row][slot],
        file=p.original_name(row, slot),
        pictures=tuple((name, webp_data_uri(picture, quality)) for name, picture in shown.items()),
    )
