"""The config section of supervised contrastive learning."""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from idif.data.index import LearningSplit
from idif.methods.section import MethodSection
from idif.settings import Count, Section


class SeriesConfig(Section):
    """The transformer that reads an array over time."""

    width: Count = 128
    """Channels of the series inside the transformer."""
    layers: Count = 2
    attention_heads: Count = 4
    feedforward: Count = 256
    """Hidden width of the feed-forward part of each layer."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.width % self.attention_heads:
            raise ValueError(f"attention_heads: {self.attention_heads} does not divide width: {self.width}")
        return self


class SupConConfig(MethodSection):
    """Settings of supervised contrastive learning from normal samples and labeled defects."""

    section_defaults: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "train": {
            "epochs": 100,
            "batch_size": 32,
            "optimizer": {"name": "adamw"},
            "lr": 1e-4,
            "weight_decay": 1e-2,
            "schedule": {"name": "cosine"},
            "holdout": 0.1,
        },
        "eval": {"batch_size": 32, "threshold": "false-positive-rate"},
        "teacher": {"encoder": "weld"},
    }
    learns_from: ClassVar[tuple[LearningSplit, ...]] = ("train", "val")

    name: Literal["supcon"] = "supcon"
    arrays: Annotated[tuple[str, ...], Field(min_length=1)] = ("video", "audio", "sensor", "img_b31_mean")
    """Arrays that become one token each: averaged over all axes but the channels, unless in ``series``."""
    series: tuple[str, ...] = ("sensor",)
    """Those of ``arrays`` that a transformer reads over time instead."""
    series_encoder: SeriesConfig = SeriesConfig()
    width: Count = 512
    """Channels of the tokens and of the embedding."""
    tokens: Count = 4
    """Learned tokens that ask the inputs' tokens."""
    layers: Count = 1
    """Transformer layers in which they do."""
    attention_heads: Count = 8
    feedforward: Count = 1024
    """Hidden width of the feed-forward part of each layer."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.1
    """Dropout inside all transformers."""
    temperature: Annotated[float, Field(gt=0)] = 0.07
    """Divides the cosines in the contrastive loss."""
    cross_entropy: Annotated[float, Field(ge=0)] = 0.0
    """Weight of a linear classifier's cross-entropy beside the contrastive loss; 0: no classifier is made."""
    mixup: Annotated[float, Field(ge=0)] = 0.2
    """Both parameters of the beta distribution of the share in which two samples are mixed; 0: none are."""
    balanced: bool = True
    """Whether every batch has as many normal as anomalous samples."""
    neighbors: Count = 5
    """Normal training samples whose mean cosine distance is the score."""

    @property
    def balances_labels(self) -> bool:
        """See `MethodSection.balances_labels`."""
        return self.balanced

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.width % self.attention_heads:
            raise ValueError(f"attention_heads: {self.attention_heads} does not divide width: {self.width}")
        if len(set(self.arrays)) < len(self.arrays):
            raise ValueError(f"arrays: expected different names, got {', '.join(self.arrays)}")
        if unknown := [name for name in self.series if name not in self.arrays]:
            raise ValueError(f"series: expected names of arrays ({', '.join(self.arrays)}), got {unknown[0]}")
        return self
