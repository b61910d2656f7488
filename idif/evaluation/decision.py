"""The decisions of a category's threshold on evaluated samples: misses, false alarms, the samples concerned.

Evaluation records them in ``metrics.json`` as ``decision``; the terminal, the report and the page show them.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from idif.data.index import MIXED_CLASS
from idif.evaluation.predictions import Predictions
from idif.metrics.proportion import Proportion
from idif.metrics.score_counts import BoolArray, IntArray

UNSEEN_CLASS = "no visible defect"
"""Class of an anomalous sample none of whose present views is labeled anomalous."""
FIXED = "fixed"
"""Origin of a threshold that the config names."""
VALIDATION_TEXTS: Mapping[str, str] = {
    "validation": "greatest F1 on the split val",
    "validation-youden": "greatest TPR - FPR on the split val",
}
"""Rule of a threshold that the split ``val`` chose -> its origin."""
LEADING_CLASSES = 6
"""Most defect classes that a sentence names."""


@dataclass(frozen=True)
class WrongSample:
    """A sample that the threshold decides wrongly."""

    sample_id: str
    score: float
    defect: str
    """Its class."""
    files: dict[str, str]
    """Camera number -> original name of the photograph, relative to the folder it was imported from; empty
    where the data label whole samples."""

    def name(self) -> str:
        """The original name of its first photograph, else its id."""
        return next(iter(self.files.values()), self.sample_id)


@dataclass(frozen=True)
class Decisions:
    """The decisions of a threshold on the evaluated samples of one category.

    Intervals are `Proportion.interval`: over samples, with the threshold taken as fixed.
    """

    threshold: float
    rule: str
    """The rule that chose it, see `idif.metrics.threshold.Threshold`."""
    origin: str
    """Where the threshold comes from, for display."""
    misses: Proportion
    """Anomalous samples below the threshold."""
    false_alarms: Proportion
    """Normal samples from the threshold on."""
    missed_by_class: dict[str, Proportion]
    """Defect class -> its samples below the threshold."""
    missed: tuple[WrongSample, ...]
    """The lowest scores first."""
    falsely_alarmed: tuple[WrongSample, ...]
    """The highest scores first."""

    @property
    def oracle(self) -> bool:
        """Whether the threshold was chosen with the labels of these very samples."""
        return self.rule == "f1-max"

    def sentence(self) -> str:
        """Threshold with its origin, misses and false alarms with intervals, and misses by class."""
        text = f"threshold {self.threshold:.4g} ({self.origin}): misses {self.misses}"
        text += f", false alarms {self.false_alarms}"
        named = list(self.missed_by_class.items())[:LEADING_CLASSES]
        if not named:
            return text
        more = len(self.missed_by_class) - len(named)
        classes = ", ".join(f"{name} {missed.count}/{missed.total}" for name, missed in named)
        return f"{text}; missed by class: {classes}" + (f" and {more} more classes" if more > 0 else "")

    @property
    def agreement(self) -> dict[str, float | None]:
        """``precision``, ``recall``, ``f1``, ``accuracy``, anomalous as positive; None where undefined."""
        hits = self.misses.total - self.misses.count
        alarms, wrong = hits + self.false_alarms.count, self.misses.count + self.false_alarms.count
        samples = self.misses.total + self.false_alarms.total
        return {
            "precision": hits / alarms if alarms else None,
            "recall": hits / self.misses.total if self.misses.total else None,
            "f1": 2 * hits / (2 * hits + wrong) if self.misses.total else None,
            "accuracy": (samples - wrong) / samples if samples else None,
        }

    def to_json(self) -> dict[str, Any]:
        """As JSON values, with `agreement`."""
        return {
            "threshold": self.threshold,
            "rule": self.rule,
            "origin": self.origin,
            "oracle": self.oracle,
            "misses": self.misses.to_json(),
            "false_alarms": self.false_alarms.to_json(),
            **self.agreement,
            "missed_by_class": {name: share.to_json() for name, share in self.missed_by_class.items()},
            "missed": [vars(sample) for sample in self.missed],
            "falsely_alarmed": [vars(sample) for sample in self.falsely_alarmed],
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Self:
        """Inverse of `to_json`."""
        return cls(
            threshold=data["threshold"],
            rule=data["rule"],
            origin=data["origin"],
            misses=Proportion.from_json(data["misses"]),
            false_alarms=Proportion.from_json(data["false_alarms"]),
            missed_by_class={k: Proportion.from_json(v) for k, v in data["missed_by_class"].items()},
            missed=tuple(WrongSample(**sample) for sample in data["missed"]),
            falsely_alarmed=tuple(WrongSample(**sample) for sample in data["falsely_alarmed"]),
        )


def decisions_of(
    predictions: Predictions,
    rows: IntArray,
    labels: BoolArray,
    threshold: Mapping[str, Any] | None,
    target_fpr: float | None = None,
) -> Decisions | None:
    """The decisions of a threshold; None without a threshold.

    Args:
        predictions: of a test pass.
        rows: the rows of one category; samples without a score are left out.
        labels: bool [N]: labels of these samples.
        threshold: the recorded threshold of samples.
        target_fpr: the rate that it was chosen for, if it was chosen by one.
    """
    if threshold is None:
        return None
    scored = predictions.scorable[rows]
    rows, labels = rows[scored], labels[scored]
    scores = predictions.sample_scores[rows]
    flagged = scores >= threshold["value"]
    classes = np.array([sample_class(predictions, int(row)) for row in rows], dtype=object)
    by_class = {
        name: Proportion(int((~flagged[of]).sum()), int(of.sum()))
        for name in sorted(set(classes[labels]))
        for of in (labels & (classes == name),)
    }
    order = np.argsort(scores, kind="stable")
    return Decisions(
        threshold=threshold["value"],
        rule=threshold["rule"],
        origin=threshold_origin(threshold, predictions.protocol.get("split", "test"), target_fpr),
        misses=Proportion(int((labels & ~flagged).sum()), int(labels.sum())),
        false_alarms=Proportion(int((~labels & flagged).sum()), int((~labels).sum())),
        missed_by_class=dict(sorted(by_class.items(), key=lambda item: (-item[1].count, item[0]))),
        missed=tuple(_wrong(predictions, int(rows[at])) for at in order if labels[at] and not flagged[at]),
        falsely_alarmed=tuple(
            _wrong(predictions, int(rows[at])) for at in order[::-1] if flagged[at] and not labels[at]
        ),
    )


def threshold_origin(threshold: Mapping[str, Any], split: str, target_fpr: float | None) -> str:
    """Where a recorded threshold comes from, for display."""
    if threshold["rule"] == "f1-max":
        return f"best F1 on the {split} samples themselves, an oracle that needs their labels"
    if threshold["rule"] == "false-positive-rate":
        held = f"{threshold['items']} held-out good parts"
        return held if target_fpr is None else f"{100 * target_fpr:g} % false-alarm target, {held}"
    return VALIDATION_TEXTS.get(threshold["rule"], FIXED)


def sample_class(predictions: Predictions, row: int) -> str:
    """The class of a labeled sample: its defect, ``MIXED`` for several, or `UNSEEN_CLASS`."""
    classes = predictions.defects_of(row)
    if not classes:
        return UNSEEN_CLASS
    return classes[0] if len(classes) == 1 else MIXED_CLASS


def _wrong(predictions: Predictions, row: int) -> WrongSample:
    p = predictions
    defects, of_sample = p.defects_of(row), bool(p.sample_class[row])
    return WrongSample(
        sample_id=p.sample_id[row],
        score=float(p.sample_scores[row]),
        defect=", ".join(defects) or "OK",
        files={
            str(number): p.original_name(row, slot)
            for slot, number in enumerate(p.view_numbers)
            if p.present[row, slot] and not of_sample
        },
    )
