"""The gallery: selected samples as rows of views, each with its photograph, mask outline and anomaly map.

The maps of a category share one color scale, so that they can be compared.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from idif.data.index import MIXED_CLASS, NORMAL_CLASS, Split
from idif.evaluation.predictions import Predictions
from idif.report.figures import ScoredSamples
from idif.report.loading import SampleLoader, load_samples
from idif.visualization.data_uri import webp_data_uri
from idif.visualization.heatmap import color_limits, heatmap_image

Images = npt.NDArray[np.uint8]

LARGE = (384, 82)
"""Tried before `SIZES` for samples with one view."""
SIZES = ((224, 80), (176, 76), (144, 72), (112, 66), (80, 60), (56, 45))
"""(side in pixels, WebP quality), tried in this order until a category's images fit their budget."""
OUTLINE = (0, 229, 255)
"""Cyan, far from every color of the heat map."""


ImageLoader = SampleLoader[Mapping[str, Images]]
"""Loads clean images uint8 [V,3,H,W], RGB, by sample id, without the samples that are not available."""


@dataclass(frozen=True)
class Tile:
    """One view of a sample; its images are data URIs."""

    camera: str
    """Name of the camera; empty if samples have only one."""
    file: str
    """Original name of the photograph."""
    present: bool
    score: str
    defect: str
    anomalous: bool
    photo: str | None
    heat: str | None


@dataclass(frozen=True)
class GallerySample:
    """One sample of the gallery."""

    kind: str
    """Why it was selected."""
    sample_id: str
    score: str
    defect: str
    tiles: tuple[Tile, ...]


@dataclass(frozen=True)
class Gallery:
    """The selected samples of one category, with notes about what is not shown."""

    samples: tuple[GallerySample, ...]
    side: int
    """Side of every image in pixels."""
    low: str
    high: str
    """Ends of the color scale."""
    notes: tuple[str, ...]
    has_heat: bool
    one_camera: bool = False


def select_samples(samples: ScoredSamples, each: int, wrong: int = 0) -> dict[int, str]:
    """The samples to show: row of the predictions -> why it is selected.

    Args:
        samples: of one category.
        each: samples of each kind, fewer if there are not as many.
        wrong: missed and falsely alarmed samples of each, before all others.
    """
    descending = samples.rows[np.argsort(-samples.scores, kind="stable")]
    anomalous = dict(zip(samples.rows.tolist(), samples.anomalous.tolist(), strict=True))
    anomalies = [int(row) for row in descending if anomalous[int(row)]]
    normals = [int(row) for row in descending if not anomalous[int(row)]]
    kinds = [
        ("Highest-scoring anomaly", anomalies),
        ("Lowest-scoring anomaly", anomalies[::-1]),
        ("Highest-scoring normal", normals),
    ]
    if samples.threshold is not None:
        flagged = dict(zip(samples.rows.tolist(), samples.scores >= samples.threshold, strict=True))
        missed = [row for row in anomalies[::-1] if not flagged[row]][:wrong]
        alarms = [row for row in normals if flagged[row]][:wrong]
        nearest = np.argsort(np.abs(samples.scores - samples.threshold), kind="stable")
        kinds.append(("Closest to the threshold", [int(row) for row in samples.rows[nearest]]))
    selected: dict[int, str] = {}
    if samples.threshold is not None:
        selected = dict.fromkeys(missed, "Missed") | dict.fromkeys(alarms, "False alarm")
    for kind, rows in kinds:
        selected |= dict.fromkeys([row for row in rows if row not in selected][:each], kind)
    return selected


def make_gallery(
    predictions: Predictions, selected: Mapping[int, str], images: Mapping[str, Images], budget: int
) -> Gallery:
    """The gallery of one category.

    Args:
        predictions: of the run.
        selected: result of `select_samples`.
        images: clean images by sample id; only maps are shown of the other samples.
        budget: bytes that the images may take on the page.
    """
    rows = list(selected)
    one = len(predictions.view_numbers) == 1
    sizes = (LARGE, *SIZES) if one else SIZES
    maps, masks = _maps(predictions, rows)
    low, high = color_limits(maps[predictions.present[rows]])
    heat = (maps - low) / (high - low)
    size = 0
    for step, (side, quality) in enumerate(sizes):
        if size * (side / sizes[max(step - 1, 0)][0]) ** 2 > 1.2 * budget:
            size = round(size * (side / sizes[step - 1][0]) ** 2)
            continue  # will not fit, judging by the previous size
        shown = []
        for row, sample_heat, sample_masks in zip(rows, heat, masks, strict=True):
            photos = images.get(predictions.sample_id[row])
            shown.append(
                _draw(predictions, row, selected[row], photos, sample_heat, sample_masks, side, quality)
            )
        size = sum(len(t.photo or "") + len(t.heat or "") for sample in shown for t in sample.tiles)
        if size <= budget:
            notes = _notes(predictions, rows, images)
            ends = f"{low:.3g}", f"{high:.3g}"
            return Gallery(tuple(shown), side, *ends, notes, predictions.has_maps, one)
    return Gallery((), 0, "", "", ("The images are omitted to keep the page small.",), has_heat=False)


def load_images(
    loader: ImageLoader | None,
    run: Path,
    split: Split,
    predictions: Predictions,
    rows: Sequence[int],
) -> tuple[Mapping[str, Images], str | None]:
    """The clean images of some rows of a category, and why they are missing, if they are."""
    if loader is None:
        return {}, "Photographs are not shown: the report was written without access to the images."
    if not rows:
        return {}, None
    images, missing = load_samples(loader, run, split, predictions, rows, "Photographs")
    return images or {}, missing


def _maps(predictions: Predictions, rows: list[int]) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_]]:
    """Maps float32 and masks bool, both [len(rows),V,H,W]; [len(rows),V,0,0] for a file without maps."""
    if not predictions.has_maps or not rows:
        none = (len(rows), len(predictions.view_numbers), 0, 0)
        return np.empty(none, np.float32), np.empty(none, np.bool_)
    _, maps, masks = next(iter(predictions.iter_maps(rows, len(rows))))
    return maps.astype(np.float32), masks


def _notes(predictions: Predictions, rows: list[int], images: Mapping[str, Images]) -> tuple[str, ...]:
    notes = []
    if not predictions.has_maps:
        notes.append("Maps and masks are not shown: the predictions were written without them (--no-maps).")
    missing = sum(predictions.sample_id[row] not in images for row in rows)
    if images and missing:
        notes.append(f"The images of {missing} of these samples were not found.")
    unmasked = predictions.labels[rows] & ~predictions.has_mask[rows]
    if predictions.has_maps and unmasked.any():
        notes.append("Some anomalous views have no mask and therefore no outline.")
    return tuple(notes)


def sample_class(predictions: Predictions, row: int) -> str:
    """The defect of a sample as text, ``OK`` if it has none."""
    defects = predictions.defects_of(row)
    if not defects:
        return NORMAL_CLASS
    return defects[0] if len(defects) == 1 else f"{MIXED_CLASS} ({', '.join(defects)})"


def _draw(
    predictions: Predictions,
    row: int,
    kind: str,
    photos: Images | None,
    heat: npt.NDArray[np.float32],
    masks: npt.NDArray[np.bool_],
    side: int,
    quality: int,
) -> GallerySample:
    """One sample; ``heat`` [V,H,W] is 0 and 1 at the ends of the color scale, or [V,0,0] without maps."""
    p, tiles = predictions, []
    for slot, number in enumerate(p.view_numbers):
        if not p.present[row, slot]:
            tiles.append(Tile(p.camera_name(number), "", False, "", "", False, None, None))
            continue
        photo = None if photos is None else resized(np.moveaxis(photos[slot], 0, 2), side)
        heatmap = None
        if heat.size:
            heatmap = heatmap_image(resized(heat[slot], side), photo)
            mask = resized(masks[slot].astype(np.float32), side) > 0.25
            for image in (photo, heatmap):
                if image is not None:
                    outline(image, mask)
        tiles.append(
            Tile(
                camera="" if len(p.view_numbers) == 1 else p.camera_name(number),
                file=p.original_name(row, slot),
                present=True,
                score=score_text(p.view_scores[row, slot]),
                defect=p.anomaly_class[row][slot],
                anomalous=bool(p.labels[row, slot]),
                photo=None if photo is None else webp_data_uri(photo, quality),
                heat=None if heatmap is None else webp_data_uri(heatmap, quality),
            )
        )
    return GallerySample(
        kind, p.sample_id[row], score_text(p.sample_scores[row]), sample_class(p, row), tuple(tiles)
    )


def score_text(value: float | np.float32) -> str:
    """Three significant digits with trailing zeros, so that a column of scores lines up."""
    return f"{float(value):#.3g}".rstrip(".")


def resized(image: npt.NDArray[Any], side: int) -> npt.NDArray[Any]:
    """An image [H,W] or [H,W,C] as a square of another size."""
    rule = cv2.INTER_AREA if image.shape[0] > side else cv2.INTER_LINEAR
    return cv2.resize(np.ascontiguousarray(image), (side, side), interpolation=rule)


def outline(image: Images, mask: npt.NDArray[np.bool_]) -> None:
    """Draw a line just outside ``mask``, in place, with a dark edge for bright backgrounds."""
    if not mask.any():
        return
    cross = np.ones((3, 3), np.uint8)
    inner = cv2.dilate(mask.astype(np.uint8), cross)
    line = cv2.dilate(inner, cross)
    edge = cv2.dilate(line, cross)
    image[(edge > line)] = image[(edge > line)] // 3
    image[(line > inner)] = OUTLINE
