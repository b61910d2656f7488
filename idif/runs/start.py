"""Start of a run: creates its folder, records provenance, checks that a resumed run is unchanged."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from idif.config.sections import Config
from idif.data.features import FeatureSource, FeatureSpec
from idif.data.index import Sample
from idif.datasets.contamination import contamination
from idif.encoders.encode import EncoderSet
from idif.errors import RunError, StoreMismatch
from idif.evaluation.scoring import check_top_k
from idif.files import make_folder
from idif.methods.protocol import Resource
from idif.runs.files import CONFIG_FILE, read_config, read_facts, write_facts
from idif.runs.identity import check_encoders, check_identity
from idif.runs.provenance import environment
from idif.runs.run import method_context, source_name
from idif.training.checkpoint import save_weights
from idif.training.labels import LEARNED_FROM, labels_text
from idif.training.precision import numerics
from idif.training.sampling import training_rows
from idif.training.stages import last_length, stage_length, stages_of
from idif.training.task import Task

if TYPE_CHECKING:
    # a type only: importing it takes seconds, and commands that train nothing import this module
    from lightning_fabric import Fabric


@dataclass(frozen=True)
class TrainingStart:
    """Resources and caveats of a run that starts."""

    resources: Mapping[str, Any]
    """{name: Resource}, on the CPU."""
    caveats: tuple[str, ...]
    """Caveats for readers of the results, one sentence each."""
    labels: str | None = None
    """Result of `idif.training.labels.labels_text`."""


@dataclass(frozen=True)
class TrainingData:
    """The data of a run, as recorded in its folder."""

    features: FeatureSpec
    view_numbers: tuple[int, ...]
    categories: tuple[str, ...]
    """The categories, sorted."""
    encoders: EncoderSet
    """The frozen encoders behind the features."""
    fingerprint: str | None
    """Fingerprint of the store; None for live encoders."""
    identities: Mapping[str, Mapping[str, str | None]]
    """Category -> `idif.runs.identity.data_identity` of the samples that the run learns from."""
    cameras: Mapping[str, str] = field(default_factory=dict)
    """`idif.data.index.Index.camera_names`."""


def write_run_folder(
    config: Config, data: TrainingData, start: TrainingStart, fabric: "Fabric", folder: Path | None = None
) -> None:
    """Write ``config.yaml``, ``environment.json``, and the run's own copies of the encoders' weights.

    Args:
        folder: where they are written, if not yet into ``config.folder``.

    Raises:
        StoreMismatch: a run is resumed with features or training samples that are not its own.
        ConfigError: ``eval.top_k`` is more than the pixels of a map.
    """
    folder, spec = folder or config.folder, data.features
    check_top_k(config.eval, spec.image_size)
    before = read_facts(folder) if (folder / CONFIG_FILE).exists() else {}
    if before:
        _check_resumed_data(config, data, before)
    make_folder(folder)
    for file, encoder in zip(spec.weights_files, data.encoders.encoders, strict=True):
        # unique: processes that join a run write the same files
        save_weights(folder / file, encoder.module.state_dict(), unique=True)
    facts = environment(
        fabric.device,
        **numerics(config.train, fabric.device),
        world_size=fabric.world_size,
        features=spec.to_json(),
        store_fingerprint=data.fingerprint,
        data=before.get("data", {}) | data.identities,
        **({"cameras": dict(data.cameras)} if data.cameras else {}),
        stages={stage.name: asdict(stage_length(config, stage)) for stage in stages_of(config)},
        **{name: resource_facts(resource) for name, resource in start.resources.items()},
        **({} if start.labels is None else {LEARNED_FROM: start.labels}),
        caveats=[*start.caveats, *([config.run.note] if config.run.note else [])],
    )
    # record categories and cameras by name: a store may grow, a run does not
    named = config.data.model_copy(update={"categories": data.categories, "views": data.view_numbers})
    write_facts(folder, config.model_copy(update={"data": named}), facts)


def _check_resumed_data(config: Config, data: TrainingData, before: Mapping[str, Any]) -> None:
    """Compare the data with those that an existing run recorded."""
    where = source_name(config)
    trained = FeatureSpec.from_json(before["features"])
    check_encoders(list(trained.arrays), trained, data.features, where)
    if config.method.fitted:  # a fit is extended by new samples, or made again for features of other settings
        return
    if data.features.storage != trained.storage:
        raise StoreMismatch(
            f"{where}: features are stored as {data.features.storage}, but the run was trained on "
            f"{trained.storage}; a run cannot change while it is resumed"
        )
    if not config.cache.variants and data.features.variants != trained.variants:
        now, then = (", ".join(spec.variants) or "no variants" for spec in (data.features, trained))
        raise StoreMismatch(
            f"{where}: training would draw from {now}, but the run was trained on {then}; name the run's "
            "variants in cache.variants"
        )
    if data.features.variants and trained.variants and data.features.shift != trained.shift:
        raise StoreMismatch(
            f"{where}: images are shifted by {data.features.shift} px, but the run was trained on a shift of "
            f"{trained.shift} px; a run cannot change while it is resumed"
        )
    for category, identity in data.identities.items():
        check_identity(before.get("data", {}), identity, category, where)


def resource_facts(resource: Resource) -> dict[str, str]:
    """Provenance of a resource: its origin and fingerprint."""
    return {"origin": resource.origin, "fingerprint": resource.fingerprint}


def caveats(
    config: Config, features: FeatureSpec, resources: Mapping[str, Resource], samples: Sequence[Sample]
) -> list[str]:
    """Caveats for readers of the results: labels learned from, stand-in weights or textures, weights of
    another run, dirty data.

    Args:
        samples: all training samples of the run.
    """
    lines = []
    if (labels := labels_text(config, samples)) is not None:
        lines.append(labels)
    elif (dirty := contamination(samples)) is not None:
        lines.append(f"{dirty}; they are trained on like the others")
    if config.train.init is not None:
        lines.append(f"training starts from the weights of the run {config.train.init.name}")
    if features.untrained:
        kind = "an untrained, seeded random network, not ImageNet's"
        if len(features.encoders) == 1:
            lines.append(f"the teacher is {kind}")
        else:
            lines.append(f"encoders with seeded random weights, untrained: {', '.join(features.untrained)}")
    return lines + [text for r in resources.values() if (text := r.caveat) is not None]


def check_folder(config: Config, fabric: "Fabric", *, resume: bool) -> None:
    """Refuse an existing run, unless it is resumed with the same settings.

    Raises:
        RunError: the run exists and ``resume`` is false, or it has another config or more processes. More
            ``train.epochs`` or ``train.steps`` are allowed where training has one stage.
    """
    if not (config.folder / CONFIG_FILE).exists():
        return
    if not resume:
        raise RunError(
            f"{config.folder}: this run exists; continue it with --resume, or choose another run.name"
        )
    before = read_config(config.folder)
    asked, recorded = config.model_dump(mode="json"), before.model_dump(mode="json")
    unimportant = {"validate_every", "distribute"}
    if not config.train.patience:
        unimportant.add("eval_every")
    # of these sections only what the models depend on: where the data and features lie may change
    only = {"data": ("rig",), "cache": ("variants",)}
    for section in ("method", "train", "corruption", *only):
        for key in only.get(section) or dict.fromkeys([*asked[section], *recorded[section]]):
            # none changes the result; the number of processes per batch does, and is compared below
            if section == "train" and key in unimportant:
                continue
            now, then = asked[section].get(key), recorded[section].get(key)
            length = section == "train" and key in ("epochs", "steps")
            if length and None not in (now, then) and now > then:
                _require_one_stage(config, key)
                continue
            if now != then:
                raise RunError(
                    f"{config.folder}: {section}.{key} is {now!r}, but the run was started with {then!r}; a "
                    "run cannot change while it is resumed"
                )
    shared = read_facts(config.folder).get("world_size")
    if shared != fabric.world_size:
        raise RunError(
            f"{config.folder}: {fabric.world_size} process(es) would share each batch, but it was started "
            f"with {shared}; a run cannot change while it is resumed"
        )


def _require_one_stage(config: Config, key: str) -> None:
    """Refuse more epochs or steps where a later stage builds on the weights of the former number.

    Raises:
        RunError: names the stages.
    """
    names = [stage.name for stage in stages_of(config)]
    if len(names) > 1 or config.method.fitted:
        raise RunError(
            f"{config.folder}: train.{key} can grow only where training has one stage, but it has "
            f"{', '.join(names)}; train another run"
        )


def resumed_otherwise(config: Config, fabric: "Fabric") -> list[str]:
    """Caveats of a run resumed with other arithmetic: the new ones and those recorded before."""
    if not (config.folder / "config.yaml").exists():
        return []
    # versions that did not record it supported no other
    before = {"convolutions": "direct"} | read_facts(config.folder)
    now: dict[str, Any] = {**numerics(config.train, fabric.device)}
    if fabric.device.type == "cpu":
        now["torch_threads"] = torch.get_num_threads()
    changed = [
        f"{what}: {before[what]} before it was resumed, {value} after; not the bits of an uninterrupted run"
        for what, value in now.items()
        if before.get(what, value) != value
    ]
    length, former = last_length(config), last_length(read_config(config.folder))
    asked, begun = (x.epochs if x.steps is None else x.steps for x in (length, former))
    if asked != begun:
        key = "epochs" if length.steps is None else "steps"
        changed.append(
            f"train.{key} grew from {begun} to {asked} when it was resumed; since then the learning rate "
            f"follows the schedule of {length.text()}; not the result of {length.text()} uninterrupted"
        )
    carried: list[str] = before.get("caveats", [])
    return [line for line in carried if line != config.run.note] + changed


def model_groups(config: Config, categories: Sequence[str]) -> dict[str, list[str]]:
    """Name of each model of a run -> the categories that it is for."""
    if config.train.mode == "unified":
        return {"all": list(categories)}
    return {category: [category] for category in categories}


def make_task(
    config: Config,
    name: str,
    source: FeatureSource,
    members: Sequence[str],
    resources: Mapping[str, Any],
    init: Path | None,
) -> Task:
    """Make the `Task` of one model.

    Raises:
        StoreMismatch: the source lacks arrays that the method needs for training.
    """
    rows, _ = training_rows(config, source.index)
    context = method_context(config, source.spec, source.index.view_numbers, members)
    return Task(
        name,
        config.folder / name,
        source,
        rows,
        replace(context, resources=resources),
        init,
        variants=config.cache.variants if source.spec.variants else (),
        balanced=config.method.balances_labels,
    )


def check_variants(config: Config, features: FeatureSpec) -> None:
    """Refuse training features without a variant that the config asks for.

    Raises:
        StoreMismatch: names the first such variant.
    """
    known = features.variants or ("plain",)
    for name in config.cache.variants:
        if name not in known:
            raise StoreMismatch(
                f"cache.variants: {name}, but {source_name(config)} has {', '.join(known)} alone; build a "
                "store with `idif cache build --config`, or set cache.variants to what there is"
            )
