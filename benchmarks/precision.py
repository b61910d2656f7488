"""The cost of bfloat16 in accuracy: S-AUROC of trainings in both precisions, printed as one JSON object.

    python benchmarks/precision.py --json --store STORE --category NAME [--epochs 20] [--seeds 0 1 2]

Each seed is trained twice, in float32 and in bfloat16, from the same store, and scored once, after the last
epoch, in float32. Beside the differences stands the spread of the float32 seeds: a difference within it is
what another seed does too. Without ``--store`` five views of MVTec 3D-AD's cable gland are rendered from
``IDIF_DATA/mvtec3d`` at ``--size`` and cached.

A CPU without bfloat16 multiplies it ten times slower than float32. There the convolutions and matrix products
are computed as hardware would: operands rounded to bfloat16, products and sums in float32, results and
gradients rounded to bfloat16 (``--native`` computes them with torch's own bfloat16).
"""

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, redirect_stdout
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from cli.__main__ import run
from cli.workflow.device import evaluation_device
from cli.workflow.train import train_run
from idif.config.loader import resolve
from idif.training.precision import fabric_precision

PRODUCTS = {
    F.conv2d,
    F.conv3d,
    F.linear,
    F.scaled_dot_product_attention,
    torch.matmul,
    torch.bmm,
    Tensor.matmul,
    Tensor.__matmul__,
}
"""Operations that autocast computes in bfloat16."""


class _Products(TorchFunctionMode):
    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        given = kwargs or {}
        if func not in PRODUCTS or not torch.is_autocast_enabled("cpu"):
            return func(*args, **given)
        with torch.autocast("cpu", enabled=False):
            found = func(*map(_rounded, args), **{name: _rounded(value) for name, value in given.items()})
            return found.to(torch.bfloat16)


def _rounded(value: Any) -> Any:
    """A tensor's values in bfloat16, held in float32; backward the same happens to its gradient."""
    if isinstance(value, Tensor) and value.is_floating_point():
        return value.to(torch.bfloat16).to(torch.float32)
    return value


@contextmanager
def as_bf16_hardware_would() -> Iterator[None]:
    """Inside, the products of bfloat16 autocast on a CPU are computed in float32 and rounded."""
    with _Products():
        yield


def cable_gland(folder: Path, size: int, weights: str) -> Path:
    """A store of MVTec 3D-AD's cable gland below ``folder``, from ``IDIF_DATA``."""
    data = Path(os.environ["IDIF_DATA"]) / "mvtec3d"
    root, store = folder / "data", folder / "store.zarr"
    build = [f"--root={root}", f"--images=realiad_{size}", f"--image-size={size}", f"--store={store}"]
    build.append(f"--teacher-weights={weights}")
    with redirect_stdout(sys.stderr):
        for command in (
            ["data", "import", "mvtec3d", str(data), str(root), "--category=cable_gland", f"--size={size}"],
            ["cache", "build", "realiad", *build],
        ):
            if run(command) != 0:
                raise SystemExit(f"idif {' '.join(command)} failed")
    return store


def measure(raw: dict[str, Any], overrides: list[str], seeds: list[int], *, native: bool) -> dict[str, Any]:
    """Train every seed in both precisions, in turn."""
    emulated = not native and fabric_precision("auto", evaluation_device()) == "32-true"
    scores: dict[str, list[float]] = {"float32": [], "bfloat16": []}
    losses: dict[str, list[float]] = {"float32": [], "bfloat16": []}
    began = time.process_time()
    for seed in seeds:
        for precision, found in scores.items():
            one = [f"train.seed={seed}", f"train.precision={precision}", f"run.name={precision}-{seed}"]
            (config,) = resolve(raw, [*overrides, *one], source="benchmark")
            with as_bf16_hardware_would() if emulated and precision == "bfloat16" else nullcontext():
                (model,) = train_run(config, resume=False)["models"]
            found.append(model["s_auroc"])
            losses[precision].append(model["loss"])
    differences = [b - a for a, b in zip(scores["float32"], scores["bfloat16"], strict=True)]
    spread = max(scores["float32"]) - min(scores["float32"])
    return {
        "bfloat16": "emulated: rounded operands and results, float32 sums" if emulated else "native",
        "steps": model["steps"],
        "samples": model["samples"],
        "batch_size": config.train.batch_size,
        "seeds": seeds,
        "s_auroc": scores,
        "last_loss": losses,
        "difference": differences,
        "mean_difference": statistics.mean(differences),
        "float32_spread_over_seeds": spread,
        "within_0.003": abs(statistics.mean(differences)) <= 0.003,
        "within_seed_spread": max(map(abs, differences)) <= spread,
        "cpu_seconds": time.process_time() - began,
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", action="store_true", help="accepted for uniformity: it always is JSON")
    parser.add_argument("--store", type=Path, help="an existing store; default: cable gland from IDIF_DATA")
    parser.add_argument("--category", default="cable_gland")
    parser.add_argument("--size", type=int, default=64, help="of the images, without --store")
    parser.add_argument("--weights", default="imagenet", help="of the teacher, without --store")
    parser.add_argument("--textures", default="procedural", help="folder of DTD, or procedural")
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--native", action="store_true", help="torch's bfloat16, where it is slow too")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", dest="overrides")
    options = parser.parse_args()
    if options.store is None and "IDIF_DATA" not in os.environ:
        parser.error("name a store with --store, or set IDIF_DATA to render one")
    with tempfile.TemporaryDirectory() as home:
        store = options.store or cable_gland(Path(home), options.size, options.weights)
        raw = {
            "data": {"categories": [options.category]},
            "cache": {"store": str(store)},
            "corruption": {"textures": options.textures},
            "train": {"epochs": options.epochs, "batch_size": options.batch_size}
            | {"eval_every": options.epochs},
            "run": {"dir": home, "tracking": "none"},
        }
        print(json.dumps(measure(raw, options.overrides, options.seeds, native=options.native), indent=1))


if __name__ == "__main__":
    main()
