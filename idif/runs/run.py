"""`Run`: a run's folder, opened for reading."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import torch

from idif.config.sections import Config
from idif.data.features import FeatureSource, FeatureSpec, check_arrays
from idif.encoders.encode import EncoderSet
from idif.encoders.frozen import reload_encoder
from idif.errors import ConfigError, RunError
from idif.evaluation.scoring import Scorer, check_top_k
from idif.methods.catalog import METHODS
from idif.methods.protocol import Method, MethodContext
from idif.runs.files import FACTS_FILE, read_config, read_facts
from idif.runs.identity import check_encoders
from idif.runs.listing import is_fusion
from idif.training.checkpoint import load_into, read_progress
from idif.training.checkpoint_files import TrainingProgress, find_checkpoint
from idif.training.stages import is_trained, last_length


@dataclass(frozen=True)
class Run:
    """A run's folder with all its models, or with one of them."""

    folder: Path
    """The folder that contains ``config.yaml``."""
    results: Path
    """Folder of results: the run's, or that of the selected category."""
    config: Config
    names: tuple[str, ...]
    """Names of the models: categories, or ``all`` for a unified run."""
    unfinished: Mapping[str, TrainingProgress] = field(default_factory=dict)
    """Model -> progress, of those that are not trained to the last epoch; empty unless opened as such."""
    partial: bool = False
    """Whether categories without a model are left out rather than refused."""

    def epoch_text(self) -> str | None:
        """The epoch of the weights if training is not finished, e.g. ``5 of 50``; None if it is."""
        if not self.unfinished:
            return None
        length, whole = last_length(self.config), set(self.names) - set(self.unfinished)
        texts = [length.share_text(progress) for progress in self.unfinished.values()]
        if len(set(texts)) == 1 and not whole:
            return texts[0]
        named = [f"{name} {text}" for name, text in zip(self.unfinished, texts, strict=True)]
        return ", ".join(named) + (f"; the other {len(whole)} models: last" if whole else "")

    def models(self, categories: Sequence[str]) -> list[tuple[str, str]]:
        """(category, model name) for every category to evaluate, among those of the data.

        Raises:
            RunError: a category has no model yet.
        """
        if self.config.train.mode == "unified":
            return [(category, "all") for category in categories]
        if self.results == self.folder and not self.partial:
            for category in categories:
                if category not in self.names:
                    raise RunError(f"{self.folder}: {category} is not trained yet; use `idif train --resume`")
        return [(name, name) for name in self.names]

    def known_categories(self) -> tuple[str, ...]:
        """The categories of the training data, read from the run's own files."""
        return self.config.data.categories if self.config.train.mode == "unified" else self.names

    def view_numbers(self) -> tuple[int, ...]:
        """The cameras of the training data, read from the run's own files.

        Raises:
            ConfigError: an older version made the run and did not record them.
        """
        numbers = self.config.data.views
        if numbers is None:
            raise ConfigError(
                f"{self.folder / 'config.yaml'}: data.views: expected the run's camera numbers, got nothing; "
                "add them, e.g. --set data.views=[1,2,3,4,5]"
            )
        return numbers

    def camera_names(self) -> dict[int, str]:
        """Camera number -> its name in the source of the training data; by default ``C`` and the number."""
        named = self.named_cameras()
        return {number: named.get(number, f"C{number}") for number in self.view_numbers()}

    def named_cameras(self) -> dict[int, str]:
        """Camera number -> its name in the source of the training data; without cameras that have none."""
        named = read_facts(self.folder).get("cameras", {}) if (self.folder / FACTS_FILE).exists() else {}
        return {number: named[str(number)] for number in self.view_numbers() if str(number) in named}

    def model_name(self, category: str) -> str:
        """Name of the model that scores a category."""
        return "all" if self.config.train.mode == "unified" else category

    def features(self) -> FeatureSpec:
        """Specification of the training features, from ``environment.json``.

        Raises:
            RunError: the file is missing or does not contain it.
        """
        try:
            return FeatureSpec.from_json(read_facts(self.folder)["features"])
        except (ValueError, KeyError, TypeError) as error:
            raise RunError(
                f"{self.folder / FACTS_FILE}: expected the run's features, but it cannot be used ({error!r})"
            ) from None

    def encoders(self) -> EncoderSet:
        """The run's own copies of the frozen encoders, on the CPU.

        Raises:
            WeightsError: a weights file is missing or unreadable, or is not that of the training.
        """
        spec = self.features()
        loaded = [
            reload_encoder(self.folder / file, encoder)
            for file, encoder in zip(spec.weights_files, spec.encoders, strict=True)
        ]
        return EncoderSet(tuple(loaded), spec.image_size, stores_images=spec.stores_images)

    def method(self, name: str, features: FeatureSpec, view_numbers: tuple[int, ...]) -> Method:
        """The trained method of the model ``name``, in eval mode on the CPU.

        Args:
            features: specification of the source to score.

        Raises:
            RunError: its checkpoint is damaged or does not fit the config.
            WeightsError: it scores with the frozen encoders, and their weights cannot be used.
        """
        checkpoint = find_checkpoint(self.folder / name)
        assert checkpoint is not None
        categories = self.known_categories() if name == "all" else (name,)
        context = method_context(self.config, features, view_numbers, categories)
        spec = METHODS[self.config.method.name]
        if spec.scores_with_encoders(self.config.method):
            context = replace(context, encoders=self.encoders().encoders)
        method = spec.build(self.config.method, context)
        load_into(method, checkpoint)
        return method.eval()

    def scorer(self, category: str, source: FeatureSource, device: torch.device) -> Scorer:
        """Scorer of a category: the trained method on ``device`` with the run's scoring rules, uncalibrated.

        Raises:
            RunError: the checkpoint is damaged.
            ConfigError: ``eval.top_k`` is more than the pixels of a map.
            StoreMismatch: ``source`` lacks arrays that the method reads, or has those of another encoder.
        """
        method = self.method(self.model_name(category), source.spec, source.index.view_numbers).to(device)
        check_arrays(method.needs.scoring, source.spec)
        check_encoders(method.needs.scoring, self.features(), source.spec, source_name(self.config))
        check_top_k(self.config.eval, source.spec.image_size)
        return Scorer(self.config.eval, method, device)


def method_context(
    config: Config, features: FeatureSpec, view_numbers: tuple[int, ...], categories: Sequence[str]
) -> MethodContext:
    """The context that a config's method is built for, without resources and encoders."""
    return MethodContext(
        features=features,
        view_numbers=view_numbers,
        categories=tuple(sorted(categories)),
        rig=config.data.rig,
        corruption=config.corruption,
        view_dropout=config.train.dropout,
    )


def source_name(config: Config) -> str:
    """Where a config's features come from, for messages."""
    return str(config.data.root if config.live else config.cache.store)


def open_run(
    path: Path, overrides: Sequence[str] = (), checkpoint: Literal["final", "last"] = "final"
) -> Run:
    """Open RUN, or RUN/<category> as a run with one model.

    Args:
        path: the folder.
        overrides: ``KEY=VALUE`` settings.
        checkpoint: ``last`` also accepts models that are not trained to the last epoch, with the weights of
            their last checkpoint, and leaves out those that have none.

    Raises:
        RunError: not a run, or a category is not trained to its last epoch.
        ConfigError: see `read_config`; or an override changes which training samples are held out.
    """
    folder, only = path, None
    if not (folder / "config.yaml").is_file() and (folder.parent / "config.yaml").is_file():
        folder, only = path.parent, path.name
    if not (folder / "config.yaml").is_file():
        raise RunError(f"{path}: not a run (it has no config.yaml); expected a folder that `idif train` made")
    config = read_config(folder, overrides)
    _require_same_holdout(read_config(folder) if overrides else config, config)
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
    results = folder if only is None else folder / only
    if checkpoint == "last":
        found = {name: _progress_if_unfinished(folder / name, config) for name in names}
        unfinished = {name: progress for name, progress in found.items() if progress is not None}
        return Run(folder, results, config, tuple(names), unfinished, partial=True)
    for name in names:
        _require_finished(folder / name, config)
    return Run(folder, results, config, tuple(names))


def _require_same_holdout(trained: Config, config: Config) -> None:
    """Refuse overrides under which samples that a run has learned from would pass for held-out ones."""
    for key in ("holdout", "seed"):
        before, now = getattr(trained.train, key), getattr(config.train, key)
        if before != now:
            raise ConfigError(
                f"train.{key}: expected {before}, with which the run was trained, got {now}: the training "
                "decides which training samples are held out; for others train another run"
            )


def open_results(path: Path, overrides: Sequence[str] = ()) -> tuple[Path, Config]:
    """Results folder and config of RUN, RUN/<category> or a fusion; needs no trained model.

    Raises:
        RunError: not a run.
    """
    return path, read_config(run_home(path), overrides)


def _require_finished(folder: Path, config: Config) -> None:
    """Raise `RunError` for a model that is not trained to its last epoch, whose weights give the results."""
    progress = _progress_if_unfinished(folder, config)
    if progress is not None:
        came = last_length(config).share_text(progress)
        raise RunError(
            f"{folder}: trained to epoch {came}; results are those of the last epoch: finish it with "
            "`idif train --resume`, or use these weights with `--checkpoint last`"
        )


def _progress_if_unfinished(folder: Path, config: Config) -> TrainingProgress | None:
    """Progress of a model that is not trained to its last epoch; None if it is."""
    checkpoint = find_checkpoint(folder)
    assert checkpoint is not None
    done = read_progress(checkpoint)
    return None if is_trained(done, config) else done


def starting_checkpoint(config: Config, name: str) -> Path | None:
    """The checkpoint that ``train.init`` names for the model ``name``; None if ``train.init`` is unset.

    Raises:
        RunError: ``train.init`` is not a finished run, or has no such model.
    """
    if config.train.init is None:
        return None
    run = open_run(config.train.init)
    chosen = name if run.results == run.folder else run.names[0]
    if chosen not in run.names:
        raise RunError(f"train.init: {run.folder} holds no model {name!r}; it holds {', '.join(run.names)}")
    return find_checkpoint(run.folder / chosen)


def run_home(folder: Path) -> Path:
    """The folder with the config: ``folder`` itself, or its parent for RUN/<category>.

    Raises:
        RunError: neither is a run.
    """
    for place in (folder, folder.parent):
        if (place / "config.yaml").is_file():
            return place
    raise RunError(f"{folder}: not a run (it has no config.yaml); expected a folder that `idif train` made")
