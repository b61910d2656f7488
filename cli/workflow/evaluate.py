"""Evaluation of a run on its config's store or dataset."""

from collections.abc import Sequence
from typing import Any

from cli.terminal.console import note, progress_bar
from cli.workflow.device import evaluation_device
from cli.workflow.sources import Sources
from idif.data.features import FeatureSource
from idif.data.index import Split
from idif.evaluation.reconstruction import write_reconstructions
from idif.progress import Progress, silent
from idif.runs.evaluate import Evaluation, evaluate
from idif.runs.files import RECONSTRUCTION_FILE, read_facts
from idif.runs.identity import check_identity, data_identity
from idif.runs.outdated import MODELS, model_digests
from idif.runs.run import Run, source_name


def evaluation_of(run: Run, sources: Sources, progress: Progress = silent) -> Evaluation:
    """The `Evaluation` of a run on the sources of its config.

    Raises:
        RunError: a category has no model yet.
        StoreMismatch: the training samples beside those to evaluate are not the run's.
    """

    def open_source(category: str, split: Split) -> FeatureSource:
        # each training row is read only once, so placing the source in memory has no benefit
        return sources.placed([category], split) if split == "test" else sources.unplaced([category], split)

    categories: Sequence[str] = sources.categories()
    recorded, where = read_facts(run.folder).get("data", {}), source_name(run.config)
    learns_from = run.config.method.learns_from
    for category, _ in run.models(categories):
        if category in recorded and all(sources.has(category, split) for split in learns_from):
            identity = data_identity(sources.unplaced([category], *learns_from), category)
            check_identity(recorded, identity, category, where)
    given, trained = sources.storage(), run.features().storage
    if given != trained:
        note(f"note: {where}: features are {given}, the run was trained on {trained}; scores differ slightly")
    return Evaluation(run, categories, open_source, evaluation_device(), progress, note)


def evaluate_run(
    run: Run, *, split: Split = "test", maps: bool = True, reconstruction: bool = False
) -> dict[str, Any]:
    """Write ``predictions.h5`` and ``metrics.json``; returns the metrics.

    Args:
        reconstruction: whether to write ``reconstruction.h5`` too.
    """
    sources = Sources(run.config, evaluation_device())
    with progress_bar("evaluating", "samples") as listen:
        evaluation = evaluation_of(run, sources, listen)
        if reconstruction:
            weights = model_digests(run.folder, [model for _, model in run.models(evaluation.categories)])
            write_reconstructions(
                run.results / RECONSTRUCTION_FILE,
                evaluation.scorers(split),
                {MODELS: weights, "split": split},
                progress=listen,
            )
        return evaluate(evaluation, split=split, maps=maps)
