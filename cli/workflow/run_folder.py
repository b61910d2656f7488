"""A run's folder: written when training starts, opened by every command after it."""

from collections.abc import Sequence

from lightning_fabric import Fabric
from safetensors.torch import save_file

from cli.terminal.console import note
from cli.workflow.sources import Sources
from idif.config.sections import Config
from idif.corruption.textures import TextureBank
from idif.data.features import FeatureSource, FeatureSpec
from idif.data.index import Sample
from idif.datasets.contamination import contamination
from idif.files import write_json
from idif.runs.provenance import environment
from idif.training.precision import numerics


def write_run_folder(
    config: Config,
    sources: Sources,
    source: FeatureSource,
    textures: TextureBank,
    told: list[str],
    fabric: Fabric,
) -> None:
    """``config.yaml``, ``environment.json`` with the caveats ``told``, and the run's own teacher."""
    folder, spec, view_numbers = config.folder, source.spec, source.index.view_numbers
    folder.mkdir(parents=True, exist_ok=True)
    encoder = sources.encoder()
    beside = folder / "teacher.safetensors.part"
    weights = {
        name: tensor.detach().cpu().contiguous() for name, tensor in encoder.module.state_dict().items()
    }
    save_file(weights, beside)
    beside.replace(folder / "teacher.safetensors")
    facts = environment(
        fabric.device,
        **numerics(config.train, fabric.device),
        world_size=fabric.world_size,
        features=spec.to_json(),
        store_fingerprint=sources.fingerprint(),
        textures={"origin": textures.origin, "fingerprint": textures.fingerprint},
        caveats=told + ([config.run.note] if config.run.note else []),
    )
    write_json(folder / "environment.json", facts)
    beside = folder / "config.yaml.part"
    # categories and cameras by name: a store may grow, a run does not
    data = config.data.model_copy(update={"categories": tuple(sources.categories()), "views": view_numbers})
    beside.write_text(config.model_copy(update={"data": data}).to_yaml(), encoding="utf-8")
    beside.replace(folder / "config.yaml")


def caveats(config: Config, spec: FeatureSpec, textures: str, samples: Sequence[Sample]) -> list[str]:
    """What a reader of the results must know: stand-ins asked for by name, borrowed weights, dirty data.

    Args:
        samples: all that the run trains on.
    """
    found = []
    if (dirty := contamination(samples)) is not None:
        found.append(f"{dirty}; they are trained on like the others")
    if config.train.init is not None:
        found.append(f"training starts from the weights of the run {config.train.init.name}")
    if spec.weights == "untrained":
        found.append("the teacher is an untrained, seeded random network, not ImageNet's")
    if textures.startswith("procedural"):
        found.append("the corruption textures are generated, not DTD's")
    return found


def print_caveats(lines: Sequence[str]) -> None:
    """Say each caveat on a line of its own."""
    for line in lines:
        note(f"note: {line}")
