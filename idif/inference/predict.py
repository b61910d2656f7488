"""Judge photographs with a trained method: scores, a decision and maps, from the images alone."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from idif.config.sections import EvalConfig
from idif.data.decode import DECODED_AHEAD, decode_threads
from idif.data.images import load_image, load_photograph
from idif.encoders.encode import encode_views
from idif.encoders.frozen import FrozenEncoder
from idif.errors import CannotFinish, DatasetError
from idif.evaluation.calibration import Calibration, final_scores
from idif.inference.photo_grouping import PredictInput
from idif.methods.protocol import Method
from idif.metrics.sample import view_scores
from idif.prefetch import prefetch_map
from idif.progress import Progress, silent
from idif.visualization.heatmap import OPACITY, Pixels, color_limits, heatmap_image

LONGEST_SIDE = 1024
"""Pixels of an overlay's longer side; a smaller photograph keeps its size."""


@dataclass(frozen=True)
class Prediction:
    """What a method says of one part."""

    part: PredictInput
    present: npt.NDArray[np.bool_]
    """bool [V]: the views that could be read."""
    view_scores: npt.NDArray[np.float32]
    """float32 [V]; NaN where a view is missing."""
    score: float | None
    """None where no view could be read."""
    maps: npt.NDArray[np.float32]
    """float32 [V,S,S]; zero where a view is missing."""
    problems: tuple[str, ...]
    """Why a photograph that was given counts as missing."""


@dataclass(frozen=True)
class _Decoded:
    part: PredictInput
    images: npt.NDArray[np.uint8]
    present: npt.NDArray[np.bool_]
    problems: tuple[str, ...]


def _decode(part: PredictInput, size: int) -> _Decoded:
    images = np.zeros((len(part.images), 3, size, size), np.uint8)
    present = np.zeros(len(part.images), np.bool_)
    problems = []
    for slot, path in enumerate(part.images):
        if path is None:
            continue
        try:
            images[slot], _ = load_image(path, size)
            present[slot] = True
        except DatasetError as error:
            problems.append(str(error))
    return _Decoded(part, images, present, tuple(problems))


@torch.inference_mode()
def predict(
    config: EvalConfig,
    method: Method,
    encoder: FrozenEncoder,
    parts: Sequence[PredictInput],
    image_size: int,
    device: torch.device,
    *,
    calibration: Calibration | None = None,
    progress: Progress = silent,
) -> Iterator[Prediction]:
    """Judge parts in their order, decoding ahead; a photograph that cannot be read counts as missing.

    Args:
        config: the run's score rules; ``batch_size`` parts are judged at once.
        method: trained, of one category or of all of ``parts``' categories.
        encoder: the frozen encoder the method was trained beside.
        parts: what to look at.
        image_size: side S in pixels that images are resized to.
        device: where to compute; both modules are moved there.
        calibration: the category's, where the run has one.
        progress: told parts done and parts in all.

    Raises:
        CannotFinish: a score is not finite.
    """
    method.to(device).eval()
    encoder.module.to(device)
    depth = DECODED_AHEAD * config.batch_size
    decoded = prefetch_map(
        lambda part: _decode(part, image_size), parts, workers=decode_threads(), depth=depth
    )
    done = 0
    try:
        while batch := list(islice(decoded, config.batch_size)):
            yield from _judge(config, method, encoder, batch, device, calibration)
            done += len(batch)
            progress(done, len(parts), "judging")
    finally:
        decoded.close()


def _judge(
    config: EvalConfig,
    method: Method,
    encoder: FrozenEncoder,
    batch: list[_Decoded],
    device: torch.device,
    calibration: Calibration | None,
) -> Iterator[Prediction]:
    seen = [decoded for decoded in batch if decoded.present.any()]
    results: dict[str, Prediction] = {}
    if seen:
        images = torch.from_numpy(np.stack([d.images for d in seen])).to(device)
        visible = np.stack([d.present for d in seen])
        mask = torch.from_numpy(visible).to(device)
        features = encode_views(encoder, images, mask)
        maps = method.anomaly_maps(method.encode(images.float() / 255, mask), features, mask)
        raw = view_scores(maps, config.score, config.top_k).cpu().numpy()
        of_views, of_parts = final_scores(config, raw, visible, calibration)
        for decoded, row, score, drawn in zip(seen, of_views, of_parts, maps.cpu().numpy(), strict=True):
            if not np.isfinite(score):
                raise CannotFinish(
                    f"{decoded.part.name}: the anomaly score is not finite; the model is broken"
                )
            scores = np.where(decoded.present, row, np.nan).astype(np.float32)
            results[decoded.part.name] = Prediction(
                decoded.part, decoded.present, scores, float(score), drawn, decoded.problems
            )
    for decoded in batch:
        unseen = Prediction(
            decoded.part,
            decoded.present,
            np.full(len(decoded.present), np.nan, np.float32),
            None,
            np.zeros((len(decoded.present), *decoded.images.shape[2:]), np.float32),
            decoded.problems,
        )
        yield results.get(decoded.part.name, unseen)


@dataclass(frozen=True)
class Thresholds:
    """Scores from which on something is called anomalous; None where a run has chosen none."""

    part: float | None = None
    view: float | None = None


def prediction_json(judged: Prediction, view_numbers: Sequence[int], limits: Thresholds) -> dict[str, object]:
    """A part's result, ready for JSON: score, decision, and each view's file, score and decision.

    ``anomalous`` is true from the limit on, and None without a score or a limit.
    """
    score = judged.score
    return {
        "sample": judged.part.name,
        "category": judged.part.category,
        "score": score,
        "threshold": limits.part,
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
        "missing": [n for n, there in zip(view_numbers, judged.present, strict=True) if not there],
        "problems": list(judged.problems),
    }


def _from_on(score: float | None, limit: float | None) -> bool | None:
    return None if score is None or limit is None else score >= limit


def write_pictures(
    folder: Path, judged: Prediction, view_numbers: Sequence[int], scale: tuple[float, float] | None
) -> None:
    """Write a part's ``C<view>.png`` (heat over photograph) and ``C<view>.npy`` (the map, float32 [S,S]).

    Args:
        folder: the part's own, made where it is missing.
        judged: what to draw.
        view_numbers: of its slots.
        scale: (low, high) of the colours; None takes the part's own maps.

    Raises:
        OSError: the folder cannot be written.
    """
    low, high = color_limits(judged.maps[judged.present]) if scale is None else scale
    folder.mkdir(parents=True, exist_ok=True)
    for number, path, there, values in zip(
        view_numbers, judged.part.images, judged.present, judged.maps, strict=True
    ):
        if not there or path is None:
            continue
        np.save(folder / f"C{number}.npy", values)
        Image.fromarray(overlay(path, values, (low, high))).save(folder / f"C{number}.png")


def overlay(
    path: Path,
    values: npt.NDArray[np.float32],
    scale: tuple[float, float],
    longest_side: int = LONGEST_SIDE,
    opacity: float = OPACITY,
) -> Pixels:
    """A view's map float32 [S,S] over its photograph: uint8 [h,w,3], RGB, in the photograph's proportions.

    Args:
        path: of the photograph.
        values: the map.
        scale: (low, high) of the colours.
        longest_side: in pixels; a smaller photograph keeps its size.
        opacity: the colours' share, 0..1.

    Raises:
        DatasetError: the photograph cannot be read.
    """
    photo = load_photograph(path)
    low, high = scale
    shrink = min(1.0, longest_side / max(photo.shape[:2]))
    size = (max(1, round(photo.shape[1] * shrink)), max(1, round(photo.shape[0] * shrink)))
    heat = cv2.resize((values - low) / (high - low), size, interpolation=cv2.INTER_LINEAR)
    beneath = cv2.resize(photo, size, interpolation=cv2.INTER_AREA).astype(np.uint8)
    return heatmap_image(heat.astype(np.float32), beneath, opacity)
