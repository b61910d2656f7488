"""Measures training and evaluation on an accelerator, phase by phase, and prints one JSON object.

    benchmarks/gpu.sh [--seconds 450] [--out gpu.json] [--gland STORE.zarr]

Phases: `peak` (the largest matrix product, by type), `loss` (the first losses beside those of the CPU),
`step` (the student's step in float32 and bfloat16, eager, compiled and with CUDA graphs: ms, GFLOP/s, share
of the peak), `store` (whole steps from a store on disk and from one on the device), `epoch` (samples per
second of the training loop), `metrics` (`PixelMetrics` on the device beside the CPU), and with ``--gland``
a training of 1,000 steps of the student and 2,000 of the segmentation head on a store of MVTec 3D's cable
gland, with its figures. Each phase is written to ``--out`` as soon as it is done; one that fails is
recorded with its reason, and the next begins. No phase begins when the time is used up. Images are noise:
times do not depend on them.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
import yaml
from generated_data import make_data
from lightning_fabric import Fabric
from torch import Tensor
from torch._dynamo.utils import counters
from torch.utils.flop_counter import FlopCounterMode
from train_step import Bench, Clock, StudentInput, compile_losses, matrix_peak, plain_copy

from cache import FeatureStore
from cache.building.build import build_store
from cache.building.request import BuildRequest
from cache.reading.placement import Resident
from cli.workflow.sources import make_fabric
from idif.config.loader import resolve
from idif.config.sections import Config
from idif.corruption.textures import load_textures
from idif.encoders.encode import EncoderSet
from idif.encoders.frozen import load_encoder
from idif.methods.catalog import METHODS
from idif.methods.idif.model import IDIF
from idif.metrics import PixelMetrics
from idif.runs.run import method_context
from idif.training.loop import train
from idif.training.run_log import read_log
from idif.training.task import Task

TYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
TOLERANCE = {"float32": 2e-3, "bfloat16": 2e-2}
"""Largest relative difference of a loss from the CPU's in float32; convolutions on GPUs may use TF32."""
STUDENT_STEPS, HEAD_STEPS = 1000, 2000
"""Steps of the training on cable gland."""
LEAST_SECONDS = 60.0
"""Time left below which that training does not begin."""
Found = dict[str, Any]


@dataclass
class Given:
    """The input of all phases."""

    options: argparse.Namespace
    folder: Path
    store: FeatureStore
    task: Task
    config: Config
    fabrics: dict[str, Fabric]
    inputs: StudentInput
    """A corrupted batch, on the device."""

    @property
    def device(self) -> torch.device:
        """The device of all measurements."""
        return self.fabrics["float32"].device

    def bench(self, precision: str, *, compiled: str | None = None) -> Bench:
        """A new student, with the same weights each time.

        Args:
            precision: key of `TYPES`.
            compiled: mode of torch.compile; None: eager.
        """
        torch.manual_seed(0)
        method = METHODS["idif"].build(self.config.method, self.task.context)
        assert isinstance(method, IDIF)
        bench = Bench(
            config_for(self.options, precision),
            self.task,
            self.fabrics[precision],
            method,
            self.options.steps,
            fused=True,
        )
        if compiled is not None:
            mode = {"mode": compiled} if self.options.backend == "inductor" else {}
            compile_losses(method, backend=self.options.backend, **mode)
        return bench


def config_for(options: argparse.Namespace, precision: str) -> Config:
    """The config of a training in ``precision``."""
    train_keys = {"batch_size": options.batch_size, "precision": precision, "epochs": 2, "validate_every": 0}
    config = resolve({"train": train_keys, "corruption": {"textures": "procedural"}}, source="benchmark")[0]
    if options.smallest:
        config = config.model_copy(update={"method": METHODS["idif"].smallest()})
    return config


def prepare(options: argparse.Namespace, folder: Path) -> Given:
    """Build a store of random images."""
    (folder / "data").mkdir()
    index = make_data(folder / "data", options.samples, options.size, [])
    encoders = EncoderSet((load_encoder("untrained"),), options.size)
    build_store(BuildRequest(folder / "data", index, folder / "store", encoders))
    store = FeatureStore.open(folder / "store")
    config = config_for(options, "float32")
    fabrics = {name: make_fabric(config_for(options, name)) for name in TYPES}
    textures = load_textures("procedural", options.size, folder).to(fabrics["float32"].device)
    context = method_context(config, store.spec, index.view_numbers, index.categories)
    context = replace(context, resources={"textures": textures})
    task = Task("object", folder, store, list(range(len(index))), context)
    given = Given(
        options, folder, store, task, config, fabrics, StudentInput(torch.empty(0), {}, torch.empty(0))
    )
    batch = next(iter(store.batches(range(options.batch_size), options.batch_size))).to(given.device)
    given.inputs = given.bench("float32").corrupted(batch)
    return given


def measure_peak(given: Given) -> Found:
    """GFLOP/s of the largest matrix product, by type."""
    return {
        name: matrix_peak(given.device, dtype, 1, given.options.peak_side) / 1e9
        for name, dtype in TYPES.items()
    }


def measure_steps(given: Given, peaks: Found) -> Found:
    """The student's step on inputs that are there: every type, eager, compiled and as CUDA graphs."""
    modes: dict[str, str | None] = {"eager": None, "compiled": "default", "cuda_graphs": "reduce-overhead"}
    if given.options.no_compile:
        modes = {"eager": None}
    flops = _step_flops(given)
    found: Found = {"gflop": flops / 1e9}
    for precision in TYPES:
        for name, mode in modes.items():
            key = f"{precision}_{name}"
            if name == "cuda_graphs" and given.device.type != "cuda":
                found[key] = {"left_out": "CUDA graphs need a CUDA device"}
                continue
            with _recorded(found, key):
                torch.compiler.reset()
                counters.clear()
                bench, clock = given.bench(precision, compiled=mode), Clock(given.device)
                with clock.timed("first"):
                    bench.student_steps(given.inputs)
                for _ in range(given.options.rounds):
                    with clock.timed("step", given.options.steps):
                        bench.student_steps(given.inputs)
                seconds = clock.medians(1)
                found[key] = {
                    "ms_per_step": 1000 * seconds["step"],
                    "gflop_per_s": flops / 1e9 / seconds["step"],
                    "share_of_peak": flops / 1e9 / seconds["step"] / peaks[precision],
                    "first_call_s": seconds["first"],
                    "graph_breaks": sum(counters["graph_break"].values()),
                }
    if given.device.type == "cuda":
        found["peak_memory_bytes"] = torch.cuda.max_memory_allocated()
    return found


def _step_flops(given: Given) -> int:
    bench = given.bench("float32")
    # a decoder for each view: the counter takes a grouped convolution's gradient for an ungrouped one's
    plain = plain_copy(bench.method)
    separate = Bench(bench.config, given.task, given.fabrics["float32"], plain, 1, fused=False)
    with FlopCounterMode(display=False) as counter:
        separate.fabric.backward(separate.module(given.inputs)["loss"])
    return int(counter.get_total_flops())


def compare_losses(given: Given) -> Found:
    """Losses of the first steps on the device beside those of the CPU in float32, on the same inputs."""
    rows = slice(0, min(2, given.options.batch_size))
    few = StudentInput(
        given.inputs.images[rows],
        {name: x[rows].float() for name, x in given.inputs.features.items()},
        given.inputs.view_mask[rows],
    )
    cpu = Fabric(accelerator="cpu", devices=1, precision="32-true")
    wanted = _losses(given, "float32", cpu, few)
    found: Found = {"cpu": wanted}
    for precision in TYPES:
        values = _losses(given, precision, given.fabrics[precision], few)
        difference = max(abs(a - b) / abs(b) for a, b in zip(values, wanted, strict=True))
        found[precision] = {
            "losses": values,
            "largest_relative_difference": difference,
            "tolerance": TOLERANCE[precision],
            "equal": difference <= TOLERANCE[precision],
        }
    return found


def _losses(given: Given, precision: str, fabric: Fabric, inputs: StudentInput) -> list[float]:
    """The losses of two steps, with noise drawn on the CPU, since devices draw different numbers."""
    bench = given.bench(precision)
    method = deepcopy(bench.method).to(fabric.device)
    here = StudentInput(
        inputs.images.to(fabric.device),
        {name: x.to(fabric.device) for name, x in inputs.features.items()},
        inputs.view_mask.to(fabric.device),
    )
    own = Bench(bench.config, given.task, fabric, method, 1, fused=False)
    generator = torch.Generator().manual_seed(0)

    def noise_like(x: Tensor) -> Tensor:
        return torch.randn(x.shape, generator=generator).to(x)

    found = []
    with patch.object(torch, "randn_like", noise_like):
        for _ in range(2):
            losses = own.module(here)
            fabric.backward(losses["loss"])
            own.optimizer.step()
            own.optimizer.zero_grad(set_to_none=True)
            found.append(float(losses["loss"]))
    return found


def measure_store(given: Given) -> Found:
    """Whole steps from the disk and from the device, reading and corruption included."""
    best = "bfloat16" if given.device.type != "cpu" else "float32"
    bench, clock = given.bench(best), Clock(given.device)
    resident = Resident(given.store, given.device)
    for source, name in ((given.store, "disk"), (resident, "device")):
        bench.whole_steps(source, given.options.batch_size)
        for _ in range(given.options.rounds):
            with clock.timed(name, given.options.steps):
                bench.whole_steps(source, given.options.batch_size)
    return {f"{name}_ms_per_step": 1000 * seconds for name, seconds in clock.medians(1).items()}


def measure_epoch(given: Given) -> Found:
    """Samples per second of the second epoch of the training loop, from a store on the device."""
    best = "bfloat16" if given.device.type != "cpu" else "float32"
    folder = given.folder / "epoch"
    folder.mkdir()
    task = replace(given.task, folder=folder, source=Resident(given.store, given.device))
    train(config_for(given.options, best), task, given.fabrics[best])
    line = read_log(folder / "timing.jsonl")[-1]
    return {"samples_per_s": line["samples_per_s"], "seconds": line["seconds"], "steps": line["step"] // 2}


def measure_metrics(given: Given) -> Found:
    """`PixelMetrics` of float16 maps on the device and on the CPU: pixels per second, and equal values."""
    generator = torch.Generator().manual_seed(0)
    size, count = given.options.size, given.options.maps
    maps = torch.rand(count, size, size, generator=generator).to(torch.float16)
    masks = torch.zeros(count, size, size, dtype=torch.bool)
    masks[::2, size // 4 : size // 2, size // 4 : size // 2] = True
    found: Found = {}
    values = {}
    for name, device in (("device", given.device), ("cpu", torch.device("cpu"))):
        here = maps.to(device), masks.to(device)
        PixelMetrics().update(here[0][:1], here[1][:1])
        clock, metrics = Clock(device), PixelMetrics()
        with clock.timed("count"):
            metrics.update(*here)
        values[name] = metrics.compute()
        found[f"{name}_pixels_per_s"] = maps.numel() / clock.medians(1)["count"]
    return found | {"equal": values["device"] == values["cpu"]}


def train_gland(given: Given, seconds: float) -> Found:
    """Train student and head on a store of cable gland by the commands of a user, and evaluate."""
    options = given.options
    folder = given.folder / "gland"
    folder.mkdir()
    config = {
        "cache": {"store": str(options.gland.resolve())},
        "corruption": {"textures": str(options.textures)},
        "method": {"head": "segmentation", "head_steps": options.head_steps},
        "train": {
            "steps": options.student_steps,
            "sub_epochs": 20,
            "holdout": 0.1,
            "batch_size": options.batch_size,
        },
        "eval": {"score": "topk", "top_k": options.top_k, "sample_score": "mean"},
        "run": {"name": "gland", "dir": str(folder), "tracking": "none"},
    }
    if options.smallest:
        config["method"] = METHODS["idif"].smallest().model_dump(mode="json") | config["method"]
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(config), encoding="utf-8")
    began = time.perf_counter()
    found: Found = {}
    lines = {
        "train": ["train", f"--config={path}", "--json"],
        "eval": ["eval", str(folder / "gland"), "--json"],
    }
    for name, line in lines.items():
        left = seconds - (time.perf_counter() - began)
        start = time.perf_counter()
        command = [sys.executable, "-m", "idif", *line]
        limit = max(1.0, left)
        done = subprocess.run(command, capture_output=True, text=True, timeout=limit, check=False)
        found[f"{name}_s"] = time.perf_counter() - start
        if done.returncode:
            raise RuntimeError(f"idif {name}: exit code {done.returncode}: {done.stderr.strip()[-500:]}")
        found[name] = json.loads(done.stdout)
    measured = found.pop("eval")
    figures = ("s_auroc", "i_auroc", "p_auroc", "aupro")
    by_category = {name: values.get("feature_distance") for name, values in measured["categories"].items()}
    return {
        **found,
        "steps": [options.student_steps, options.head_steps],
        **{name: measured["mean"][name] for name in figures},
        "feature_distance": by_category,
    }


@contextmanager
def _recorded(found: Found, name: str) -> Iterator[None]:
    """Record a failure under ``name`` instead of raising it."""
    try:
        yield
    except Exception as error:
        found[name] = {"failed": f"{type(error).__name__}: {str(error).strip()[:500]}"}


def measure(options: argparse.Namespace, folder: Path) -> Found:
    """All phases, as far as the time allows."""
    began = time.perf_counter()
    given = prepare(options, folder)
    device = given.device
    found: Found = {
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "cores": os.cpu_count(),
        "image_size": options.size,
        "batch_size": options.batch_size,
        "views": len(given.store.index.view_numbers),
        "prepared_s": time.perf_counter() - began,
    }
    phases: dict[str, Callable[[], Found]] = {
        "peak": lambda: measure_peak(given),
        "loss": lambda: compare_losses(given),
        "step": lambda: measure_steps(given, found["peak"]),
        "store": lambda: measure_store(given),
        "epoch": lambda: measure_epoch(given),
        "metrics": lambda: measure_metrics(given),
    }
    if options.gland is not None:
        phases["gland"] = lambda: train_gland(given, options.seconds - (time.perf_counter() - began))
    for name, phase in phases.items():
        left = options.seconds - (time.perf_counter() - began)
        if left < (LEAST_SECONDS if name == "gland" else 0):
            found[name] = {"left_out": f"{left:.0f} s of {options.seconds:.0f} were left"}
        else:
            start = time.perf_counter()
            with _recorded(found, name):
                found[name] = phase()
            found[name]["phase_s"] = time.perf_counter() - start
        if options.out is not None:
            options.out.write_text(json.dumps(found, indent=1), encoding="utf-8")
    return found | {"seconds": time.perf_counter() - began}


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=450, help="after which no phase begins")
    parser.add_argument("--out", type=Path, help="file that is written after every phase")
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--samples", type=int, default=64, help="of the store")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=4, help="in a round")
    parser.add_argument("--maps", type=int, default=1000, help="for PixelMetrics")
    parser.add_argument("--peak-side", type=int, help="of the matrix product that is the peak")
    parser.add_argument("--no-compile", action="store_true", help="eager steps only")
    parser.add_argument("--backend", default="inductor", help="of torch.compile")
    parser.add_argument("--smallest", action="store_true", help="the smallest student, for tests")
    parser.add_argument("--gland", type=Path, metavar="STORE", help="store of cable gland to train on")
    parser.add_argument("--student-steps", type=int, default=STUDENT_STEPS)
    parser.add_argument("--head-steps", type=int, default=HEAD_STEPS)
    parser.add_argument("--top-k", type=int, default=655, help="pixels of a view score, 1 % at 256 px")
    parser.add_argument("--textures", default="procedural", help="folder of textures for that training")
    options = parser.parse_args()
    if options.samples < options.steps * options.batch_size:
        parser.error("--samples: expected at least steps x batch size")
    with tempfile.TemporaryDirectory() as folder:
        found = measure(options, Path(folder))
    if options.out is not None:
        options.out.write_text(json.dumps(found, indent=1), encoding="utf-8")
    print(json.dumps(found, indent=1))
    failed = any("failed" in part for part in found.values() if isinstance(part, dict))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
