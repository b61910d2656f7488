"""The config section of DeCo-Diff."""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, Self, get_args

from pydantic import Field, model_validator

from idif.methods.section import InferenceOption, MethodSection
from idif.settings import Count, Probability, Section

ReverseSteps = Literal[2, 3, 4, 5, 10]


class GatingConfig(Section):
    """Gates on the prediction and on the skip connections, which the authors' model does not have."""

    used: bool = False
    """Whether there are gates: one on the predicted deviation, one on each of the nine skip connections."""
    init: Literal["paper", "identity"] = "paper"
    """Initial gates: ``paper``, about 0.5, which halves prediction and skips and adds about 0.2 to fused
    scores; ``identity``, almost equal to the model without gates, for weights trained without."""
    loss: Annotated[float, Field(ge=0)] = 0.0
    """Weight of the binary cross entropy between the gate and the corrupted positions; 0: none."""
    at_inference: bool = True
    """Whether a finished model uses its gates; without them predictions and skip connections are whole, and
    there is no map of the gate."""


class DeCoDiffConfig(MethodSection):
    """Settings of DeCo-Diff."""

    section_defaults: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "cache": {"variants": ["plain", "shifted"]},
        "train": {
            "mode": "unified",
            "epochs": 800,
            "batch_size": 128,
            "accumulate": 2,
            "optimizer": {"name": "adamw"},
            "lr": 1e-4,
            "weight_decay": 1e-4,
            "schedule": {
                "name": "cosine",
                "unit": "epoch",
                "warmup": 10,
                "warmup_start": 0.0,
                "horizon": 1200,
            },
            "warmup": 0.0,
            "clip_norm": None,
            "precision": "float32",
        },
        "teacher": {
            "encoder": "sd_vae",
            "image_size": 256,
            "crop_from": 288,
            "resize": "bicubic",
        },
    }
    uses_view_dropout: ClassVar[bool] = True

    name: Literal["deco-diff"] = "deco-diff"
    size: Literal["XS", "S", "M", "L", "XL"] = "L"
    """Size of the network: 25, 99, 222, 395 or 613 million parameters with latents of 4 channels."""
    width: Annotated[int, Field(gt=0, multiple_of=32)] | None = None
    """Channels of the finest level instead of those of ``size``."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.4
    gating: GatingConfig = GatingConfig()
    sample_posterior: bool = True
    """Whether training draws each latent from the encoder's posterior, if it has one; else its mean."""
    patch_sizes: tuple[Count, ...] = (1, 2, 4, 8, 16)
    """Sides, in latent positions, of the patches that are corrupted or shuffled; divisors of the latents'."""
    patch_probabilities: tuple[Probability, ...] = (0.3, 0.25, 0.2, 0.15, 0.1)
    """Probability of each of ``patch_sizes``, drawn once for a batch."""
    corrupted: Probability = 0.7
    """Largest share of corrupted patches of an image; the share is uniform from 0."""
    shuffled: Probability = 0.3
    """Largest share of patches whose noise is replaced by a latent patch from anywhere in the batch."""
    reverse_steps: ReverseSteps = 5
    """Steps from the deviating latents to normal ones; of the ten noise levels every fifth, fourth, third,
    second or each."""
    map: Literal["geometric", "arithmetic", "image", "latent", "fused"] = "geometric"
    """The anomaly map: a mean of the differences of the images and of the latents, one of these, or 0.6 of
    the geometric mean and 0.4 of the gate. The others are stored and measured beside it."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if len(self.patch_probabilities) != len(self.patch_sizes):
            raise ValueError(
                f"patch_probabilities: expected one for each of the {len(self.patch_sizes)} patch_sizes"
            )
        if not self.patch_sizes or abs(sum(self.patch_probabilities) - 1) > 1e-6:
            raise ValueError("patch_probabilities: expected a sum of 1")
        if not self.gating.used and self.gating != GatingConfig():
            raise ValueError("gating: init and loss need gates: set gating.used")
        if self.map == "fused" and not self.gated:
            raise ValueError("map: fused needs gates: set gating.used and gating.at_inference")
        return self

    @property
    def gated(self) -> bool:
        """Whether a finished model uses gates."""
        return self.gating.used and self.gating.at_inference

    @property
    def inference_options(self) -> tuple[InferenceOption, ...]:
        """See `MethodSection.inference_options`; gates can be left out where there are any."""
        steps = InferenceOption("reverse_steps", "Reverse steps", "choice", get_args(ReverseSteps))
        gates = InferenceOption("gating.at_inference", "Gates", "toggle")
        # the map ``fused`` is made of the gate
        return (steps, gates) if self.gating.used and self.map != "fused" else (steps,)
