"""Times the sweep over all view subsets beside each from scratch and beside one evaluation, as JSON.

    python benchmarks/sweep.py --json [--samples 8] [--size 128] [--run RUN --set cache.store=...]

One evaluation is what `idif eval` does: predictions file and all metrics. The bare test pass, with the
sweep's metrics alone and no file, is timed too; from scratch means such a pass for each subset. Everything
runs in one process; evaluation and pass are timed before and after the others. Without ``--run``, images and
features are noise and the student is fresh: times do not depend on what the numbers are. Ratios are of CPU
time on a CPU, of wall-clock time elsewhere.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from cli.workflow.device import evaluation_device
from cli.workflow.sources import Sources
from idif.config.sections import Config
from idif.data.batch import Batch, make_batch
from idif.data.features import IMAGES, MASKS, FeatureSource, FeatureSpec
from idif.data.index import Index, Sample, View
from idif.encoders.encode import EncoderSet
from idif.encoders.frozen import load_encoder
from idif.evaluation.category_metrics import update_pixels
from idif.evaluation.predictions import Predictions
from idif.evaluation.scoring import Scorer, SourceScores
from idif.evaluation.test_pass import CategoryTask, metrics_of, write_predictions
from idif.methods.catalog import METHODS
from idif.methods.protocol import MethodContext
from idif.metrics import PixelMetrics, auroc
from idif.missing_views.camera_value import camera_subsets
from idif.missing_views.sweep import sweep_all
from idif.runs.run import open_run


@dataclass(frozen=True)
class Held:
    """A feature source of batches held in memory."""

    spec: FeatureSpec
    index: Index
    held: tuple[Batch, ...]

    def batches(
        self, order: Sequence[int], batch_size: int, variants: Sequence[int] | None = None
    ) -> Iterator[Batch]:
        """The held batches, whatever their size; ``order`` must be all rows."""
        assert list(order) == list(range(len(self.index)))
        yield from self.held

    def only(self, cameras: Sequence[int]) -> "Held":
        """The same samples with no other cameras, as data that lack them would be read."""
        keep = torch.tensor([number in cameras for number in self.index.view_numbers])

        def hidden(x: torch.Tensor) -> torch.Tensor:
            return x * keep.view(1, -1, *(1,) * (x.ndim - 2)).to(x.dtype)

        samples = tuple(
            replace(s, views=tuple(v if k else None for v, k in zip(s.views, keep.tolist(), strict=True)))
            for s in self.index.samples
        )
        index = Index(self.index.view_numbers, samples)
        batches = tuple(
            make_batch(index, b.rows.tolist(), {name: hidden(x) for name, x in b.arrays.items()})
            for b in self.held
        )
        return Held(self.spec, index, batches)


def noise(samples: int, size: int, views: int, batch_size: int) -> Held:
    """Samples of noise, every other one with a defect in every view."""
    spec = EncoderSet((load_encoder("untrained"),), size).spec("float16")
    generator = torch.Generator().manual_seed(0)
    rows = []
    for number in range(samples):
        bad = bool(number % 2)
        stem = f"{number}.png"
        rows.append(
            Sample(
                f"part/{number}",
                "part",
                "test",
                tuple(View(v + 1, stem, stem if bad else None, "cut" if bad else "OK") for v in range(views)),
            )
        )
    index, held = Index(tuple(range(1, views + 1)), tuple(rows)), []
    for start in range(0, samples, batch_size):
        numbers = torch.arange(start, min(samples, start + batch_size))
        shape = (len(numbers), views)
        labels = (numbers % 2 == 1)[:, None].expand(shape)
        masks = torch.zeros(*shape, size, size, dtype=torch.bool)
        masks[..., size // 4 : size // 2, size // 4 : size // 2] = labels[..., None, None]
        features = {
            name: torch.randn(*shape, *array.shape, generator=generator).half()
            for name, array in spec.features.items()
        }
        images = torch.randint(0, 256, (*shape, 3, size, size), generator=generator, dtype=torch.uint8)
        held.append(make_batch(index, numbers.tolist(), {**features, IMAGES: images, MASKS: masks}))
    return Held(spec, index, tuple(held))


def of_run(
    run_folder: Path, overrides: list[str], samples: int, device: torch.device
) -> tuple[Config, Scorer, Held]:
    """A trained run with its first test samples, read beforehand."""
    run = open_run(run_folder, overrides)
    sources = Sources(run.config, torch.device("cpu"))
    category = sources.categories()[0]
    source: FeatureSource = sources.unplaced([category], "test")
    # from both ends, since normal and anomalous samples lie apart; each subset must have a view of each
    complete = source.index.rows(lambda sample: all(sample.present))
    rows = sorted({*complete[: samples // 2], *complete[-(samples - samples // 2) :]})
    batches = [
        replace(b, rows=torch.arange(start, start + len(b)))
        for start, b in zip(
            range(0, len(rows), run.config.eval.batch_size),
            source.batches(rows, run.config.eval.batch_size),
            strict=True,
        )
    ]
    scorer = run.scorer(category, source, device)
    return run.config, scorer, Held(source.spec, source.index.take(rows), tuple(batches))


def evaluate(config: Config, scorer: Scorer, source: Held) -> None:
    """The part of `idif eval` after its sources are open."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "predictions.h5"
        write_predictions(config, [CategoryTask(source.index.categories[0], scorer, source)], path)
        metrics_of(Predictions.open(path), config.eval)


def test_pass(scorer: Scorer, source: Held) -> dict[str, Any]:
    """One test pass with the sweep's metrics."""
    rows, views = len(source.index), len(source.index.view_numbers)
    scores, present = np.zeros((rows, views), np.float32), np.zeros((rows, views), np.bool_)
    labels, pixels, at = np.zeros((rows, views), np.bool_), PixelMetrics(fpr_limits=()), 0
    has_mask = np.array([s.has_mask for s in source.index.samples])
    for scored in scorer.batches(source, range(rows)):
        b, here = scored.batch, slice(at, at + len(scored.batch))
        scores[here], present[here], labels[here] = scored.views, b.view_mask, b.labels
        assert scored.maps is not None
        update_pixels(
            pixels, scored.maps.half(), b.masks.numpy(), present[here], labels[here], has_mask[here]
        )
        at += len(b)
    _, whole = scorer.final(SourceScores(scores, present, None))
    anomalous: npt.NDArray[np.bool_] = np.any(labels, axis=1)
    return {"s_auroc": auroc(whole, anomalous), "p_auroc": pixels.compute()["p_auroc"]}


Timed = tuple[float, float, Any]
"""(CPU seconds, wall seconds, result)."""


def timed(device: torch.device, work: Callable[[], Any]) -> Timed:
    """Do the work and wait until the device has done its part."""
    if device.type != "cpu":
        torch.accelerator.synchronize()
    cpu, wall = time.process_time(), time.perf_counter()
    found = work()
    if device.type != "cpu":
        torch.accelerator.synchronize()
    return time.process_time() - cpu, time.perf_counter() - wall, found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", action="store_true", help="accepted for uniformity: it always is JSON")
    parser.add_argument("--samples", type=int, default=8)
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--views", type=int, default=5)
    parser.add_argument("--run", type=Path)
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", dest="overrides")
    options = parser.parse_args()
    device = evaluation_device()
    if options.run is not None:
        config, scorer, source = of_run(options.run, options.overrides, options.samples, device)
    else:
        config = Config()
        source = noise(options.samples, options.size, options.views, config.eval.batch_size)
        torch.manual_seed(0)
        context = MethodContext(source.spec, source.index.view_numbers)
        method = METHODS["idif"].build(config.method, context).to(device)
        scorer = Scorer(config.eval, method.eval(), device)
    subsets = camera_subsets(source.index.view_numbers)
    restricted = [source.only(subset) for subset in subsets]
    test_pass(scorer, source)  # warms the allocator up
    evaluations, passes = [], []
    sweep: Timed = (0.0, 0.0, None)
    naive: Timed = (0.0, 0.0, None)
    for middle in (True, False):
        evaluations.append(timed(device, lambda: evaluate(config, scorer, source)))
        passes.append(timed(device, lambda: test_pass(scorer, source)))
        if middle:
            sweep = timed(device, lambda: sweep_all(scorer, source))
            naive = timed(device, lambda: [test_pass(scorer, r) for r in restricted])
    clock = 0 if device.type == "cpu" else 1
    single, bare = (sum(run[clock] for run in runs) / 2 for runs in (evaluations, passes))
    differences = {
        f"largest_{key}_difference": max(
            (
                abs(a[key] - b[key])
                for a, b in zip(sweep[2]["subsets"], naive[2], strict=True)
                if a[key] is not None and b[key] is not None
            ),
            default=None,
        )
        for key in ("s_auroc", "p_auroc")
    }
    found = {
        "device": str(device),
        "threads": torch.get_num_threads(),
        "samples": len(source.index),
        "image_size": source.spec.image_size,
        "views": len(source.index.view_numbers),
        "subsets": len(subsets),
        "clock": ("cpu", "wall")[clock],
        "eval_seconds": single,
        "sweep_seconds": sweep[clock],
        "naive_seconds": naive[clock],
        "pass_seconds": bare,
        "sweep_over_eval": sweep[clock] / single,
        "sweep_over_pass": sweep[clock] / bare,
        "sweep_over_naive": sweep[clock] / naive[clock],
        "sweep_wall_seconds": sweep[1],
        **differences,
    }
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
