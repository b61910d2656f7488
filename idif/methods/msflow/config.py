"""The config section of MSFlow."""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from idif.methods.section import MethodSection
from idif.settings import Count


class MSFlowConfig(MethodSection):
    """Settings of MSFlow, including choices of its authors that lie outside the network."""

    section_defaults: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "train": {
            "epochs": 25,
            "sub_epochs": 4,
            "batch_size": 8,
            "optimizer": {"name": "adam"},
            "lr": 1e-4,
            "weight_decay": 0.0,
            "warmup": 0.0,
            "schedule": {
                "name": "milestones",
                "unit": "sub_epoch",
                "milestones": [70, 90],
                "factor": 0.33,
                "warmup": 12,
                "warmup_start": 0.1,
            },
            "clip_norm": 2.0,
        },
        "eval": {"score": "method"},
        "teacher": {
            "encoder": "wide_resnet50_2",
            "image_size": 512,
            "neck": "average-pool",
            "padding": "reflect",
            "resize": "lanczos",
        },
    }
    uses_view_dropout: ClassVar[bool] = True

    name: Literal["msflow"] = "msflow"
    scales: tuple[str, ...] = ("p1", "p2", "p3")
    """Names of the feature maps, fine to coarse."""
    blocks: tuple[Count, ...] = (2, 5, 8)
    """Blocks of each scale's parallel flow."""
    position_channels: Annotated[int, Field(ge=4, multiple_of=4)] = 64
    """Channels of the position code that conditions the parallel flows."""
    permutation_seed: Annotated[int, Field(ge=0)] = 0
    """Seed of the fixed channel permutations, which checkpoints contain."""
    top_share: Annotated[float, Field(gt=0, le=1)] = 0.03
    """Share of the pixels of the product map whose mean is the view score of ``eval.score: method``."""
    region_map: Literal["product", "sum"] = "product"
    """Map that AUPRO is computed from: the authors' choice is the product map, while P-AUROC is that of the
    sum map."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if not self.scales or len(set(self.scales)) < len(self.scales):
            raise ValueError("scales: expected one or more different names")
        if len(self.blocks) != len(self.scales):
            raise ValueError(f"blocks: expected one number for each of the {len(self.scales)} scales")
        return self
