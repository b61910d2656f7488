"""Runs for tests of the report: files of the real writers, with made-up maps and scores."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from idif.config.loader import resolve
from idif.data.index import Index, Sample, View
from idif.evaluation.predictions import Predictions
from idif.evaluation.predictions_writer import PredictionsWriter
from idif.evaluation.test_pass import metrics_of, scoring_protocol
from idif.files import write_json
from idif.missing_views.camera_value import EMPTY_SET_AUROC, camera_subsets
from idif.missing_views.sweep import mean_sweep, summarise_subsets
from idif.report.gallery import Images
from idif.training.run_log import RunLog

SIZE = 64
VIEWS = (1, 2, 3, 4, 5)


def make_run(
    folder: Path,
    categories: Sequence[str] = ("gear", "bolt", "cap"),
    *,
    samples: int = 24,
    size: int = SIZE,
    one_class: Sequence[str] = ("cap",),
    index: Index | None = None,
    maps: bool = True,
    sweep: bool = True,
    settings: dict[str, Any] | None = None,
    caveats: Sequence[str] = (),
    seed: int = 0,
) -> Path:
    """A run folder as train, eval and sweep leave it, about `make_index`'s samples or those of ``index``."""
    if index is None:
        index = make_index(categories, samples, one_class)
    categories = index.categories
    rng = np.random.default_rng(seed)
    given = {"run": {"dir": str(folder.parent), "name": folder.name}, "train": {"epochs": 12}}
    (config,) = resolve({**given, **(settings or {})}, source="test")
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(config.to_yaml(), encoding="utf-8")
    write_json(
        folder / "environment.json",
        {"python": "3.11", "features": {"weights": "untrained"}, "caveats": list(caveats), "cpu_count": 2},
    )
    path = folder / "predictions.h5"
    with PredictionsWriter(
        path,
        index.view_numbers,
        size,
        maps,
        scoring_protocol(config, {"map": "made up"}),
        source_paths=any(v is not None and v.source for s in index.samples for v in s.views),
    ) as writer:
        for sample in index.samples:
            heat, masks = _maps(sample, size, rng)
            scores = heat.max(axis=(1, 2))
            whole = max(s for s, here in zip(scores, sample.present, strict=True) if here)
            writer.append([sample], scores[None], np.array([whole]), heat[None], masks[None])
    metrics = metrics_of(Predictions.open(path), config.eval)
    metrics["protocol"]["split"] = "test"
    write_json(folder / "metrics.json", metrics)
    for category in categories:
        _write_log(folder / category, rng)
    if sweep:
        swept = {name: _sweep(metrics["categories"][name]["s_auroc"]) for name in categories}
        write_json(folder / "sweep.json", mean_sweep(swept, VIEWS))
    return folder


def make_run_without_views(folder: Path, category: str, anomalous: npt.NDArray[np.bool_]) -> Path:
    """A run folder whose samples have no views: only sample scores, higher for the anomalous ones."""
    (config,) = resolve({"run": {"dir": str(folder.parent), "name": folder.name}}, source="test")
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(config.to_yaml(), encoding="utf-8")
    number = len(anomalous)
    scores = np.linspace(0.1, 0.5, number, dtype=np.float32) + 0.2 * anomalous.astype(np.float32)
    classes = ["crack" if bad else "OK" for bad in anomalous]
    samples = [
        Sample(f"{category}/{row:04d}", category, "test", (), sample_class=classes[row])
        for row in range(number)
    ]
    path = folder / "predictions.h5"
    protocol = {"sample_score": "given by the method", "epoch": "last"}
    with PredictionsWriter(path, (), None, protocol=protocol, sample_classes=True) as writer:
        writer.append(samples, np.empty((number, 0), np.float32), scores, None, None)
    write_json(folder / "metrics.json", metrics_of(Predictions.open(path), config.eval))
    return folder


def make_index(categories: Sequence[str], samples: int, one_class: Sequence[str]) -> Index:
    """Test samples, every odd one anomalous but in ``one_class``; every fifth lacks view 4 of five."""
    made = [make_sample(c, n, bool(n % 2) and c not in one_class) for c in categories for n in range(samples)]
    return Index(VIEWS, tuple(made))


def make_sample(category: str, number: int, bad: bool) -> Sample:
    """A sample whose first view is normal; numbers divisible by three are dents, others scratches."""
    defect = ("dent" if number % 3 == 0 else "scratch") if bad else "OK"
    views: list[View | None] = []
    for view in VIEWS:
        if number % 5 == 4 and view == 4:
            views.append(None)
            continue
        seen = bad and view != 1
        stem = f"{category}/{defect}/S{number:04d}/C{view}"
        views.append(View(view, f"{stem}.jpg", f"{stem}.png" if seen else None, defect if seen else "OK"))
    return Sample(f"{category}/{defect}/S{number:04d}", category, "test", tuple(views))


def images_of(size: int = SIZE) -> Any:
    """An image loader that paints a disc on a gradient for every sample asked for."""

    def load(run: Path, category: str, split: str, sample_ids: Sequence[str]) -> dict[str, Images]:
        assert split == "test"
        return {name: _photos(name, size) for name in sample_ids}

    return load


def _photos(name: str, size: int) -> Images:
    rng = np.random.default_rng(sum(name.encode()))
    y, x = np.mgrid[:size, :size] / size
    photos = np.zeros((len(VIEWS), 3, size, size))
    for slot in range(len(VIEWS)):
        photos[slot] = np.stack([200 - 60 * y, 196 - 60 * y, 190 - 50 * x])
        cx, cy = rng.uniform(0.45, 0.55, 2)
        disc = (x - cx) ** 2 + (y - cy) ** 2 < 0.1
        photos[slot][:, disc] = rng.uniform(60, 190, 3)[:, None]
    return (photos + rng.normal(0, 5, photos.shape)).clip(0, 255).astype(np.uint8)


def _maps(
    sample: Sample, size: int, rng: np.random.Generator
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_]]:
    """Noise with a blob, often brighter where a view is anomalous, and the masks of anomalous blobs."""
    seen = rng.uniform(0.1, 1.0)  # some defects are faint in every view
    y, x = np.mgrid[:size, :size] / size
    heat = rng.uniform(0.02, 0.06, (len(sample.views), size, size)).astype(np.float32)
    masks = np.zeros(heat.shape, np.bool_)
    for slot in range(len(sample.views)):
        cx, cy = rng.uniform(0.3, 0.7, 2)
        distance = np.hypot(x - cx, y - cy)
        strength = seen * rng.uniform(0.0, 0.45) if sample.labels[slot] else rng.uniform(0.0, 0.16)
        heat[slot] += (strength * np.exp(-((distance / 0.12) ** 2))).astype(np.float32)
        if sample.labels[slot]:
            masks[slot] = distance < 0.1
    return heat, masks


def _write_log(folder: Path, rng: np.random.Generator, epochs: int = 12, steps: int = 20) -> None:
    folder.mkdir()
    log = RunLog(folder / "log.jsonl")
    for epoch in range(1, epochs + 1):
        for step in range((epoch - 1) * steps + 1, epoch * steps + 1):
            shapes = {"distill": 1.2 * np.exp(-step / 80) + 0.1, "ib": 5 / (10 + step), "kl": 3 / step**0.5}
            parts = {key: float(value * rng.uniform(0.85, 1.15)) for key, value in shapes.items()}
            whole = {"loss": parts["distill"] + parts["ib"], **parts}
            log.write({"epoch": epoch, "step": step, **whole, "lr": 1e-3})
        summary: dict[str, Any] = {"epoch": epoch, "step": epoch * steps}
        summary |= {"seconds": 4.2, "samples_per_s": 38.0}
        if epoch % 3 == 0:
            summary["eval"] = {"s_auroc": 0.95 - 0.3 / epoch - (0.05 if epoch == 12 else 0)}
        log.write(summary)


def _sweep(s_auroc: float | None) -> dict[str, Any]:
    """A category's sweep in which every missing camera costs, the first most; undefined where that is."""
    subsets = []
    for subset in camera_subsets(VIEWS):
        missing = len(VIEWS) - len(subset) + (1 not in subset)
        worth = None if s_auroc is None else max(EMPTY_SET_AUROC, s_auroc - 0.02 * missing)
        subsets.append(
            {
                "views": list(subset),
                "s_auroc": worth,
                "s_auroc_visible": None if worth is None else min(1.0, worth + 0.01 * missing),
                "p_auroc": worth,
                "samples": 24,
                "unscorable": 0,
            }
        )
    found = summarise_subsets(subsets, VIEWS)
    for values in found["by_missing"].values():
        middle = values["s_auroc"]
        values["s_auroc_ci"] = None if middle is None else [middle - 0.06, min(1.0, middle + 0.04)]
        values["loss_ci"] = None if middle is None else [0.0, 0.01]
    return found
