"""Answers of an exported ONNX file, beside those of the run that it was exported from."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from idif.data.images import load_image
from idif.evaluation.calibration import Calibration
from idif.evaluation.scoring import Scorer
from idif.inference.photo_grouping import PredictInput
from idif.inference.predict import Prediction, predict
from idif.runs.run import open_run


def answers(path: Path, images: Any, present: Any) -> list[Any]:
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return list(session.run(None, {"images": images, "view_mask": present}))


def judged_by_the_run(
    told: Path, parts: list[PredictInput], calibration: Calibration | None = None
) -> list[Prediction]:
    opened = open_run(told)
    method = opened.method(parts[0].category, opened.features(), tuple(range(1, len(parts[0].images) + 1)))
    return list(
        predict(
            Scorer(opened.config.eval, method, torch.device("cpu"), calibration), opened.encoders(), parts
        )
    )


def stacked(parts: list[PredictInput], size: int, fill: Callable[[], Any]) -> tuple[Any, Any]:
    """Images uint8 [N,V,3,S,S] with ``fill()`` in the place of missing views, and presence bool [N,V]."""
    images = np.stack(
        [
            np.stack([fill() if path is None else load_image(path, size)[0] for path in p.images])
            for p in parts
        ]
    )
    return images, np.array([[path is not None for path in part.images] for part in parts])


def maps_of(wanted: list[Prediction]) -> npt.NDArray[np.float32]:
    """[N,V,S,S]."""
    return np.stack([w.maps for w in wanted if w.maps is not None])


def scores_of(wanted: list[Prediction]) -> list[float]:
    return [w.score for w in wanted if w.score is not None]


def agree(found: list[Any], wanted: list[Prediction]) -> None:
    maps, of_views, of_samples = found
    np.testing.assert_allclose(maps, maps_of(wanted), rtol=2e-5, atol=1e-5)
    np.testing.assert_allclose(of_views, np.stack([w.view_scores for w in wanted]), rtol=1e-3)
    np.testing.assert_allclose(of_samples, scores_of(wanted), rtol=1e-3)
