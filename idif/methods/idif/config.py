"""The config section of IDIF."""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from idif.methods.section import MethodSection
from idif.settings import Count, Section


class VoxelConfig(Section):
    """The implicit voxel grid."""

    depth: Count = 4
    height: Count = 8
    width: Count = 8
    channels: Count = 256
    """Width d of a voxel prototype."""


class IDIFConfig(MethodSection):
    """Settings of IDIF, including choices that the paper leaves open."""

    uses_corruption: ClassVar[bool] = True
    uses_view_dropout: ClassVar[bool] = True
    earlier_values: ClassVar[Mapping[str, Any]] = {"pyramid": "deeplab"}

    name: Literal["idif"] = "idif"
    fusion: Literal["ivc", "conv3d", "none"] = "ivc"
    """Fusion of the views: implicit voxel construction, 3D convolutions over stacked views, or none."""
    bottleneck: bool = True
    """Whether a consistency bottleneck splits features into common and specific ones."""
    head: Literal["cosine", "segmentation"] = "cosine"
    """Computes maps from features. ``segmentation`` is DeSTSeg's network, trained for ``head_epochs`` after
    the student; that stage runs the teacher on corrupted images, at the cost of a live teacher. With it set
    ``eval.score: topk`` and ``eval.top_k: 100``, or ``eval.score: method``, which is the paper's view score;
    ``max`` stays the default."""
    head_epochs: Count = 20
    """Epochs of the second stage of ``head: segmentation``."""
    head_steps: Count | None = None
    """Optimizer steps of that stage; ``head_epochs`` then do not count. null: ``head_epochs`` decide."""
    pyramid: Literal["destseg", "deeplab"] = "destseg"
    """Spatial pyramid of that network: DeSTSeg's, or DeepLabv3's, which earlier versions had."""
    encoder: Literal["shared", "per-view"] = "shared"
    """One student encoder for all views, or one for each."""
    encoder_stages: Literal[3, 4] = 3
    """Stages of that encoder, a ResNet18: 3 end at 256 channels and 1/16 of the image's size; 4, DeSTSeg's,
    at 512 channels and 1/32."""
    norm: Literal["batch", "group"] = "batch"
    """``group`` makes every sample independent of its batch."""
    latent_channels: Count | None = None
    """Channels of the common feature's latent; None keeps the encoder's."""
    voxel: VoxelConfig = VoxelConfig()
    blocks: Count = 2
    """Fusion blocks."""
    attention_heads: Count = 8
    decoder_blocks: Count = 1
    """Residual blocks per scale of the decoder."""
    mean_prior: bool = False
    """Whether the decoders predict the deviation from the mean training feature of each camera and position,
    at first none, instead of the feature. For small budgets, and parts that lie alike in every image."""
    kl_weight: Annotated[float, Field(ge=0)] = 1e-3
    """Weight of the KL to N(0,1) inside the bottleneck's loss; 0 gives Eq. 5 exactly."""
    distill_weight: Annotated[float, Field(ge=0)] = 1.0
    """alpha of Eq. 10."""
    ib_weight: Annotated[float, Field(ge=0)] = 1.0
    """beta of Eq. 10."""
    combine: Literal["mean", "product"] = "mean"
    """Combination of the maps of the three scales into one."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.voxel.channels % self.attention_heads:
            raise ValueError(
                f"attention_heads: {self.attention_heads} does not divide voxel.channels: "
                f"{self.voxel.channels}"
            )
        return self
