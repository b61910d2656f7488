"""The config section of Causal-FiLM."""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from idif.methods.section import MethodSection
from idif.settings import Count, Section

Weight = Annotated[float, Field(ge=0)]
Share = Annotated[float, Field(ge=0, lt=1)]


class PoolingConfig(Section):
    """One pooled vector of every still."""

    array: str
    """Array of the views, with the axes token and channel, or channel alone."""
    pool: Literal["mean", "gem", "none"] = "mean"
    """Mean over the tokens, generalized mean with a learned exponent, or ``none`` for an array without
    tokens."""
    skip: Annotated[int, Field(ge=0)] = 0
    """Leading tokens that are left out, e.g. a class token and registers."""


class SensorConfig(Section):
    """The network that reads the sensor series and modulates video and sound."""

    width: Count = 128
    """Channels of the series inside the network."""
    layers: Count = 2
    """Mamba layers."""
    state: Count = 16
    """Numbers of the state of each inner channel."""
    convolution: Count = 4
    """Steps of the causal convolution before each scan."""
    expand: Count = 2
    """Inner channels as a multiple of ``width``."""


class LossConfig(Section):
    """Weights of the parts of the loss beside the cosine distance, whose weight is 1."""

    l1: Weight = 10.0
    """Mean absolute difference of prediction and result."""
    gram: Weight = 1.0
    """Difference of the Gram matrices of prediction and result, each divided by the width."""
    gram_reduction: Literal["sum", "mean"] = "sum"
    """Whether the squared differences of the Gram matrices are summed over their entries (squared Frobenius
    norm), or averaged."""
    text: Weight = 0.01
    """Cosine distance of the projected prediction and the encoded sentence; 0: no projection is made."""


class CausalFiLMConfig(MethodSection):
    """Settings of Causal-FiLM."""

    section_defaults: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "train": {
            "epochs": 100,
            "batch_size": 32,
            "optimizer": {"name": "adamw"},
            "lr": 2e-5,
            "weight_decay": 1e-2,
            "schedule": {"name": "cosine", "final": 0.005},
            "warmup": 0.08,
            "warmup_from": 0.025,
            "clip_norm": 0.5,
            "ema": 0.9999,
            "eval_every": 1,
            "patience": 25,
            "overfit_alarm": 0.05,
        },
        "eval": {"batch_size": 32, "threshold": "validation-youden"},
        "teacher": {"encoder": "weld"},
    }
    uses_view_dropout: ClassVar[bool] = True

    name: Literal["causal-film"] = "causal-film"
    width: Annotated[int, Field(gt=0, multiple_of=2)] = 512
    """Channels of the embeddings that are compared."""
    poolings: Annotated[tuple[PoolingConfig, ...], Field(min_length=1)] = (
        PoolingConfig(array="img_b20", pool="mean"),
        PoolingConfig(array="img_b20", pool="gem"),
        PoolingConfig(array="img_b31_mean", pool="none"),
    )
    """Vectors of a still that are concatenated."""
    gem_exponent: Annotated[float, Field(ge=1)] = 3.0
    """Initial exponent of each generalized mean."""
    views: Literal["max", "mean"] = "max"
    """How the embeddings of the present stills become one."""
    sensor: SensorConfig = SensorConfig()
    layers: Count = 2
    """Transformer layers in which video asks sound."""
    attention_heads: Count = 4
    feedforward: Count = 1024
    """Hidden width of the feed-forward part of each layer."""
    dropout: Share = 0.1
    """Dropout inside the transformer."""
    decoder_dropout: Share = 0.1
    """Dropout inside the decoder of the prediction."""
    mask: Share = 0.2
    """Share of the values of video and sound that are zeroed while training; the others are scaled up."""
    feature_dropout: Share = 0.2
    """Dropout of the values of video and sound that ``mask`` leaves."""
    input_dropout: Share = 0.0
    """Probability with which a sample loses each of video, sound and sensors while training; one that would
    lose all of them keeps all."""
    target: Literal["joint", "detach", "ema"] = "joint"
    """``joint``: prediction and result are both trained to agree. ``detach``: the result's encoder keeps its
    random initial weights, so that it cannot collapse. ``ema``: the prediction is trained to agree with a
    slowly following copy of the result's encoder, and that encoder with the prediction as it is."""
    target_decay: Share = 0.99
    """Decay of the copy of ``target: ema``, per batch."""
    loss: LossConfig = LossConfig()
    score_weight: Weight = 10.0
    """Weight of the mean of the largest half of the absolute differences in the score; the cosine distance
    has the weight 1."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.width % self.attention_heads:
            raise ValueError(f"attention_heads: {self.attention_heads} does not divide width: {self.width}")
        return self
