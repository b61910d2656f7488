"""`idif import-weights`: makes a run of a checkpoint in the format of a method's authors."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import torch
import typer

from cli.options import SetOption
from cli.terminal.console import JsonOption, note, print_result, progress_bar
from cli.workflow.encoders import LIVE_ENCODER
from cli.workflow.sources import Sources
from idif.config.loader import load_configs
from idif.config.sections import Config
from idif.encoders.encode import EncoderSet
from idif.encoders.frozen import load_encoder
from idif.errors import ConfigError
from idif.files import make_folder, require_writable
from idif.runs.import_weights import IMPORT_STEPS, import_run, read_imported
from idif.runs.start import TrainingData
from idif.training.checkpoint import save_weights


def import_weights(
    method: Annotated[str, typer.Argument(help="Name of the method, e.g. uniad.")],
    file: Annotated[Path, typer.Argument(help="Checkpoint that the authors' code wrote.")],
    config: Annotated[Path, typer.Option("--config", help="YAML file of the run; its data must be there.")],
    encoder_out: Annotated[
        Path | None,
        typer.Option(
            help="Only write the checkpoint's frozen encoder to this .safetensors file, for teacher.weights."
        ),
    ] = None,
    overrides: SetOption = [],  # noqa: B006
    as_json: JsonOption = False,
) -> None:
    """Make a finished run of a checkpoint that the method's authors published or that their code wrote.

    Only tensors are read, never pickled objects. A checkpoint that contains its frozen encoder is refused if
    the config's features come from another one.

    Examples:

        idif import-weights uniad ckpt.pth.tar --config configs/uniad-mvtec.yaml

        idif import-weights uniad ckpt.pth.tar --config configs/uniad-mvtec.yaml --encoder-out b4.safetensors

        idif import-weights msflow best_det.pt --config configs/msflow-visa.yaml --set data.categories=[pcb1]
    """
    configs = load_configs(config, overrides)
    if len(configs) != 1:
        raise ConfigError(f"{config}: expected one run, got {len(configs)}")
    (chosen,) = configs
    if chosen.method.name != method:
        raise ConfigError(f"{config}: method.name: expected {method}, got {chosen.method.name}")
    if encoder_out is not None:
        require_writable(encoder_out.parent)
        with progress_bar("reading", "files") as listen:
            listen(0, 1, f"reading {file.name}")
            encoder = read_imported(chosen, _without_samples(chosen), file).encoder
            _write_encoder(encoder_out, file, encoder)
        print_result({"encoder": str(encoder_out)}, as_json=as_json, otherwise=f"encoder: {encoder_out}")
        return
    sources = Sources(chosen, torch.device("cpu"))
    first = sources.unplaced(sources.categories(), "test")
    # the samples that it was trained on are not known
    with progress_bar("importing", "steps") as listen:
        listen(0, IMPORT_STEPS, "loading the encoders")
        import_run(chosen, sources.training_data(first, identities={}), file, progress=listen)
    print_result({"run": str(chosen.folder)}, as_json=as_json, otherwise=f"run: {chosen.folder}")
    note(f"next: idif eval {chosen.folder}")


def _without_samples(config: Config) -> TrainingData:
    """Features of the config's encoder, untrained, for reading a file before there is a store."""
    wanted = config.teacher
    encoder = load_encoder("untrained", wanted.encoder or LIVE_ENCODER, wanted.options())
    encoders = EncoderSet((encoder,), wanted.image_size or encoder.family.image_size)
    return TrainingData(encoders.spec("float16"), (), (), encoders, None, {})


def _write_encoder(path: Path, file: Path, weights: Mapping[str, torch.Tensor] | None) -> None:
    if weights is None:
        raise ConfigError(f"--encoder-out: {file} contains no encoder")
    if path.suffix != ".safetensors":
        raise ConfigError(f"--encoder-out: expected a .safetensors file, got {path}")
    make_folder(path.parent)
    save_weights(path, weights)
