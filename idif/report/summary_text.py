"""The report's sentences: summary of a run, caveats, and why runs may not be comparable."""

from collections.abc import Iterable, Sequence

from idif.config.sections import TrainConfig
from idif.evaluation.brightness import brightness_warning
from idif.evaluation.test_pass import BEST_EPOCH
from idif.report.reference_results import ReferenceRow
from idif.report.run_data import Json, RunData
from idif.report.tables import label
from idif.training.checkpoint_files import TrainingLength, TrainingProgress
from idif.training.feature_mean import untrained_warning
from idif.training.stages import last_length
from idif.training.validation import overfit_warning
from idif.visualization.text import as_sentence, percent

SMALL_TEST = 20
"""With fewer test samples of a class than this, a report warns that its metrics are uncertain."""
SMALL_TEST_NAMES = 5
"""Most categories that this warning names."""
SCORING = {"map": "anomaly map", "view_score": "view score", "sample_score": "sample score"}
"""Keys of the protocol that the summary states, with the names it gives them."""


def summary(run: RunData) -> str:
    """One paragraph: what was trained and evaluated, the mean metrics, and how scores were computed."""
    config, mean = run.config, run.metrics["mean"]
    counts = [values.get("counts", {}) for values in run.categories.values()]
    samples, anomalous = (sum(c.get(key, 0) for c in counts) for key in ("samples", "anomalous_samples"))
    categories = _count(len(run.categories), "category", "categories")
    models = "one model for all categories" if config.train.mode == "unified" else "one model per category"
    if len(run.categories) == 1 and config.train.mode == "per-category":
        models = "one model"
    if run.fused:
        subject = f"A late fusion of {' and '.join(run.fused)} was evaluated"
    else:
        learned = f"trained for {TrainingLength(config.train.epochs, config.train.steps).text()}"
        if run.unfinished_epoch is not None:
            learned = f"stopped or still in training after epoch {run.unfinished_epoch}"
        if config.method.fitted:
            learned = "fitted in one pass, without training,"
        if config.method.uses_labels:
            learned += " on normal samples and labeled defects"
        subject = f"{config.method.name.upper()} ({models}) was {learned} and evaluated"
    tested = _count(samples, "sample", "samples")
    sentences = [f"{subject} on {tested} of {categories}; {anomalous} of them are anomalous"]
    defined = [key for key in ("s_auroc", "p_auroc") if mean.get(key) is not None]
    if defined:
        values = " and ".join(f"{label(key)} {percent(mean[key])}\u00a0%" for key in defined)
        epoch = ", with the weights of the last epoch" if "epoch" in run.protocol else ""
        if run.protocol.get("epoch") == BEST_EPOCH:
            epoch = f", with the weights of the epoch {BEST_EPOCH}"
        if run.unfinished_epoch is not None:
            epoch = f", with the weights of epoch {run.unfinished_epoch}"
        sentences.append(f"{'Mean ' if len(run.categories) > 1 else ''}{values}{epoch}")
    curve = list(run.sweep["by_missing"].items()) if run.sweep else []
    if len(curve) > 1 and curve[-1][1]["s_auroc"] is not None:
        missing, last = curve[-1]
        s_auroc = percent(last["s_auroc"])
        sentences.append(f"With {missing} of {len(curve)} views missing, S-AUROC is {s_auroc}\u00a0%")
    stated = dict(SCORING)
    if not run.draws_maps:
        stated = {"sample_score": "sample score"}
    elif run.has_views and not run.several_cameras:
        del stated["sample_score"]  # that of the one view
    scoring = [f"{name}: {run.protocol[key]}" for key, name in stated.items() if run.protocol.get(key)]
    if scoring:
        sentences.append("; ".join(scoring))
    return " ".join(map(as_sentence, sentences))


def caveats(run: RunData) -> list[str]:
    """Limits of the metrics: the run's own caveats, then what its files show."""
    texts = [as_sentence(text) for text in run.caveats]
    defaults, fitted = run.config.method.section_defaults.get("train", {}), run.config.method.fitted
    default = defaults.get("epochs", TrainConfig().epochs)
    if run.config.train.steps is None and run.config.train.epochs < default and not (run.fused or fitted):
        trained = _count(run.config.train.epochs, "epoch", "epochs")
        texts.append(f"Trained for {trained}; the default is {default}.")
    length = last_length(run.config)
    for model, lines in run.logs.items():
        ended = [(line["epoch"], line.get("step", 0)) for line in lines if "seconds" in line]
        epoch, step = max(ended, default=(0, 0))
        progress = TrainingProgress(epoch, step, finished=False)
        if not length.reached(progress) and run.protocol.get("epoch") != BEST_EPOCH:
            came = f"{progress.epoch} of {length.text()}"
            if length.steps is not None:
                came = f"{progress.step:,} of {length.text()}"
            texts.append(f"Training of {model} is not finished: {came}.")
        texts += _overfit(run, model, lines)
    warnings = (untrained_warning(run.metrics), brightness_warning(run.metrics))
    texts += [as_sentence(warning) for warning in warnings if warning is not None]
    small = [name for name, values in run.categories.items() if _smaller_class(values) < SMALL_TEST]
    if small:
        more = len(small) - SMALL_TEST_NAMES
        names = ", ".join(small[:SMALL_TEST_NAMES]) + (f" and {more} more" if more > 0 else "")
        texts.append(
            f"Fewer than {SMALL_TEST} normal or anomalous test samples in {names}: these metrics are "
            "uncertain, see their intervals."
        )
    split = run.protocol.get("split", "test")
    if split != "test":
        known = ", whose samples were learned from," if split in run.config.method.learns_from else ","
        texts.append(f"Evaluated on the {split} split{known} not on the test split.")
    return texts


def _overfit(run: RunData, model: str, lines: Sequence[Json]) -> list[str]:
    """The warning of `train.overfit_alarm` for the weights that the run holds."""
    seen = {line["epoch"]: line["eval"] for line in lines if line.get("eval")}
    last = seen.get(max(seen, default=0), {})
    figures = seen.get(last.get("best_epoch"), last)
    warning = overfit_warning(run.config.train, figures)
    return [] if warning is None else [as_sentence(f"{model}: {warning}")]


def _smaller_class(values: Json) -> int:
    """Test samples of a category's smaller class, normal or anomalous."""
    counts = values.get("counts", {})
    anomalous = int(counts.get("anomalous_samples", 0))
    return min(anomalous, int(counts.get("samples", 0)) - anomalous)


def about_references(references: dict[str, ReferenceRow]) -> str | None:
    """Where the published columns are from and when they are comparable; None without such columns."""
    if not references:
        return None
    row = next(iter(references.values()))
    return (
        f"Paper: {row.method} on {row.dataset}, from {row.source}; {row.protocol or 'protocol unknown'}. "
        f"Categories are matched by name: the columns are comparable only if the data are {row.dataset} and "
        "the protocol is the same. The mean is over the categories shown."
    )


def comparison_notes(runs: Sequence[RunData]) -> list[str]:
    """Why the means of these runs may not be comparable."""
    notes = []
    if len({frozenset(run.categories) for run in runs}) > 1:
        notes.append("The runs' categories differ, so their means are not comparable.")
    keys = _protocol_keys(runs)
    differing = [key for key in keys if len({str(run.protocol.get(key)) for run in runs}) > 1]
    if differing:
        notes.append(f"The runs' protocols differ in {', '.join(differing)}.")
    return notes


def _protocol_keys(runs: Sequence[RunData]) -> Iterable[str]:
    """Keys of the protocols that state a choice; nested values hold what was measured on the way."""
    return dict.fromkeys(
        key for run in runs for key, value in run.protocol.items() if not isinstance(value, dict)
    )


def _count(number: int, one: str, many: str) -> str:
    return f"{number} {one if number == 1 else many}"
