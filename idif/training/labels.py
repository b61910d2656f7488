"""Labels in training: what a method that learns from them demands of the data, and what readers must know."""

from collections.abc import Sequence
from typing import Any

from idif.config.sections import Config
from idif.data.index import Sample
from idif.errors import ConfigError

LEARNED_FROM = "learned_from"
"""Key of a run's facts and of a result's protocol: the sentence of `labels_text`."""


def require_labels(config: Config, samples: Sequence[Sample], model: str) -> None:
    """Refuse data without defects for a method that learns from labels.

    Args:
        samples: all samples of one model's categories.
        model: its name.

    Raises:
        ConfigError: none of the split ``val`` is anomalous.
    """
    if config.method.uses_labels and not any(s.label for s in samples if s.split == "val"):
        raise ConfigError(
            f"method.name: {config.method.name} learns from labeled defects of the split val, of which the "
            f"data of {model} have none; add some, or use a method that learns from normal samples alone"
        )


def labels_text(config: Config, samples: Sequence[Sample]) -> str | None:
    """A sentence on the labels that a method has learned from; None for a method that learns from none.

    Args:
        samples: all samples that the run learns from.
    """
    if not config.method.uses_labels:
        return None
    anomalous, splits = sum(sample.label for sample in samples), " and ".join(config.method.learns_from)
    return (
        f"{config.method.name} learned from labeled defects, {anomalous:,} of the {len(samples):,} samples "
        f"of {splits}: it is a supervised reference, not comparable with methods that learn from normal "
        "samples alone"
    )


def labels_note(protocol: dict[str, Any]) -> str | None:
    """The sentence of `labels_text` from the protocol of a result or of the runs that it fuses."""
    own = [protocol, *(member["protocol"] for member in protocol.get("fused", ()))]
    told = [str(stated[LEARNED_FROM]) for stated in own if LEARNED_FROM in stated]
    return "; ".join(dict.fromkeys(told)) or None
