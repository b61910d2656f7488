"""A run's folder, opened for reading."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from idif.config.loader import load_configs
from idif.config.sections import Config
from idif.data.features import FeatureSpec
from idif.encoders.frozen import FrozenEncoder, load_encoder
from idif.errors import ConfigError, RunError
from idif.methods.catalog import METHODS
from idif.methods.protocol import Method
from idif.training.checkpoint import find_checkpoint, load_into, read_progress


@dataclass(frozen=True)
class Run:
    """A run folder as commands see it: all its models, or one."""

    folder: Path
    """Holds ``config.yaml``."""
    results: Path
    """Where results go: the folder itself, or the one category's that was named."""
    config: Config
    names: tuple[str, ...]
    """Models to use: categories, or ``all`` for a unified run."""

    def models(self, categories: Sequence[str]) -> list[tuple[str, str]]:
        """(category, model's name) for every category to evaluate, of those that the data hold.

        Raises:
            RunError: one of them has no model yet.
        """
        if self.config.train.mode == "unified":
            return [(category, "all") for category in categories]
        if self.results == self.folder:
            for category in categories:
                if category not in self.names:
                    raise RunError(f"{self.folder}: {category} is not trained yet; use `idif train --resume`")
        return [(name, name) for name in self.names]

    def known_categories(self) -> tuple[str, ...]:
        """The categories it was trained on, from its own files alone."""
        return self.config.data.categories if self.config.train.mode == "unified" else self.names

    def view_numbers(self) -> tuple[int, ...]:
        """The cameras it was trained on, from its own files alone.

        Raises:
            ConfigError: an older version made it, and it does not say.
        """
        numbers = self.config.data.views
        if numbers is None:
            raise ConfigError(
                f"{self.folder / 'config.yaml'}: data.views: expected the run's camera numbers, got nothing; "
                "add them, e.g. --set data.views=[1,2,3,4,5]"
            )
        return numbers


def open_run(path: Path, overrides: Sequence[str] = ()) -> Run:
    """Open RUN, or RUN/<category> as a run of one.

    Raises:
        RunError: not a run, or a category is not trained to its last epoch.
    """
    folder, only = path, None
    if not (folder / "config.yaml").is_file() and (folder.parent / "config.yaml").is_file():
        folder, only = path.parent, path.name
    if not (folder / "config.yaml").is_file():
        raise RunError(f"{path}: not a run (it has no config.yaml); expected a folder that `idif train` made")
    (config,) = load_configs(folder / "config.yaml", overrides)
    names = sorted(p.name for p in folder.iterdir() if p.is_dir() and find_checkpoint(p) is not None)
    if only is not None:
        if only not in names:
            raise RunError(f"{path}: has no checkpoint; this run holds {', '.join(names) or 'none'}")
        names = [only]
    if not names and is_fusion(folder):
        raise RunError(
            f"{folder}: is a fusion of runs and has no model of its own; `idif report` and `idif eval "
            "--from-predictions` work on it"
        )
    if not names:
        raise RunError(f"{folder}: has no checkpoint yet; train it with `idif train`")
    for name in names:
        _require_finished(folder / name, config)
    return Run(folder, folder if only is None else folder / only, config, tuple(names))


def open_results(path: Path, overrides: Sequence[str] = ()) -> tuple[Path, Config]:
    """Where RUN's results are, RUN/<category>'s or a fusion's, and its config; no model is needed.

    Raises:
        RunError: not a run.
    """
    return path, load_configs(run_home(path) / "config.yaml", overrides)[0]


def is_fusion(folder: Path) -> bool:
    """Whether `idif fuse` made this folder."""
    path = folder / "environment.json"
    return path.is_file() and "fused" in json.loads(path.read_text(encoding="utf-8"))


def _require_finished(folder: Path, config: Config) -> None:
    """Results are the last epoch's, so a model that is not there yet has none."""
    checkpoint = find_checkpoint(folder)
    assert checkpoint is not None
    done = read_progress(checkpoint)
    if not done.finished:
        raise RunError(
            f"{folder}: trained to epoch {done.epoch} of {config.last_epochs}; results are those of the "
            "last epoch, finish it with `idif train --resume`"
        )


def load_method(run: Run, name: str, spec: FeatureSpec, view_numbers: tuple[int, ...]) -> Method:
    """A trained method of a run, in eval mode on the CPU."""
    checkpoint = find_checkpoint(run.folder / name)
    assert checkpoint is not None
    method = METHODS[run.config.method.name](run.config, spec, view_numbers)
    load_into(method, checkpoint)
    return method.eval()


def run_features(run: Run) -> FeatureSpec:
    """What features the run was trained on, from its ``environment.json``.

    Raises:
        RunError: the file is missing or does not say.
    """
    try:
        return FeatureSpec.from_json(run_facts(run.folder)["features"])
    except (ValueError, KeyError, TypeError) as error:
        path = run.folder / "environment.json"
        raise RunError(f"{path}: expected the run's features, but it cannot be used ({error!r})") from None


def run_facts(folder: Path) -> dict[str, Any]:
    """What ``environment.json`` says of a run.

    Raises:
        RunError: the file is missing or unreadable.
    """
    path = folder / "environment.json"
    try:
        facts: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RunError(f"{path}: expected the run's features, but it cannot be used ({error!r})") from None
    return facts


def run_teacher(run: Run, spec: FeatureSpec) -> FrozenEncoder:
    """The run's own copy of the frozen encoder.

    Raises:
        RunError: it is not the one the run was trained beside.
        WeightsError: it is missing or unreadable.
    """
    path = run.folder / "teacher.safetensors"
    encoder = load_encoder(path, spec.encoder)
    if encoder.sha256 != spec.weights_sha256:
        raise RunError(
            f"{path}: SHA-256 of the weights is {encoder.sha256[:12]}, but the run was trained beside "
            f"{spec.weights_sha256[:12]}"
        )
    return encoder


def starting_checkpoint(config: Config, name: str) -> Path | None:
    """The checkpoint that ``train.init`` names for the model ``name``; None where there is none.

    Raises:
        RunError: it is not a finished run, or it holds no such model.
    """
    if config.train.init is None:
        return None
    run = open_run(config.train.init)
    chosen = name if run.results == run.folder else run.names[0]
    if chosen not in run.names:
        raise RunError(f"train.init: {run.folder} holds no model {name!r}; it holds {', '.join(run.names)}")
    return find_checkpoint(run.folder / chosen)


def run_home(folder: Path) -> Path:
    """The folder of the config: ``folder`` itself, or the one above for RUN/<category>.

    Raises:
        RunError: neither is a run.
    """
    for place in (folder, folder.parent):
        if (place / "config.yaml").is_file():
            return place
    raise RunError(f"{folder}: not a run (it has no config.yaml); expected a folder that `idif train` made")
