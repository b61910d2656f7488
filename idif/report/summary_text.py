"""The report's sentences: what was done, what a reader must know first, what compares with what."""

from collections.abc import Sequence

from idif.config.sections import TrainConfig
from idif.report.reference_results import PaperRow
from idif.report.run_data import RunData
from idif.report.tables import label, percent
from idif.training.stages import last_epochs

SMALL_TEST = 20
"""Test samples of a class below which a report warns of chance."""


def summary(run: RunData) -> str:
    """What was trained and tested, and how well it did, in one paragraph."""
    config, mean = run.config, run.metrics["mean"]
    counts = [values.get("counts", {}) for values in run.categories.values()]
    samples, anomalous = (sum(c.get(key, 0) for c in counts) for key in ("samples", "anomalous_samples"))
    categories = _count(len(run.categories), "category", "categories")
    model = "one model for all categories" if config.train.mode == "unified" else "one model per category"
    if len(run.categories) == 1 and config.train.mode == "per-category":
        model = "one model"
    parts = f"{config.method.name.upper()} with {config.method.fusion} fusion and a {config.method.head} head"
    subject = f"{parts} ({model}) was trained for {_count(config.train.epochs, 'epoch', 'epochs')} and tested"
    if run.fused:
        subject = f"A fusion of {' and '.join(run.fused)} was tested"
    tested = _count(samples, "sample", "samples")
    text = f"{subject} on {tested} of {categories}, {anomalous} of them anomalous. "
    known = [key for key in ("s_auroc", "p_auroc") if mean.get(key) is not None]
    if known:
        found = " and ".join(f"{label(key)} {percent(mean[key])}\u00a0%" for key in known)
        text += f"{'Mean ' if len(run.categories) > 1 else ''}{found}, with the weights of the last epoch."
    curve = list(run.sweep["by_missing"].items()) if run.sweep else []
    if len(curve) > 1 and curve[-1][1]["s_auroc"] is not None:
        missing, values = curve[-1]
        text += (
            f" With {missing} of {len(curve)} views missing, S-AUROC is {percent(values['s_auroc'])}\u00a0%."
        )
    return text


def caveats(run: RunData) -> list[str]:
    """What must be known before the numbers are read: the run's own caveats, then what its files show."""
    found = [text[:1].upper() + text[1:].rstrip(".") + "." for text in run.caveats]
    usual = TrainConfig().epochs
    if run.config.train.epochs < usual and not run.fused:
        trained = _count(run.config.train.epochs, "epoch", "epochs")
        found.append(f"Trained for {trained}; the default is {usual}.")
    for model, lines in run.logs.items():
        reached = max((line["epoch"] for line in lines if "seconds" in line), default=0)
        if reached < last_epochs(run.config):
            found.append(
                f"Training of {model} is not finished: {reached} of {last_epochs(run.config)} epochs."
            )
    small = []
    for name, values in run.categories.items():
        counts = values.get("counts", {})
        anomalous = counts.get("anomalous_samples", 0)
        if min(anomalous, counts.get("samples", 0) - anomalous) < SMALL_TEST:
            small.append(name)
    if small:
        some = ", ".join(small[:5]) + (f" and {len(small) - 5} more" if len(small) > 5 else "")
        found.append(
            f"Fewer than {SMALL_TEST} normal or anomalous test samples in {some}: chance moves these "
            "figures, see the intervals."
        )
    if run.protocol.get("split", "test") != "test":
        found.append(f"Evaluated on the {run.protocol['split']} split, not on the test split.")
    return found


def about_paper(run: RunData, paper: dict[str, PaperRow]) -> str | None:
    """What the columns of the paper are; None where there are none."""
    if not paper:
        return None
    dataset = next(iter(paper.values())).dataset
    return (
        f"Paper: IDIF, AAAI 2025, on {dataset} with full training sets and a learned segmentation head; "
        f"this run uses the {run.config.method.head} head. Categories are matched by name, so the columns "
        f"compare only if these data are {dataset}; the mean is over the categories shown."
    )


def comparison_notes(runs: Sequence[RunData]) -> list[str]:
    """Why the means of these runs may not compare."""
    notes = []
    if len({frozenset(run.categories) for run in runs}) > 1:
        notes.append("The runs' categories differ, so their means are not of the same thing.")
    keys = ("head", "view_score", "sample_score", "calibrate", "split", "pixels", "aupro")
    differing = [key for key in keys if len({str(run.protocol.get(key)) for run in runs}) > 1]
    if differing:
        notes.append(f"The runs' protocols differ in {', '.join(differing)}.")
    return notes


def _count(number: int, one: str, many: str) -> str:
    return f"{number} {one if number == 1 else many}"
