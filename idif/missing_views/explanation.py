"""Explanations of sample scores: the values that a score is made of, and the scores without each input."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from idif.data.features import FeatureSource
from idif.data.subset import Subset
from idif.evaluation.scoring import Scorer
from idif.missing_views.input_sweep import read_inputs, score_inputs


@dataclass(frozen=True)
class Explanation:
    """Where one sample's score came from."""

    parts: dict[str, float]
    """`idif.methods.protocol.Scores.parts`, without undefined ones."""
    without: dict[str, float]
    """Input -> the score if it were absent; only inputs that the method reads, and only where a score
    remains."""


@torch.inference_mode()
def explain(scorer: Scorer, source: FeatureSource, rows: Sequence[int]) -> list[Explanation]:
    """Explain the scores of ``rows``, in order."""
    chosen = Subset(source, tuple(rows))
    scorer.method.eval()
    parts: list[dict[str, float]] = []
    for batch in chosen.batches(range(len(rows)), scorer.config.batch_size):
        named = scorer.method.score(batch.to(scorer.device)).parts
        for place in range(len(batch)):
            values = {name: float(part[place]) for name, part in named.items()}
            parts.append({name: value for name, value in values.items() if value == value})
    inputs = read_inputs(scorer.method, source.spec)
    left = [tuple(name for name in inputs if name != missing) for missing in inputs]
    scores = score_inputs(scorer, chosen, left) if len(inputs) > 1 else []
    without = [dict(zip(inputs, map(float, own), strict=True)) for own in zip(*scores, strict=True)]
    return [
        Explanation(own, {name: value for name, value in less.items() if value == value})
        for own, less in zip(parts, without or [{} for _ in rows], strict=True)
    ]
