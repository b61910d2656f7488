"""Predicts on photographs: scores, decisions and maps of a trained method."""

import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor

from idif.data.batch import Batch
from idif.data.decode import DECODED_AHEAD, decode_threads
from idif.data.features import IMAGES, FeatureSpec
from idif.data.images import load_photograph, uncropped, write_picture
from idif.encoders.encode import EncoderSet
from idif.errors import CannotFinish, ConfigError, DatasetError
from idif.evaluation.reconstruction import image_bytes
from idif.evaluation.scoring import Scorer
from idif.files import make_folder, replace_file
from idif.inference.photo_grouping import PredictInput
from idif.methods.protocol import Reconstructs
from idif.paths import portable_name
from idif.prefetch import prefetch_map
from idif.progress import Progress, silent
from idif.visualization.heatmap import OPACITY, Pixels, color_limits, heatmap_image

LONGEST_SIDE = 1024
"""Maximum length of a picture's longer side in pixels; smaller photographs are not enlarged."""


@dataclass(frozen=True)
class Prediction:
    """The result of one part."""

    part: PredictInput
    present: npt.NDArray[np.bool_]
    """bool [V]: the views that could be read."""
    view_scores: npt.NDArray[np.float32]
    """float32 [V]; NaN where a view is missing."""
    score: float | None
    """Sample score; None if no view could be read."""
    maps: npt.NDArray[np.float32] | None
    """float32 [V,S,S], zero where a view is missing; None without a score or a map."""
    problems: tuple[str, ...]
    """Reasons why given photographs count as missing."""
    crop_from: int | None = None
    """Side of the resized photographs, in pixels of the maps, of which the maps show the center; None: the
    maps show the whole photographs."""
    rebuilt: npt.NDArray[np.uint8] | None = None
    """uint8 [V,3,S,S], RGB: what the maps show of the photographs, as the method rebuilds it; zero where
    a view is missing. None if it was not asked for, or the method rebuilds no images."""


@dataclass(frozen=True)
class DecodedPart:
    """The photographs of one part."""

    part: PredictInput
    arrays: dict[str, npt.NDArray[Any]]
    """{name: [V,...]}, from `EncoderSet.decode_files`."""
    present: npt.NDArray[np.bool_]
    problems: tuple[str, ...]


def decode_part(part: PredictInput, encoders: EncoderSet) -> DecodedPart:
    """Decode a part; unreadable photographs become absent and are listed in ``problems``."""
    views, problems = [], []
    present = np.zeros(len(part.images), np.bool_)
    for slot, path in enumerate(part.images):
        try:
            views.append(encoders.decode_files([path], [None], {}))
            present[slot] = path is not None
        except DatasetError as error:
            views.append(encoders.decode_files([None], [None], {}))
            problems.append(str(error))
    arrays = {name: np.concatenate([view[name] for view in views]) for name in views[0]}
    return DecodedPart(part, arrays, present, tuple(problems))


@torch.inference_mode()
def predict(
    scorer: Scorer,
    encoders: EncoderSet,
    parts: Sequence[PredictInput],
    *,
    rebuild: bool = False,
    progress: Progress = silent,
) -> Iterator[Prediction]:
    """Score parts in order, decoding ahead; unreadable photographs count as missing.

    Args:
        scorer: a trained method, of one category or of all of ``parts``' categories, with the run's scoring
            rules; ``eval.batch_size`` parts are scored at once. The method is moved to its device.
        encoders: the frozen encoders of the method's training; also moved there.
        parts: the parts to score.
        rebuild: whether to give the images that the method rebuilds, too, if it rebuilds any.
        progress: called with the parts done and the number of parts.

    Raises:
        CannotFinish: a score is not finite.
    """
    scorer.method.to(scorer.device).eval()
    encoders.to(scorer.device)
    size = scorer.config.batch_size
    decoded = prefetch_map(
        lambda part: decode_part(part, encoders), parts, workers=decode_threads(), depth=DECODED_AHEAD * size
    )
    done = 0
    try:
        while batch := list(islice(decoded, size)):
            yield from _score(scorer, encoders, batch, rebuild)
            done += len(batch)
            progress(done, len(parts), "predicting")
    finally:
        decoded.close()


def require_images(features: FeatureSpec) -> None:
    """Refuse a run whose encoders need other inputs than photographs.

    Raises:
        ConfigError: names the other input.
    """
    if features.inputs:
        raise ConfigError(
            f"method.name: this run scores {', '.join(features.inputs)} files, not photographs; put them "
            "into a dataset, build a store of it and use `idif eval RUN`; `idif report RUN` shows its samples"
        )


def image_batch(
    encoders: EncoderSet, arrays: Mapping[str, Tensor], view_mask: Tensor, categories: Sequence[str]
) -> Batch:
    """Encode a batch without labels.

    Args:
        arrays: {name: [B,V,...]}, stacked from `EncoderSet.decode_files`, on the encoders' device.
        view_mask: bool [B,V], on the same device.
        categories: category name of each of the B samples.
    """
    encoded = encoders.encode(arrays, {"image": view_mask})
    if IMAGES in arrays:
        encoded[IMAGES] = arrays[IMAGES]
    count = len(view_mask)
    return Batch(
        rows=torch.arange(count, device=view_mask.device),
        arrays=encoded,
        view_mask=view_mask,
        labels=torch.zeros_like(view_mask),
        sample_labels=torch.zeros(count, dtype=torch.bool, device=view_mask.device),
        categories=tuple(categories),
    )


def _rebuilt(scorer: Scorer, batch: Batch) -> npt.NDArray[np.uint8] | None:
    """uint8 [B,V,3,S,S]; None if the method rebuilds no images."""
    method = scorer.method
    if not isinstance(method, Reconstructs) or IMAGES not in method.rebuilt:
        return None
    return image_bytes(method.reconstruct(batch)[IMAGES])


def _score(
    scorer: Scorer, encoders: EncoderSet, decoded: list[DecodedPart], rebuild: bool
) -> Iterator[Prediction]:
    seen = [one for one in decoded if one.present.any()]
    results: dict[str, Prediction] = {}
    if seen:
        arrays = {
            name: torch.from_numpy(np.stack([one.arrays[name] for one in seen])).to(scorer.device)
            for name in seen[0].arrays
        }
        visible = np.stack([one.present for one in seen])
        mask = torch.from_numpy(visible).to(scorer.device)
        categories = [one.part.category or "" for one in seen]
        batch = image_batch(encoders, arrays, mask, categories)
        scored = scorer.score(batch)
        rebuilt = _rebuilt(scorer, batch) if rebuild else None
        views, samples = scorer.final(scored.without_maps())
        maps = None if scored.maps is None else scored.maps.cpu().numpy()
        for place, (one, row, score) in enumerate(zip(seen, views, samples, strict=True)):
            if not np.isfinite(score):
                raise CannotFinish(f"{one.part.name}: the anomaly score is not finite; the model is broken")
            results[one.part.name] = Prediction(
                part=one.part,
                present=one.present,
                view_scores=np.where(one.present, row, np.nan).astype(np.float32),
                score=float(score),
                maps=None if maps is None else maps[place],
                problems=one.problems,
                crop_from=encoders.image_reader.crop_from,
                rebuilt=None if rebuilt is None else rebuilt[place],
            )
    for one in decoded:
        yield results.get(one.part.name) or without_score(one)


def without_score(decoded: DecodedPart) -> Prediction:
    """The result of a part of which no photograph could be read."""
    return Prediction(
        part=decoded.part,
        present=decoded.present,
        view_scores=np.full(len(decoded.present), np.nan, np.float32),
        score=None,
        maps=None,
        problems=decoded.problems,
    )


@dataclass(frozen=True)
class Thresholds:
    """Decision thresholds: a score from the threshold on is anomalous; None if the run recorded none."""

    part: float | None = None
    view: float | None = None
    origin: str | None = None
    """Where the part's threshold comes from, for display."""


def prediction_json(
    judged: Prediction,
    view_numbers: Sequence[int],
    limits: Thresholds,
    cameras: Mapping[int, str] | None = None,
) -> dict[str, Any]:
    """A part's result as JSON values: score, decision, and each view's file, score and decision.

    ``anomalous`` is true if the score reaches the threshold, and None without a score or threshold;
    ``category_probabilities`` is there where the category was told by the photographs.

    Args:
        judged: the prediction.
        view_numbers: camera number of each slot.
        limits: the run's thresholds.
        cameras: camera number -> its name; recorded as ``cameras`` if there are any.
    """
    score, told = judged.score, judged.part.probabilities
    return {
        "sample": judged.part.name,
        "category": judged.part.category,
        **({} if told is None else {"category_probabilities": dict(told)}),
        "score": score,
        "threshold": limits.part,
        "threshold_origin": limits.origin,
        "anomalous": _from_on(score, limits.part),
        "view_threshold": limits.view,
        "views": {
            str(number): {
                "image": str(path),
                "score": float(of_view),
                "anomalous": _from_on(float(of_view), limits.view),
            }
            for number, path, there, of_view in zip(
                view_numbers, judged.part.images, judged.present, judged.view_scores, strict=True
            )
            if there
        },
        **({"cameras": {str(number): name for number, name in cameras.items()}} if cameras else {}),
        "missing": [n for n, there in zip(view_numbers, judged.present, strict=True) if not there],
        "problems": list(judged.problems),
    }


def _from_on(score: float | None, limit: float | None) -> bool | None:
    return None if score is None or limit is None else score >= limit


def write_pictures(
    folder: Path, judged: Prediction, cameras: Mapping[int, str], scale: tuple[float, float] | None
) -> None:
    """Write a part's ``CAMERA.png`` (heat over photograph) and ``CAMERA.npy`` (the map, float32 [S,S]).

    Nothing is written for a part without maps.

    Args:
        folder: the part's own folder, created if missing.
        judged: the prediction to draw.
        cameras: camera number -> name of its files, for each slot.
        scale: (low, high) of the color scale; None uses the range of the part's own maps.

    Raises:
        PathError, CannotFinish: the folder cannot be written.
    """
    if judged.maps is None:
        return
    low, high = color_limits(judged.maps[judged.present]) if scale is None else scale
    make_folder(folder)
    for file, path, there, values in zip(
        camera_files(cameras), judged.part.images, judged.present, judged.maps, strict=True
    ):
        if not there or path is None:
            continue
        raw = io.BytesIO()
        np.save(raw, values)
        replace_file(folder / f"{file}.npy", raw.getvalue())
        picture = Image.fromarray(overlay(photograph(path), values, (low, high), judged.crop_from))
        write_picture(folder / f"{file}.png", picture)


def camera_files(cameras: Mapping[int, str]) -> list[str]:
    """Names of the cameras' files, valid on all systems; ``C`` and the number where two would be the same."""
    names = {number: portable_name(name) for number, name in cameras.items()}
    folded = [name.casefold() for name in names.values()]
    return [f"C{n}" if folded.count(name.casefold()) > 1 else name for n, name in names.items()]


def overlay(
    photo: Pixels,
    values: npt.NDArray[np.float32],
    scale: tuple[float, float],
    crop_from: int | None = None,
    opacity: float = OPACITY,
) -> Pixels:
    """A view's map over its photograph: uint8 [h,w,3], RGB.

    Args:
        photo: uint8 [h,w,3], RGB, from `photograph`.
        values: float32 [S,S], the map.
        scale: (low, high) of the color scale.
        crop_from: side of the square of which the map shows the center; None: the map shows all of it.
        opacity: opacity of the colors, 0..1.
    """
    low, high = scale
    values = uncropped(values, crop_from, fill=low)
    size = (photo.shape[1], photo.shape[0])
    heat = cv2.resize((values - low) / (high - low), size, interpolation=cv2.INTER_LINEAR)
    return heatmap_image(heat.astype(np.float32), photo, opacity)


def photograph(path: Path, longest_side: int = LONGEST_SIDE) -> Pixels:
    """A photograph for display: uint8 [h,w,3], RGB, not enlarged.

    Raises:
        DatasetError: it cannot be read.
    """
    photo = load_photograph(path)
    shrink = min(1.0, longest_side / max(photo.shape[:2]))
    size = (max(1, round(photo.shape[1] * shrink)), max(1, round(photo.shape[0] * shrink)))
    return cv2.resize(photo, size, interpolation=cv2.INTER_AREA).astype(np.uint8)


def rebuilt_picture(rebuilt: Pixels, shape: tuple[int, int], crop_from: int | None = None) -> Pixels:
    """A rebuilt image in the proportions of its photograph: uint8 [h,w,3], RGB.

    Args:
        rebuilt: uint8 [3,S,S], one of `Prediction.rebuilt`.
        shape: (h, w).
        crop_from: side of the square of which it shows the center; its edge is drawn around it.
    """
    whole = np.ascontiguousarray(np.moveaxis(uncropped(rebuilt, crop_from), 0, 2))
    return cv2.resize(whole, (shape[1], shape[0]), interpolation=cv2.INTER_LINEAR).astype(np.uint8)
