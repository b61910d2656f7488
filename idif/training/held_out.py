"""Checks that enough training normals are held out for what is fitted on them, from the index alone."""

import math
from collections.abc import Mapping, Sequence

from idif.config.sections import Config, EvalConfig
from idif.data.index import Index, Sample
from idif.errors import ConfigError
from idif.training.sampling import training_normals

FEWEST = 2
"""Normals without which there is no spread, and no threshold with a score on either side."""
ENOUGH = 10
"""Normals below which a note is given: the spread of n values is uncertain by 1 / sqrt(2 (n - 1)), which is
24 % for ten and 71 % for two."""
_NAMED = 5
"""Most categories that a note names."""


def uses_normals(settings: EvalConfig) -> bool:
    """Whether evaluation also scores training normals."""
    by_rate = settings.threshold == "false-positive-rate"
    return settings.calibrate != "none" or by_rate or settings.record_normal_scores


def held_out_notes(config: Config, index: Index, categories: Sequence[str]) -> list[str]:
    """Check a training split against what evaluation fits on its held-out normals.

    Args:
        index: training samples.
        categories: those to check; one without samples fails.

    Returns:
        One sentence for each setting of ``eval`` whose numbers are fitted on few normals.

    Raises:
        ConfigError: a category has fewer normals than a setting needs.
    """
    settings = config.eval
    if not uses_normals(settings):
        return []
    kept, held = training_normals(config, index)
    held_out = {category: _samples(index, held, category) for category in categories}
    notes = []
    if settings.calibrate != "none" and index.view_numbers:
        slots = range(len(index.view_numbers))
        cameras = {
            category: min(sum(sample.present[slot] for sample in samples) for slot in slots)
            for category, samples in held_out.items()
        }
        _require("eval.calibrate", "held-out training samples of each camera", cameras, index)
        if few := _below(ENOUGH, cameras):
            fewest = min(few.values())
            notes.append(
                f"eval.calibrate: fewer than {ENOUGH} held-out training samples of a camera: {_named(few)}; "
                f"a spread of {fewest} scores is uncertain by {1 / math.sqrt(2 * (fewest - 1)):.0%}, so "
                "raise train.holdout or add training samples"
            )
    if settings.threshold == "false-positive-rate":
        rate, counts = settings.target_fpr, {c: len(samples) for c, samples in held_out.items()}
        _require("eval.threshold: false-positive-rate", "held-out training samples", counts, index)
        enough = max(ENOUGH, math.ceil(1 / rate - 1e-9) if rate else ENOUGH)
        if few := _below(enough, counts):
            notes.append(
                f"eval.threshold: fewer than {enough} held-out training samples: {_named(few)}; they are too "
                f"few for a false-positive rate of {rate:g}, so raise train.holdout or add training samples"
            )
    if settings.record_normal_scores:
        chosen = {c: len(samples or _samples(index, kept, c)) for c, samples in held_out.items()}
        _require("eval.record_normal_scores", "training samples to score", chosen, index)
    return notes


def _samples(index: Index, rows: Sequence[int], category: str) -> list[Sample]:
    """Samples of a category that can be scored: with a view or another input."""
    samples = [index.samples[row] for row in rows if index.samples[row].category == category]
    return [sample for sample in samples if not index.view_numbers or any(sample.present)]


def _require(key: str, kind: str, counts: Mapping[str, int], index: Index) -> None:
    """Raise `ConfigError` for the category of the lowest count, if that is below `FEWEST`."""
    category = min(counts, key=lambda name: (counts[name], name))
    if counts[category] < FEWEST:
        total = sum(sample.category == category for sample in index.samples)
        raise ConfigError(
            f"{key}: needs at least {FEWEST} {kind} in every category, but {category} has "
            f"{counts[category]} (of {total} training sample{'' if total == 1 else 's'}); "
            "raise train.holdout or add samples"
        )


def _below(limit: int, counts: Mapping[str, int]) -> dict[str, int]:
    return {category: count for category, count in counts.items() if count < limit}


def _named(counts: Mapping[str, int]) -> str:
    """The categories with the lowest counts."""
    ordered = sorted(counts.items(), key=lambda item: (item[1], item[0]))
    names = ", ".join(f"{category} {count}" for category, count in ordered[:_NAMED])
    return names + (f", and {len(ordered) - _NAMED} more" if len(ordered) > _NAMED else "")
