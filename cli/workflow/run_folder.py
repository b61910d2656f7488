"""Writes a run's folder when training starts."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lightning_fabric import Fabric
from safetensors.torch import save_file

from cli.terminal.console import note
from cli.workflow.sources import Sources
from idif.config.sections import Config
from idif.data.features import FeatureSource, FeatureSpec
from idif.data.index import Sample
from idif.datasets.contamination import contamination
from idif.files import replace_file, replacing, write_json
from idif.methods.protocol import Resource
from idif.runs.provenance import environment
from idif.runs.run import weights_files
from idif.training.precision import numerics


@dataclass(frozen=True)
class TrainingStart:
    """What a run begins with beside its config and sources."""

    resources: Mapping[str, Any]
    """{name: Resource}, on the CPU."""
    caveats: tuple[str, ...]
    """What a reader of the results must know."""


def write_run_folder(
    config: Config, sources: Sources, source: FeatureSource, start: TrainingStart, fabric: Fabric
) -> None:
    """``config.yaml``, ``environment.json``, and the run's own copies of the encoders' weights."""
    folder, spec, view_numbers = config.folder, source.spec, source.index.view_numbers
    folder.mkdir(parents=True, exist_ok=True)
    for file, encoder in zip(weights_files(spec), sources.encoders().encoders, strict=True):
        state = encoder.module.state_dict()
        weights = {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}
        # unique: a process that joins a run writes the same files
        with replacing(folder / file, unique=True) as partial:
            save_file(weights, partial)
    facts = environment(
        fabric.device,
        **numerics(config.train, fabric.device),
        world_size=fabric.world_size,
        features=spec.to_json(),
        store_fingerprint=sources.fingerprint(),
        **{name: resource_facts(resource) for name, resource in start.resources.items()},
        caveats=[*start.caveats, *([config.run.note] if config.run.note else [])],
    )
    write_json(folder / "environment.json", facts)
    # categories and cameras by name: a store may grow, a run does not
    data = config.data.model_copy(update={"categories": tuple(sources.categories()), "views": view_numbers})
    replace_file(folder / "config.yaml", config.model_copy(update={"data": data}).to_yaml())


def resource_facts(resource: Resource) -> dict[str, str]:
    """What a run records of a resource."""
    return {"origin": resource.origin, "fingerprint": resource.fingerprint}


def caveats(
    config: Config, features: FeatureSpec, resources: Mapping[str, Resource], samples: Sequence[Sample]
) -> list[str]:
    """What a reader of the results must know: stand-ins asked for by name, borrowed weights, dirty data.

    Args:
        samples: all that the run trains on.
    """
    lines = []
    if (dirty := contamination(samples)) is not None:
        lines.append(f"{dirty}; they are trained on like the others")
    if config.train.init is not None:
        lines.append(f"training starts from the weights of the run {config.train.init.name}")
    if features.untrained:
        named = "the teacher is" if len(features.encoders) == 1 else f"{', '.join(features.untrained)}:"
        lines.append(f"{named} an untrained, seeded random network, not ImageNet's")
    return lines + [text for r in resources.values() if (text := r.caveat) is not None]


def print_caveats(lines: Sequence[str]) -> None:
    """Say each caveat on a line of its own."""
    for line in lines:
        note(f"note: {line}")
