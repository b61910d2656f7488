"""The config section of UniAD."""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from idif.methods.section import MethodSection
from idif.settings import Count, Probability, Section


def _odd(value: int) -> int:
    if value % 2 == 0:
        raise ValueError(f"expected an odd number, got {value}")
    return value


class NeighborMaskConfig(Section):
    """Keys around a token's own position that its attention must not use."""

    size: tuple[Annotated[Count, AfterValidator(_odd)], Annotated[Count, AfterValidator(_odd)]] = (7, 7)
    """Rows and columns of the forbidden neighborhood, centered on the token, which is forbidden too."""
    encoder: bool = True
    """Whether the encoder's attention is masked."""
    queries: bool = True
    """Whether the decoder's first attention is masked, that of its queries to the encoder's memory."""
    outputs: bool = True
    """Whether the decoder's second attention is masked, that to the previous layer's output."""

    @property
    def used(self) -> bool:
        """Whether any attention is masked."""
        return self.encoder or self.queries or self.outputs


class JitterConfig(Section):
    """Noise on the input features while training; the target stays clean."""

    scale: Annotated[float, Field(ge=0)] = 20.0
    """Standard deviation of each value, as a multiple of the token's length divided by its channels."""
    probability: Probability = 1.0
    """Share of the views that get noise."""


class UniADConfig(MethodSection):
    """Settings of UniAD."""

    section_defaults: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "train": {
            "mode": "unified",
            "epochs": 1000,
            "batch_size": 8,
            "optimizer": {"name": "adamw"},
            "lr": 1e-4,
            "weight_decay": 1e-4,
            "schedule": {"name": "milestones", "unit": "epoch", "milestones": [800], "factor": 0.1},
            "warmup": 0.0,
            "clip_norm": 0.1,
        },
        "eval": {"score": "method"},
        "teacher": {
            "encoder": "tf_efficientnet_b4",
            "image_size": 224,
            "taps": [2, 4, 8, 16],
            "neck": "aligned",
        },
    }
    uses_view_dropout: ClassVar[bool] = True

    name: Literal["uniad"] = "uniad"
    width: Annotated[int, Field(gt=0, multiple_of=4)] = 256
    """Channels of a token inside the transformer."""
    attention_heads: Count = 8
    encoder_layers: Count = 4
    decoder_layers: Count = 4
    feedforward: Count = 1024
    """Hidden width of the feed-forward part of each layer."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.1
    position: Literal["learned", "sine"] = "learned"
    """Position code, added to queries and keys: a learned table for rows and one for columns, or sines."""
    neighbor_mask: NeighborMaskConfig = NeighborMaskConfig()
    jitter: JitterConfig = JitterConfig()
    initializer: Literal["xavier-uniform", "xavier-normal", "kaiming-uniform", "kaiming-normal", "normal"] = (
        "xavier-uniform"
    )
    """Distribution of the initial weights of linear layers; ``normal`` has a standard deviation of 0.01."""
    view_score: Literal["pooled-max", "mean", "std"] = "pooled-max"
    """Rule of ``eval.score: method``: the maximum of the averages over windows of ``pool`` pixels (defects),
    the mean of all pixels (classes never seen), or their standard deviation."""
    pool: Count = 16
    """Side in pixels of the windows of ``view_score: pooled-max``."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.width % self.attention_heads:
            raise ValueError(f"attention_heads: {self.attention_heads} does not divide width: {self.width}")
        return self
