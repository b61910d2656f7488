"""The gallery: chosen samples as rows of views, each a photograph with its mask above its anomaly map.

Maps of one category share one colour scale, so that brightness can be compared between its pictures.
"""

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image

from idif.data.index import MIXED_CLASS, NORMAL_CLASS, Split
from idif.errors import IdifError
from idif.evaluation.predictions import Predictions
from idif.report.figures import Ranked
from idif.visualization.heatmap import color_limits, heatmap_image

Images = npt.NDArray[np.uint8]

SIZES = ((224, 80), (176, 76), (144, 72), (112, 66), (80, 60), (56, 45))
"""(side in pixels, WebP quality) to try until a category's pictures fit their share of the page."""
OUTLINE = (0, 229, 255)
"""Cyan, which no colour of the heat map comes near."""


class ImageLoader(Protocol):
    """Hands the report the clean images of a run's samples."""

    def __call__(
        self, run: Path, category: str, split: Split, sample_ids: Sequence[str]
    ) -> Mapping[str, Images]:
        """Clean images uint8 [V,3,H,W], RGB, by sample id; samples that are not found are left out.

        Args:
            run: the folder given to `write_report`.
            category, split: of all the samples.
            sample_ids: as in the predictions file.

        Raises:
            IdifError: images cannot be had; the report shows the message and goes without.
        """
        ...


@dataclass(frozen=True)
class Tile:
    """One view of a sample; its pictures are data URIs."""

    view: int
    present: bool
    score: str
    defect: str
    anomalous: bool
    photo: str | None
    heat: str | None


@dataclass(frozen=True)
class Shown:
    """One sample of the gallery."""

    kind: str
    sample_id: str
    score: str
    defect: str
    tiles: tuple[Tile, ...]


@dataclass(frozen=True)
class Gallery:
    """The samples of one category, and what has to be said about them."""

    samples: tuple[Shown, ...]
    side: int
    low: str
    high: str
    notes: tuple[str, ...]
    has_heat: bool


def choose(samples: Ranked, each: int) -> dict[int, str]:
    """Which samples to show: row of the predictions -> why, best detected first.

    Args:
        samples: of one category.
        each: samples of every kind, fewer where there are not as many.
    """
    descending = samples.rows[np.argsort(-samples.scores, kind="stable")]
    anomalous = dict(zip(samples.rows.tolist(), samples.anomalous.tolist(), strict=True))
    hits = [int(row) for row in descending if anomalous[int(row)]]
    normals = [int(row) for row in descending if not anomalous[int(row)]]
    kinds = [("Best detected", hits), ("Worst missed", hits[::-1]), ("Highest scoring normal", normals)]
    if samples.threshold is not None:
        nearest = np.argsort(np.abs(samples.scores - samples.threshold), kind="stable")
        kinds.append(("Borderline", [int(row) for row in samples.rows[nearest]]))
    chosen: dict[int, str] = {}
    for kind, rows in kinds:
        chosen |= dict.fromkeys([row for row in rows if row not in chosen][:each], kind)
    return chosen


def make_gallery(
    predictions: Predictions, samples: Ranked, images: Mapping[str, Images], each: int, budget: int
) -> Gallery:
    """The pictures of one category.

    Args:
        predictions: the run's.
        samples: the category's.
        images: clean images by sample id; a sample without them shows its maps alone.
        each: samples of every kind.
        budget: bytes that its pictures may take on the page.
    """
    chosen = choose(samples, each)
    rows = list(chosen)
    maps, masks = _maps(predictions, rows)
    low, high = color_limits(maps[predictions.present[rows]])
    heat = (maps - low) / (high - low)
    size = 0
    for place, (side, quality) in enumerate(SIZES):
        if size * (side / SIZES[max(place - 1, 0)][0]) ** 2 > 1.2 * budget:
            size = round(size * (side / SIZES[place - 1][0]) ** 2)
            continue  # it will not fit, going by the size before
        shown = []
        for row, of_sample, truth in zip(rows, heat, masks, strict=True):
            pictures = images.get(predictions.sample_id[row])
            shown.append(_shown(predictions, row, chosen[row], pictures, of_sample, truth, side, quality))
        size = sum(len(t.photo or "") + len(t.heat or "") for sample in shown for t in sample.tiles)
        if size <= budget:
            notes = _notes(predictions, rows, images)
            return Gallery(tuple(shown), side, f"{low:.3g}", f"{high:.3g}", notes, predictions.has_maps)
    return Gallery((), 0, "", "", ("Its pictures are left out to keep the page small.",), has_heat=False)


def load_images(
    loader: ImageLoader | None, run: Path, split: Split, predictions: Predictions, samples: Ranked, each: int
) -> tuple[Mapping[str, Images], str | None]:
    """The clean images of the samples that `make_gallery` will show, or why there are none."""
    if loader is None:
        return {}, "Photographs are not shown: the report was made without access to the images."
    chosen = list(choose(samples, each))
    if not chosen:
        return {}, None
    ids = [predictions.sample_id[row] for row in chosen]
    try:
        return loader(run, predictions.category[chosen[0]], split, ids), None
    except IdifError as error:
        return {}, f"Photographs are not shown: {error}."


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
        notes.append("The predictions were kept without maps and masks (--no-maps), so none are drawn.")
    lacking = sum(predictions.sample_id[row] not in images for row in rows)
    if images and lacking:
        notes.append(f"The images of {lacking} of these samples were not found.")
    unmasked = predictions.labels[rows] & ~predictions.has_mask[rows]
    if predictions.has_maps and unmasked.any():
        notes.append("Some anomalous views have no mask, so no outline is drawn on them.")
    return tuple(notes)


def _sample_class(predictions: Predictions, row: int) -> str:
    flagged = predictions.labels[row] & predictions.present[row]
    classes = {name for name, bad in zip(predictions.anomaly_class[row], flagged, strict=True) if bad}
    if not classes:
        return NORMAL_CLASS
    return classes.pop() if len(classes) == 1 else f"{MIXED_CLASS} ({', '.join(sorted(classes))})"


def _shown(
    predictions: Predictions,
    row: int,
    kind: str,
    pictures: Images | None,
    heat: npt.NDArray[np.float32],
    masks: npt.NDArray[np.bool_],
    side: int,
    quality: int,
) -> Shown:
    """One sample drawn; ``heat`` [V,H,W] is 0 at the scale's low end and 1 at its high, or [V,0,0]."""
    p, tiles = predictions, []
    for slot, number in enumerate(p.view_numbers):
        if not p.present[row, slot]:
            tiles.append(Tile(number, False, "", "", False, None, None))
            continue
        photo = None if pictures is None else _resized(np.moveaxis(pictures[slot], 0, 2), side)
        drawn = None
        if heat.size:
            drawn = heatmap_image(_resized(heat[slot], side), photo)
            mask = _resized(masks[slot].astype(np.float32), side) > 0.25
            for picture in (photo, drawn):
                if picture is not None:
                    _outline(picture, mask)
        tiles.append(
            Tile(
                view=number,
                present=True,
                score=_score(p.view_scores[row, slot]),
                defect=p.anomaly_class[row][slot],
                anomalous=bool(p.labels[row, slot]),
                photo=None if photo is None else _data_uri(photo, quality),
                heat=None if drawn is None else _data_uri(drawn, quality),
            )
        )
    return Shown(kind, p.sample_id[row], _score(p.sample_scores[row]), _sample_class(p, row), tuple(tiles))


def _score(value: np.float32) -> str:
    """Three digits, trailing zeros kept, so that a column of scores lines up."""
    return f"{float(value):#.3g}".rstrip(".")


def _resized(picture: npt.NDArray[Any], side: int) -> npt.NDArray[Any]:
    rule = cv2.INTER_AREA if picture.shape[0] > side else cv2.INTER_LINEAR
    return cv2.resize(np.ascontiguousarray(picture), (side, side), interpolation=rule)


def _outline(picture: Images, mask: npt.NDArray[np.bool_]) -> None:
    """Draw a line just outside ``mask``, in place, with a dark edge that shows it on bright ground."""
    if not mask.any():
        return
    cross = np.ones((3, 3), np.uint8)
    inner = cv2.dilate(mask.astype(np.uint8), cross)
    line = cv2.dilate(inner, cross)
    edge = cv2.dilate(line, cross)
    picture[(edge > line)] = picture[(edge > line)] // 3
    picture[(line > inner)] = OUTLINE


def _data_uri(picture: Images, quality: int) -> str:
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "WEBP", quality=quality, method=2)
    return "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
