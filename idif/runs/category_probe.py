"""The probe of a run's categories, in the run's folder: ``categories.json`` and its weights beside it."""

from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from safetensors.torch import load_file

from idif.data.features import FeatureSource
from idif.errors import IdifError, PathError, RunError
from idif.fingerprint import sha256_of_file
from idif.inference.category_probe import CategoryProbe, normal_categories, pooled_arrays
from idif.inference.photo_grouping import PredictInput, is_automatic
from idif.progress import Notify, Progress, silent, unheard
from idif.runs.files import RESTORE
from idif.runs.identity import check_encoders
from idif.runs.run import Run, source_name
from idif.sealed_json import read_sealed, write_sealed
from idif.training.checkpoint import save_weights

PROBE_FILE, PROBE_WEIGHTS = "categories.json", "categories.safetensors"


def save_probe(folder: Path, probe: CategoryProbe) -> None:
    """Write the probe into a run's folder.

    Raises:
        PathError, CannotFinish: the folder cannot be written.
    """
    save_weights(folder / PROBE_WEIGHTS, {"weight": probe.weight, "bias": probe.bias})
    facts = {
        "categories": list(probe.categories),
        "held_out": probe.held_out,
        "accuracy": probe.accuracy,
        "weights_sha256": sha256_of_file(folder / PROBE_WEIGHTS),
    }
    write_sealed(folder / PROBE_FILE, facts)


def load_probe(folder: Path) -> CategoryProbe | None:
    """The probe in a run's folder; None if there is none.

    Raises:
        RunError: a file is damaged.
    """
    if not (folder / PROBE_FILE).exists():
        return None
    facts = read_sealed(
        folder / PROBE_FILE, RESTORE, ("categories", "held_out", "accuracy", "weights_sha256")
    )
    path = folder / PROBE_WEIGHTS
    if not path.is_file() or sha256_of_file(path) != facts["weights_sha256"]:
        raise RunError(f"{path}: damaged, it is not the file that belongs to {PROBE_FILE}; {RESTORE}")
    weights = load_file(path)
    return CategoryProbe(
        tuple(facts["categories"]), weights["weight"], weights["bias"], facts["held_out"], facts["accuracy"]
    )


def keep_probe(
    folder: Path, source: FeatureSource, *, progress: Progress = silent, notify: Notify = unheard
) -> CategoryProbe | None:
    """The probe of a run's folder, fitted and written if it has none of the source's categories.

    None if the source has normal samples of one category alone, or no features of views.

    Args:
        folder: of the run.
        source: training samples of all categories.
    """
    categories = normal_categories(source)
    if len(categories) < 2 or not pooled_arrays(source.spec):
        return None
    if (found := load_probe(folder)) is not None and found.categories == categories:
        return found
    probe = CategoryProbe.fit(source, progress)
    notify(f"note: {probe.sentence()} (--category auto of idif predict)")
    try:
        save_probe(folder, probe)
    except PathError as error:
        notify(f"note: the categories' probe is not kept: {error}")
    return probe


def require_probe(
    run: Run,
    open_source: Callable[[], FeatureSource],
    *,
    progress: Progress = silent,
    notify: Notify = unheard,
) -> CategoryProbe:
    """The probe of a run with several categories, fitted to its training samples if the run has none yet.

    Args:
        open_source: opens the training samples of all categories of the run.

    Raises:
        RunError: the run has one category or its features belong to no view; or it has no probe, and its
            training samples are not at hand.
    """
    categories = run.known_categories()
    if len(categories) == 1:
        raise RunError(f"{run.results}: has one category, {categories[0]}; there is none to choose")
    probe = load_probe(run.folder)
    if probe is not None and set(categories) <= set(probe.categories):
        return probe
    try:
        source = open_source()
        check_encoders(list(source.spec.features), run.features(), source.spec, source_name(run.config))
        probe = keep_probe(run.folder, source, progress=progress, notify=notify)
    except IdifError as error:
        raise RunError(
            f"{run.folder}: has no probe of its categories, and one cannot be fitted without the training "
            f"samples ({error}); name the category"
        ) from error
    if probe is None:
        raise RunError(
            f"{run.folder}: categories cannot be told: its features belong to no view, or only one category "
            "has normal training samples"
        )
    return probe


def recognize_parts(
    run: Run,
    probe: CategoryProbe,
    parts: Sequence[PredictInput],
    device: torch.device,
    *,
    progress: Progress = silent,
) -> list[PredictInput]:
    """The parts; those of the category ``auto`` with the one that the probe tells, if they can be read."""
    known = run.known_categories()
    unknown = [part for part in parts if is_automatic(part.category, known)]
    told = {part.name: part for part in probe.recognize(unknown, run.encoders(), device, progress)}
    return [told.get(part.name, part) for part in parts]
