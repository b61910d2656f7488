"""Makes a finished run of a checkpoint in the format of a method's authors."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch
from lightning_fabric import Fabric
from torch import Tensor

from idif.config.sections import Config
from idif.encoders.frozen import FrozenEncoder
from idif.errors import ConfigError, WeightsError
from idif.files import replacing_folder
from idif.fingerprint import sha256_of_file
from idif.methods.catalog import METHODS
from idif.methods.protocol import ImportedWeights, Method
from idif.progress import Progress, Tally, silent
from idif.runs.run import method_context
from idif.runs.start import TrainingData, TrainingStart, check_folder, model_groups, write_run_folder
from idif.training.checkpoint import save_checkpoint
from idif.training.checkpoint_files import TrainingProgress
from idif.training.stages import last_length

ENCODER_TOLERANCE = 1e-4
"""Largest difference of the two encoders, as a share of a tensor's largest value."""


IMPORT_STEPS = 3
"""Steps that `import_run` reports."""


def import_run(config: Config, data: TrainingData, file: Path, *, progress: Progress = silent) -> None:
    """Write the run's folder with the weights of ``file`` as those of its last epoch.

    Args:
        config: the run; ``config.folder`` is written.
        data: the features that the method will score.
        file: the authors' checkpoint.
        progress: called with the number of steps done.

    Raises:
        ConfigError: the method imports no weights, or the config names several models.
        RunError: the run exists. PathError: its folder cannot be written, or holds other files.
        WeightsError: the file is no checkpoint of the method, does not fit the config, or comes with a
            backbone that is not the config's encoder.
    """
    fabric = Fabric(accelerator="cpu", devices=1)
    name, members = _only_model(config, data.categories)
    check_folder(config, fabric, resume=False)
    steps = Tally(progress, IMPORT_STEPS)
    steps.add(0, f"reading {file.name}")
    imported = read_imported(config, data, file)
    if imported.encoder is not None:
        _require_same_encoder(imported.encoder, data.encoders.encoders[0], file)
    context = method_context(config, data.features, data.view_numbers, members)
    method = METHODS[config.method.name].build(config.method, context)
    load_imported(method, imported.method, file)
    steps.add(1, f"hashing {file.name}")
    line = f"the weights are those of {file.name}, SHA-256 {sha256_of_file(file)[:12]}, not trained here"
    steps.add(1, "writing the run")
    length = last_length(config)
    done = TrainingProgress(epoch=length.epochs, step=length.steps or 0, finished=True)
    # all at once: a run without its checkpoint would be trained by `--resume` and still be called imported
    partial = config.folder.parent / f".{config.folder.name}.partial"
    with replacing_folder(partial, config.folder):
        write_run_folder(config, data, TrainingStart({}, (line,)), fabric, partial)
        save_checkpoint(partial / name, method.state_dict(), {}, done)
    steps.add(1)


def read_imported(config: Config, data: TrainingData, file: Path) -> ImportedWeights:
    """The weights of an authors' checkpoint.

    Raises:
        ConfigError: the method imports none. WeightsError: the file is no checkpoint of it.
    """
    reader = METHODS[config.method.name].import_weights
    if reader is None:
        able = [name for name, spec in METHODS.items() if spec.import_weights is not None]
        raise ConfigError(
            f"method.name: {config.method.name} imports no weights; methods that do: {', '.join(able)}"
        )
    context = method_context(config, data.features, data.view_numbers, data.categories)
    return reader(config.method, replace(context, encoders=data.encoders.encoders), file)


def load_imported(method: Method, weights: Mapping[str, Tensor], file: Path) -> None:
    """Load a state dict that another project's file contains.

    Raises:
        WeightsError: a tensor is missing, unknown, not finite or of another shape.
    """
    wanted = method.state_dict()
    for key, value in wanted.items():
        if key not in weights:
            raise WeightsError(f"{file}: does not fit the config: it has no tensor for {key!r}")
        if weights[key].shape != value.shape:
            raise WeightsError(
                f"{file}: does not fit the config: {key!r} has shape {list(weights[key].shape)}, expected "
                f"{list(value.shape)}"
            )
        if not torch.isfinite(weights[key]).all():
            raise WeightsError(f"{file}: {key!r} holds values that are not finite")
    unknown = [key for key in weights if key not in wanted]
    if unknown:
        raise WeightsError(f"{file}: does not fit the config: there is no place for {unknown[0]!r}")
    method.load_state_dict(dict(weights))


def _only_model(config: Config, categories: tuple[str, ...]) -> tuple[str, list[str]]:
    groups = model_groups(config, categories)
    if len(groups) != 1:
        raise ConfigError(
            f"train.mode: a file holds one model, the config names {len(groups)}; set train.mode=unified, or "
            "one category in data.categories"
        )
    ((name, members),) = groups.items()
    return name, members


def _require_same_encoder(given: Mapping[str, Tensor], encoder: FrozenEncoder, file: Path) -> None:
    """Raise `WeightsError` unless the encoder has the weights that the checkpoint's model was trained on."""
    for key, own in encoder.module.state_dict().items():
        if key.endswith("num_batches_tracked"):
            continue
        theirs = given.get(key)
        scale = float(own.abs().max()) or 1.0
        if (
            theirs is None
            or theirs.shape != own.shape
            or float((theirs.to(own) - own).abs().max()) > ENCODER_TOLERANCE * scale
        ):
            raise WeightsError(
                f"{file}: its backbone is not the encoder {encoder.name} of the config: {key!r} differs; "
                "write the backbone to a file with --encoder-out, and build the features with it "
                "(teacher.weights)"
            )
