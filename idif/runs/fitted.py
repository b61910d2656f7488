"""Results of a run's evaluation that predictions use: thresholds, calibration, color limits."""

import json

from idif.errors import RunError
from idif.evaluation.calibration import Calibration
from idif.evaluation.map_scale import category_scale
from idif.evaluation.predictions import Predictions
from idif.inference.predict import Thresholds
from idif.progress import Notify, unheard
from idif.runs.run import Run


def load_thresholds(
    run: Run, category: str, notify: Notify = unheard
) -> tuple[Thresholds, Calibration | None]:
    """The category's decision thresholds and calibration, as recorded by `idif eval`."""
    path = run.results / "metrics.json"
    calibrated = run.config.eval.calibrate != "none"
    if not path.exists():
        if calibrated:
            raise RunError(
                f"{path}: missing, and this run calibrates its scores; evaluate it with `idif eval`"
            )
        notify("note: the run is not evaluated, so there is no threshold and no decision")
        return Thresholds(), None
    metrics = json.loads(path.read_text(encoding="utf-8"))
    fitted = metrics.get("protocol", {}).get("calibrations", {}).get(category)
    chosen = metrics.get("categories", {}).get(category, {}).get("thresholds", {})
    part, view = ((chosen.get(kind) or {}).get("value") for kind in ("sample", "view"))
    return Thresholds(part, view), None if fitted is None else Calibration(**fitted)


def load_color_limits(run: Run, category: str, notify: Notify = unheard) -> tuple[float, float] | None:
    """(low, high) of the color scale, from the run's test maps; None if there are none."""
    path = run.results / "predictions.h5"
    if path.exists():
        predictions = Predictions.open(path)
        if predictions.has_maps and category in predictions.category:
            return category_scale(predictions, category)
    notify("note: the run has no test maps, so each part's colors have a scale of their own")
    return None
