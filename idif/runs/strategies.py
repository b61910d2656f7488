"""Comparison of the strategies for missing views on runs: ``strategies.json``."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from idif.data.features import IMAGE_INPUT, IMAGES, FeatureSource, check_arrays
from idif.data.index import camera_name
from idif.encoders.encode import EncoderSet
from idif.errors import RunError
from idif.files import require_writable
from idif.missing_views.imputation import Imputer
from idif.missing_views.inpainting import Reconstructor, ViewInpainter, load_inpainter, train_inpainter
from idif.missing_views.retrieval import Retriever
from idif.missing_views.strategies import STRATEGIES, Strategy, mean_curve, score_strategy
from idif.progress import Notify, ProgressBar, no_bar, unheard
from idif.runs.evaluate import Evaluation
from idif.runs.files import STRATEGIES_FILE
from idif.runs.outdated import MODELS, model_digests
from idif.runs.run import Run
from idif.sealed_json import write_sealed
from idif.training.sampling import training_rows


@dataclass(frozen=True)
class StrategyData:
    """A run with the sources that the strategies are compared on."""

    evaluation: Evaluation
    training: Callable[[Sequence[str]], FeatureSource]
    """Opens the training samples of some categories, to be read several times."""
    encoders: Callable[[], EncoderSet]
    """The frozen encoders behind the features; asked for if imputed views are scored."""


def compare_strategies(
    runs: Sequence[Run],
    open_data: Callable[[Run], StrategyData],
    *,
    seed: int = 0,
    bar: ProgressBar = no_bar,
    notify: Notify = unheard,
) -> dict[str, Any]:
    """Score every strategy on every run; writes ``strategies.json`` into the first run.

    Args:
        runs: at least one.
        open_data: called for one run after the other.
        seed: of the choice of missing views.

    Raises:
        RunError: a run is given twice; or as `Evaluation.scorers`.
        ConfigError: the settings ``strategies`` do not fit the data. StoreMismatch: there are no images.
    """
    names = run_names(runs)
    require_writable(runs[0].results)
    curves: list[dict[str, Any]] = []
    compared: list[list[str]] = []
    cameras: dict[str, dict[int, str]] = {}
    for run, name in zip(runs, names, strict=True):
        cameras[name], categories = _curves(open_data(run), seed, bar)
        compared.append(sorted(categories["dropout"]))
        for strategy, of_categories in categories.items():
            curves.append(
                {
                    "run": name,
                    "view_dropout": run.config.train.dropout.probability,
                    "strategy": strategy,
                    "by_missing": mean_curve(of_categories),
                    "categories": of_categories,
                }
            )
    if any(categories != compared[0] for categories in compared):
        notify("note: the runs' categories differ, so their means are not comparable")
    if any(own.keys() != cameras[names[0]].keys() for own in cameras.values()):
        listed = "; ".join(f"{name}: {', '.join(own.values())}" for name, own in cameras.items())
        notify(f"note: the runs' cameras differ ({listed}), so a missing view is not the same for each")
    chosen = runs[0].config.strategies.model_dump(mode="json")
    first = runs[0]
    models = list(dict.fromkeys(first.model_name(category) for category in compared[0]))
    chosen |= {MODELS: model_digests(first.folder, models)}
    found = {"curves": curves, "protocol": {"seed": seed, "labels": "any view", **chosen}}
    return write_sealed(first.results / STRATEGIES_FILE, found)


def run_names(runs: Sequence[Run]) -> list[str]:
    """A name for each run: its own, or the end of its folder's path where several have the same.

    Raises:
        RunError: a run is given twice.
    """
    folders = [run.results.resolve() for run in runs]
    names = [run.config.run.name for run in runs]
    for folder in folders:
        if folders.count(folder) > 1:
            raise RunError(f"{folder}: expected different runs, got this one twice")
    length, most = 2, max(len(folder.parts) for folder in folders)
    shown = list(names)
    while len(set(shown)) < len(shown) and length <= most:
        ends = ["/".join(folder.parts[-length:]) for folder in folders]
        shown = [end if names.count(name) > 1 else name for name, end in zip(names, ends, strict=True)]
        length += 1
    return shown


def _curves(
    data: StrategyData, seed: int, bar: ProgressBar
) -> tuple[dict[int, str], dict[str, dict[str, Any]]]:
    """{camera number: its name} and {strategy: {category: curve}} of one run."""
    run, device = data.evaluation.run, data.evaluation.device
    chosen = run.config.strategies
    curves: dict[str, dict[str, Any]] = {strategy: {} for strategy in STRATEGIES}
    numbers: tuple[int, ...] = ()
    named: dict[str, str] = {}
    for category, source, scorer in data.evaluation.scorers():
        numbers = source.index.view_numbers  # the same for every category
        named |= source.index.camera_names
        normals = data.training([category])
        with bar(f"{category}: pooling", "samples") as listen:
            retriever = Retriever.build(normals, chosen.layer, chosen.neighbours, listen)
        check_arrays([IMAGES], source.spec)
        inpainter = _inpainter(data, run.model_name(category), bar)
        used = data.encoders().to(device).encoders if chosen.score_imputed else ()
        encoders = tuple(encoder for encoder in used if encoder.family.input == IMAGE_INPUT)
        imputers: dict[str, Imputer] = {
            "retrieve": retriever,
            "reconstruct": Reconstructor(inpainter, encoders, device),
        }
        for name in STRATEGIES:
            title = f"{category}: {name}"
            strategy = Strategy(imputers.get(name), chosen.score_imputed)
            with bar(title, "samples") as listen:
                curves[name][category] = score_strategy(
                    scorer, source, strategy, seed=seed, progress=listen, title=title
                )
    return {number: camera_name(named, number) for number in numbers}, curves


def _inpainter(data: StrategyData, name: str, bar: ProgressBar) -> ViewInpainter:
    """The inpainter of a model: loaded from its folder, or trained and saved there."""
    run, device = data.evaluation.run, data.evaluation.device
    folder, chosen = run.folder / name / "reconstruct", run.config.strategies.inpainter
    members = data.evaluation.categories if run.config.train.mode == "unified" else [name]
    source = data.training(members)
    inpainter = load_inpainter(folder, chosen, source)
    if inpainter is None:
        rows, _ = training_rows(run.config, source.index)
        with bar(f"{name}: training the inpainter", "steps") as listen:
            inpainter = train_inpainter(folder, chosen, source, rows, device, progress=listen)
    return inpainter.to(device)
