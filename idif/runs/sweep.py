"""Missing-view sweep of a run: metrics under every choice of cameras, and each camera's value."""

from functools import partial
from typing import Any, Literal

from idif.errors import ConfigError
from idif.evaluation.test_pass import score_rules
from idif.files import require_writable
from idif.missing_views.input_sweep import mean_input_sweep, read_inputs, sweep_inputs
from idif.missing_views.sweep import mean_sweep, sweep_all, sweep_paper
from idif.runs.evaluate import Evaluation
from idif.runs.files import INPUT_SWEEP_FILE, SWEEP_FILE
from idif.runs.outdated import MODELS, model_digests
from idif.sealed_json import write_sealed

Subsets = Literal["all", "paper", "inputs"]
"""Every subset of the cameras, 0 to V-1 random views missing as in the paper, or every subset of a sample's
inputs, of which all views are one."""


def sweep_missing_views(evaluation: Evaluation, *, subsets: Subsets = "all", seed: int = 0) -> dict[str, Any]:
    """Sweep every category and write ``sweep.json``, or ``input_sweep.json``, into the run's results.

    A method that reads several inputs has no sweep over cameras: ``all`` is taken for ``inputs`` then, with a
    message.

    Args:
        seed: random seed (only with ``paper``).

    Raises:
        ConfigError: the samples have no views, or not several inputs, or the method does not look at single
            views.
        RunError: a category is not trained yet, or a checkpoint is damaged.
    """
    if subsets == "inputs":
        return _sweep_inputs(evaluation)
    run = evaluation.run
    require_writable(run.results)
    numbers: tuple[int, ...] = ()
    names: dict[str, str] = {}
    categories: dict[str, dict[str, Any]] = {}
    incomplete: dict[str, int] = {}
    sweep = sweep_all if subsets == "all" else partial(sweep_paper, seed=seed)
    for category, source, scorer in evaluation.scorers():
        inputs = read_inputs(scorer.method, source.spec)
        if subsets == "all" and len(inputs) > 1:
            evaluation.notify(
                f"note: {run.config.method.name} reads {', '.join(inputs)}: every subset of these inputs is "
                "scored, not of the cameras (--subsets inputs)"
            )
            return _sweep_inputs(evaluation)
        numbers = source.index.view_numbers
        names |= source.index.camera_names
        if not numbers:
            raise ConfigError(f"{run.folder}: a sweep hides views, and these samples have none")
        if len(inputs) > 1 or not scorer.method.draws_maps:
            raise ConfigError(
                f"{run.folder}: a sweep over cameras needs a method that draws maps of single views; "
                f"{run.config.method.name} scores {', '.join(inputs)} as a whole"
            )
        incomplete[category] = sum(not all(sample.present) for sample in source.index.samples)
        if incomplete[category]:
            some = f"{incomplete[category]} of {len(source.index)} samples"
            evaluation.notify(f"note: {category}: {some} lack views in the data; they are scored on the rest")
        categories[category] = sweep(scorer, source, progress=evaluation.progress)
    models = model_digests(run.folder, [run.model_name(category) for category in categories])
    protocol = {
        MODELS: models,
        "rules": score_rules(run.config.eval),
        "subsets": subsets,
        "seed": seed if subsets == "paper" else None,
        "views": list(numbers),
        **({"cameras": names} if names else {}),
        "incomplete_samples": incomplete,
        "labels": {
            "s_auroc": "anomalous when any view is, visible or not",
            "s_auroc_visible": "anomalous when a visible view is",
        },
    }
    result = mean_sweep(categories, numbers) | {"protocol": protocol}
    return write_sealed(run.results / SWEEP_FILE, result)


def _sweep_inputs(evaluation: Evaluation) -> dict[str, Any]:
    run = evaluation.run
    categories = {
        category: sweep_inputs(scorer, source, progress=evaluation.progress)
        for category, source, scorer in evaluation.scorers()
    }
    protocol = {
        MODELS: model_digests(run.folder, [run.model_name(category) for category in categories]),
        "rules": score_rules(run.config.eval),
        "subsets": "inputs",
    }
    return write_sealed(run.results / INPUT_SWEEP_FILE, mean_input_sweep(categories) | {"protocol": protocol})
