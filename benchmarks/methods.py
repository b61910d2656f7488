"""Times a method's training step from a store and with its live encoder, and its scoring, as one JSON object.

    python benchmarks/methods.py CONFIG [--set KEY=VALUE] [--steps 3] [--rounds 3] [--json]

CONFIG names a store, which is built, the dataset it was built from (``data.root``) and a method that
trains. In every round, in turn: ``cached`` (steps from the store, loading included), ``live`` (steps with
the encoders running on the files), ``plain`` (live, in float32 without mixed precision or Winograd
filtering; left out where that changes nothing) and the scoring of one batch from the store. Medians over
the rounds, in seconds of the clock, so nothing else may run beside it; a round's first step waits for its
batch and is not timed. ``seconds_per_epoch`` is a step times the steps of an epoch. Memory is by count:
weights, gradients and moments, and what the forward pass keeps. The live encoder sees the plain images, of
which a store may hold variants too. ``encoder_weights`` tells seeded random weights (``untrained``), which
take as long.

Weld runs, whose videos and sounds ``live`` decodes too:

    python benchmarks/methods.py configs/causal-film-demo.yaml --steps 1 --rounds 1

DeCo-Diff with both of its encoders, from a dataset in the layout of Real-IAD below data/screw:

    for encoder in taef2 sd_vae; do
      options="--set teacher.encoder=$encoder --set teacher.weights=untrained"
      options="$options --set cache.store=stores/bench-$encoder.zarr"
      idif cache build realiad --config configs/deco-diff-laptop.yaml $options
      python benchmarks/methods.py configs/deco-diff-laptop.yaml $options --json
    done
"""

import argparse
import json
import statistics
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path

import torch
from lightning_fabric import Fabric

from cli.workflow.sources import Sources, make_fabric
from idif.config.loader import load_config
from idif.config.sections import Config
from idif.data.features import FeatureSource
from idif.evaluation.scoring import Scorer
from idif.methods.catalog import METHODS
from idif.methods.protocol import LearnsStatistics, TrainedMethod
from idif.runs.run import method_context
from idif.training.estimate import estimate
from idif.training.loop import step_inputs, train_step
from idif.training.optimizers import make_optimizer
from idif.training.precision import numerics
from idif.training.sampling import training_rows
from idif.training.schedule import StepCount
from idif.training.state import StepModule
from idif.training.task import Task


def clock(fabric: Fabric) -> float:
    if fabric.device.type == "cuda":
        torch.cuda.synchronize(fabric.device)
    return time.perf_counter()


def time_steps(
    config: Config, method: TrainedMethod, source: FeatureSource, fabric: Fabric, steps: int
) -> float:
    """Seconds of a step, the mean of ``steps`` after a first one."""
    optimizer = make_optimizer(config.train, method.parameters())
    module, wrapped = fabric.setup(StepModule(method.train()), optimizer)
    size = config.train.batch_size
    rows = [row % len(source.index) for row in range((steps + 1) * size)]
    began = 0.0
    for step, batch in enumerate(source.batches(rows, size)):
        inputs = step_inputs(config.train, source.index, [batch], 0, step, fabric)
        train_step(config.train, module, wrapped, fabric, inputs)
        if step == 0:
            began = clock(fabric)
    return (clock(fabric) - began) / steps


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("config", type=Path)
    parser.add_argument("--set", action="append", default=[], dest="overrides")
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(arguments)
    config = load_config(options.config, options.overrides)
    fabric = make_fabric(config)
    cached = Sources(config, fabric.device)
    category = cached.categories()[0]
    splits = config.method.learns_from
    stored = cached.placed([category], *splits)
    live_config = config.model_copy(update={"cache": config.cache.model_copy(update={"source": "live"})})
    live = Sources(live_config, fabric.device).placed([category], *splits)
    plain_config = config.model_copy(
        update={"train": config.train.model_copy(update={"precision": "float32", "convolutions": "direct"})}
    )
    plain_fabric = make_fabric(plain_config)
    context = method_context(config, stored.spec, stored.index.view_numbers, [category])
    size = config.train.batch_size
    seconds: dict[str, list[float]] = defaultdict(list)
    spec = METHODS[config.method.name]
    if spec.scores_with_encoders(config.method):
        context = replace(context, encoders=cached.encoders().encoders)
    method = spec.build(config.method, context)
    if not isinstance(method, TrainedMethod):
        parser.error(f"{options.config}: {config.method.name} is fitted; expected a method that trains")
    if isinstance(method, LearnsStatistics):
        method.prepare(stored.batches(range(len(stored.index)), size))
    plain_differs = numerics(config.train, fabric.device) != numerics(plain_config.train, fabric.device)
    for _ in range(options.rounds):
        seconds["cached"].append(time_steps(config, method, stored, fabric, options.steps))
        seconds["live"].append(time_steps(config, method, live, fabric, options.steps))
        if plain_differs:
            seconds["plain"].append(time_steps(plain_config, method, live, plain_fabric, options.steps))
        scorer = Scorer(config.eval, method.eval(), fabric.device)
        (batch,) = islice(stored.batches(range(min(size, len(stored.index))), size), 1)
        began = clock(fabric)
        with torch.inference_mode():
            scorer.score(batch)
        seconds["score"].append((clock(fabric) - began) / len(batch))
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    rows, _ = training_rows(config, stored.index)
    counted = estimate(config, Task(category, Path(), stored, rows, context), fabric)
    per_step = {name: value for name, value in medians.items() if name != "score"}
    per_epoch = StepCount.of(config.train, len(rows), fabric.world_size).per_epoch
    answer = {
        "method": config.method.name,
        "encoder": ", ".join(encoder.name for encoder in stored.spec.encoders),
        "encoder_weights": ", ".join(dict.fromkeys(encoder.weights for encoder in stored.spec.encoders)),
        "image_size": stored.spec.image_size,
        "batch_size": size,
        "device": str(fabric.device),
        "precision": fabric._precision.precision,
        "threads": torch.get_num_threads(),
        "seconds_per_step": per_step,
        "steps_per_epoch": per_epoch,
        "seconds_per_epoch": {name: value * per_epoch for name, value in per_step.items()},
        **{
            f"{name}_over_cached": per_step[name] / per_step["cached"]
            for name in per_step
            if name != "cached"
        },
        "samples_per_s_at_test": 1 / medians["score"],
        "scored_with": [encoder.name for encoder in context.encoders],
        "parameters": counted.parameters,
        "state_bytes": counted.state_bytes,
        "activation_bytes": counted.activation_bytes,
    }
    print(json.dumps(answer, indent=None if options.json else 2))


if __name__ == "__main__":
    main()
