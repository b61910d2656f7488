"""Times one training step and where its time goes, printed as one JSON object.

    GOMP_SPINCOUNT=10000 python benchmarks/train_step.py --json [--batch-size 8] [--size 256] [--rounds 3]
        [--steps 2] [--compile [reduce-overhead]] [--wall]

In every round, in turn, a few steps each of: `student_only` (forward, backward, optimizer on inputs already
corrupted and on the device), `cached` (the whole step from a store on disk), `live` (the whole step with the
teacher running), `plain` (as live, by the same model in float32, contiguous, with a decoder for each view,
AdamW unfused, torch's own convolutions and freed memory given back) and, with `--compile`, `compiled`
(`student_only` under torch.compile in that mode, of which `reduce-overhead` is CUDA graphs). Medians over the
rounds; ratios are of processor time on a CPU (of the clock with `--wall`, which needs a machine with nothing
else to do), of the clock elsewhere. A round opens its source anew, so nothing is read while another variant
is timed, and its first step waits for its batch. Images are noise: times do not depend on what the numbers
are. The variable is what the `idif` command sets for itself.
"""

import argparse
import json
import os
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from copy import deepcopy
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from generated_data import make_data
from lightning_fabric import Fabric
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from cache import FeatureStore
from cache.building.build import build_store
from cache.building.request import BuildRequest
from cli.workflow.sources import make_fabric
from idif.config.loader import resolve
from idif.config.sections import Config
from idif.corruption.textures import load_textures
from idif.data.batch import Batch
from idif.data.features import FeatureSource
from idif.encoders.encode import EncoderSet
from idif.encoders.frozen import load_encoder
from idif.encoders.live import LiveFeatures
from idif.encoders.preparation import normalize
from idif.kernels.malloc import keep_freed_memory
from idif.methods.catalog import METHODS
from idif.methods.idif.decoder import ViewDecoders
from idif.methods.idif.model import IDIF
from idif.runs.run import method_context
from idif.training.loop import step_inputs, train_step
from idif.training.precision import convolution_backend, training_convolutions
from idif.training.state import StepInput, StepModule
from idif.training.task import Task


class SeparateDecoders(nn.Module):
    """The decoders one after another, each with its own weights, as a plain implementation has them."""

    def __init__(self, grouped: ViewDecoders) -> None:
        super().__init__()
        channels, blocks, norm = grouped._sizes
        self.each = nn.ModuleList(
            ViewDecoders(1, channels, grouped.layers, blocks, norm) for _ in range(grouped.views)
        )
        for slot, decoder in enumerate(self.each):
            weights = {
                name: value.chunk(grouped.views)[slot] if value.ndim else value
                for name, value in grouped.state_dict().items()
            }
            decoder.load_state_dict(weights)

    def forward(self, fused: Tensor, sizes: dict[str, tuple[int, int]]) -> dict[str, Tensor]:
        """As `ViewDecoders.forward`."""
        each = [decoder(fused[:, [slot]], sizes) for slot, decoder in enumerate(self.each)]
        return {name: torch.cat([out[name] for out in each], dim=1) for name in each[0]}


class PlainEncoder(nn.Module):
    """The student encoder on all views, in torch's default layout."""

    def __init__(self, trunk: nn.Module) -> None:
        super().__init__()
        self.trunk = trunk

    def forward(self, images: Tensor, view_mask: Tensor) -> Tensor:
        """As `StudentEncoder.forward`."""
        encoded: Tensor = self.trunk(normalize(images.flatten(0, 1)).contiguous())
        return encoded.view(*view_mask.shape, *encoded.shape[1:])


def plain_copy(model: IDIF) -> IDIF:
    """The same function of the same weights, laid out plainly."""
    plain = deepcopy(model)
    plain.encoder = PlainEncoder(plain.encoder.trunks[0])  # type: ignore[assignment]
    plain.decoders = SeparateDecoders(plain.decoders)  # type: ignore[assignment]
    for module in plain.modules():
        if isinstance(module, ViewDecoders):
            module.memory_format = torch.contiguous_format
    return plain.to(memory_format=torch.contiguous_format)


Times = dict[str, list[tuple[float, float]]]


class Clock:
    """CPU and wall time of named pieces of work, the device's part waited for."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.times: Times = defaultdict(list)

    def now(self) -> tuple[float, float]:
        """CPU and wall time, when the device has done all it was given."""
        if self.device.type != "cpu":
            torch.accelerator.synchronize()
        return time.process_time(), time.perf_counter()

    @contextmanager
    def timed(self, name: str, share: int = 1) -> Iterator[None]:
        """Time what is inside, which is ``share`` pieces of ``name``."""
        cpu, wall = self.now()
        yield
        done = self.now()
        self.times[name].append(((done[0] - cpu) / share, (done[1] - wall) / share))

    def medians(self, which: int) -> dict[str, float]:
        """Median seconds of each piece, CPU (0) or wall (1)."""
        return {name: statistics.median(t[which] for t in found) for name, found in self.times.items()}


class StudentInput:
    """A batch that is corrupted already. No dataclass: Fabric would take it apart and convert it."""

    def __init__(self, images: Tensor, features: dict[str, Tensor], view_mask: Tensor) -> None:
        self.images, self.features, self.view_mask = images, features, view_mask


class Student(StepModule):
    """A step of the whole method, or of what follows the corruption."""

    method: IDIF

    def forward(self, step: StepInput | StudentInput) -> dict[str, Tensor]:
        """The losses."""
        if isinstance(step, StudentInput):
            return self.method.losses(step.images, step.features, step.view_mask)
        return super().forward(step)


class Bench:
    """One model set up as training sets it up."""

    def __init__(
        self, config: Config, task: Task, fabric: Fabric, model: IDIF, steps: int, *, fused: bool
    ) -> None:
        self.config, self.task, self.fabric, self.steps = config, task, fabric, steps
        parameters = model.parameters()
        optimizer = torch.optim.AdamW(parameters, lr=1e-3, fused=fused, foreach=False)
        self.method = model
        self.module, self.optimizer = fabric.setup(Student(model), optimizer)

    def whole_steps(self, source: FeatureSource, batch_size: int) -> None:
        """Whole steps, from opening the source to the last update."""
        rows = list(range(self.steps * batch_size))
        settings = self.config.train
        for step, batch in enumerate(source.batches(rows, batch_size)):
            inputs = step_inputs(settings, source.index, [batch], 0, step, self.fabric)
            train_step(settings, self.module, self.optimizer, self.fabric, inputs)

    def student_steps(self, given: StudentInput) -> None:
        """Steps whose input is there already."""
        inputs: list[Any] = [given]
        for _ in range(self.steps):
            train_step(self.config.train, self.module, self.optimizer, self.fabric, inputs)

    def corrupted(self, batch: Batch) -> StudentInput:
        """The student's input of a batch."""
        (given,) = step_inputs(self.config.train, self.task.source.index, [batch], 0, 0, self.fabric)
        assert self.method.perturbation is not None
        perturbed = self.method.perturbation(given.batch, given.draws)
        features = given.batch.features(self.method.layer_names)
        return StudentInput(perturbed.images, features, perturbed.view_mask)

    def computing(self) -> AbstractContextManager[None]:
        """The convolutions that training would take here."""
        return convolution_backend(training_convolutions(self.config.train, self.fabric.device))


def compile_losses(model: IDIF, **how: Any) -> None:
    """Compile what follows the corruption, in place; ``how`` is given to `torch.compile`."""
    # not `model.compile`, which compiles calls of the module alone
    model.losses = torch.compile(model.losses, dynamic=False, **how)  # type: ignore[method-assign]


def profile(bench: Bench, batch_size: int, rounds: int, which: int) -> dict[str, float]:
    """Median seconds of the parts of a whole step from the store, each waited for; CPU (0) or wall (1)."""
    clock, model = Clock(bench.fabric.device), bench.method
    began: dict[str, tuple[float, float]] = {}

    def before(name: str, *_: object) -> None:
        began[name] = clock.now()

    def after(name: str, *_: object) -> None:
        cpu, wall = clock.now()
        clock.times[name].append((cpu - began[name][0], wall - began[name][1]))

    parts = ("encoder", "bottleneck", "voxel", "transform", "conv3d", "decoders")
    handles = []
    for name in parts:
        module = getattr(model, name)
        if module is not None:
            handles.append(module.register_forward_pre_hook(partial(before, name)))
            handles.append(module.register_forward_hook(partial(after, name)))
    for _ in range(rounds):
        with clock.timed("data"):
            batch = next(iter(bench.task.source.batches(range(batch_size), batch_size)))
            batch = batch.to(bench.fabric.device)
        with clock.timed("corruption"):
            inputs = bench.corrupted(batch)
        with clock.timed("forward"), bench.computing():
            losses = bench.module(inputs)
        with clock.timed("backward"):
            bench.fabric.backward(losses["loss"])
        with clock.timed("optimizer"):
            nn.utils.clip_grad_norm_(model.parameters(), bench.config.train.clip_norm)
            bench.optimizer.step()
            bench.optimizer.zero_grad(set_to_none=True)
    for handle in handles:
        handle.remove()
    found = clock.medians(which)
    found["loss_and_rest"] = found.pop("forward") - sum(found.get(name, 0.0) for name in parts)
    return found


def matrix_peak(device: torch.device, dtype: torch.dtype, which: int, side: int | None = None) -> float:
    """FLOP per second of the best square matrix product here, by CPU (0) or wall clock (1)."""
    if side is None:
        side = 1536 if device.type == "cpu" else 8192
    a, b = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
    clock = Clock(device)
    for _ in range(4):
        with clock.timed("product"):
            a @ b
    return 2 * side**3 / min(times[which] for times in clock.times["product"])


def measure(
    config: Config, size: int, rounds: int, steps: int, folder: Path, *, compiled: str | None, wall: bool
) -> dict[str, Any]:
    fabric, batch_size = make_fabric(config), config.train.batch_size
    (folder / "data").mkdir()
    index = make_data(folder / "data", steps * batch_size, size, [])
    encoder = load_encoder("untrained")
    encoders = EncoderSet((encoder,), size)
    build_store(BuildRequest(folder / "data", index, folder / "store", encoders))
    store = FeatureStore.open(folder / "store")
    live = LiveFeatures(folder / "data", index, encoders, fabric.device)
    textures = load_textures("procedural", size, folder).to(fabric.device)
    context = method_context(config, store.spec, index.view_numbers, index.categories)
    context = replace(context, resources={"textures": textures})
    task = Task("object", folder, store, list(range(len(index))), context)

    torch.manual_seed(0)
    model = METHODS["idif"].build(config.method, context)
    assert isinstance(model, IDIF)
    full = resolve({"train": {"precision": "float32", "convolutions": "direct"}}, source="plain")[0]
    plain = Bench(full, task, make_fabric(full), plain_copy(model), steps, fused=False)
    ours = Bench(config, task, fabric, model, steps, fused=True)
    first = next(iter(store.batches(range(batch_size), batch_size))).to(fabric.device)
    inputs = ours.corrupted(first)

    with torch.no_grad():  # the two are one function before either has learned
        losses = []
        for bench in (ours, plain):
            torch.manual_seed(1)
            with bench.computing():
                losses.append(float(bench.module(inputs)["loss"]))
    # the counter takes a grouped convolution's weight gradient for an ungrouped one's: V times the work
    with FlopCounterMode(display=False) as counter:
        plain.fabric.backward(plain.module(inputs)["loss"])
    plain.optimizer.zero_grad(set_to_none=True)

    works: dict[str, Callable[[], None]] = {
        "student_only": lambda: ours.student_steps(inputs),
        "cached": lambda: ours.whole_steps(store, batch_size),
        "live": lambda: ours.whole_steps(live, batch_size),
        "plain": lambda: plain.whole_steps(live, batch_size),
    }
    if compiled:
        # what it compiles are torch's own convolutions
        direct = config.train.model_copy(update={"convolutions": "direct"})
        other = Bench(
            config.model_copy(update={"train": direct}), task, fabric, deepcopy(model), steps, fused=True
        )
        compile_losses(other.method, mode=compiled)
        works["compiled"] = lambda: other.student_steps(inputs)
    clock, first_calls = Clock(fabric.device), Clock(fabric.device)
    for name, work in works.items():
        with first_calls.timed(name):
            work()  # what is set up once is not counted
    for _ in range(rounds):
        with clock.timed("plain", steps):
            works["plain"]()
        with keep_freed_memory():
            works["student_only"]()  # takes the memory
            for name, work in works.items():
                if name != "plain":
                    with clock.timed(name, steps):
                        work()
    which = 0 if fabric.device.type == "cpu" and not wall else 1
    seconds, walls = clock.medians(which), clock.medians(1)
    dtype = torch.bfloat16 if fabric._precision.precision == "bf16-mixed" else torch.float32
    peak, flops = matrix_peak(fabric.device, dtype, which), counter.get_total_flops()
    with keep_freed_memory():
        ours.student_steps(inputs)
        profiled = profile(ours, batch_size, rounds, which)
    return {
        "device": str(fabric.device),
        "device_name": torch.cuda.get_device_name() if fabric.device.type == "cuda" else "cpu",
        "threads": torch.get_num_threads(),
        "precision": fabric._precision.precision,
        "convolutions": training_convolutions(config.train, fabric.device),
        "gomp_spincount": os.environ.get("GOMP_SPINCOUNT"),
        "batch_size": batch_size,
        "views": len(index.view_numbers),
        "image_size": size,
        "rounds": rounds,
        "steps_per_round": steps,
        "clock": ("cpu", "wall")[which],
        **{f"{name}_s": value for name, value in seconds.items()},
        **{f"{name}_wall_s": value for name, value in walls.items()},
        "cached_over_student_only": seconds["cached"] / seconds["student_only"],
        "plain_over_cached": seconds["plain"] / seconds["cached"],
        "live_over_cached": seconds["live"] / seconds["cached"],
        **(
            {
                "student_only_over_compiled": seconds["student_only"] / seconds["compiled"],
                "compiled_first_call_s": first_calls.medians(1)["compiled"],
            }
            if compiled
            else {}
        ),
        "plain_loss_relative_difference": abs(losses[0] - losses[1]) / abs(losses[1]),
        "step_gflop": flops / 1e9,
        "gflop_per_s": flops / 1e9 / seconds["student_only"],
        "matrix_product_gflop_per_s": peak / 1e9,
        "share_of_matrix_product": flops / seconds["student_only"] / peak,
        "profile_s": profiled,
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", action="store_true", help="accepted for uniformity: it always is JSON")
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=2, help="of a variant in a round")
    parser.add_argument(
        "--compile",
        nargs="?",
        const="default",
        choices=("default", "reduce-overhead", "max-autotune"),
        help="time the compiled student's step too",
    )
    parser.add_argument("--wall", action="store_true", help="ratios of the clock on a CPU too")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", dest="overrides")
    options = parser.parse_args()
    overrides = [f"train.batch_size={options.batch_size}", *options.overrides]
    config = resolve({}, overrides, source="benchmark")[0]
    with tempfile.TemporaryDirectory() as folder:
        found = measure(
            config,
            options.size,
            options.rounds,
            options.steps,
            Path(folder),
            compiled=options.compile,
            wall=options.wall,
        )
        print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
