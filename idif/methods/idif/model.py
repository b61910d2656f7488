"""IDIF put together: encoder, consistency bottleneck, voxel, view transform, decoders (Fig. 2)."""

from typing import NamedTuple

import torch
from torch import Tensor

from idif.config import Config, MethodConfig
from idif.features import FeatureSpec, LayerSpec
from idif.methods.idif.bottleneck import ConsistencyBottleneck
from idif.methods.idif.conv3d import Conv3dFusion
from idif.methods.idif.decoder import ViewDecoders
from idif.methods.idif.distance import combine_maps, distillation_loss
from idif.methods.idif.encoder import STUDENT_CHANNELS, StudentEncoder
from idif.methods.idif.rotation import ViewTransform
from idif.methods.idif.voxel import VoxelConstruction
from idif.methods.method import Method


class Encoded(NamedTuple):
    """What `IDIF.encode` keeps of the images."""

    f_e: Tensor
    """[B,V,C,h,w], zero on absent views."""
    size: tuple[int, int]
    """(H, W) of the images, which the maps get."""


class IDIF(Method):
    """The student of IDIF. Shapes are in `idif.batch`'s legend; C = 256 and h = H/16 for f_E.

    With ``fusion: none`` and no bottleneck it is the baseline `dkd` (V denoisers); with ``conv3d``
    `dkd+3dconv`; with ``ivc`` and no bottleneck `dkd+ivc` (f_s = f_E and nothing is added to f_p).
    """

    def __init__(
        self,
        config: MethodConfig,
        layers: tuple[LayerSpec, ...],
        view_numbers: tuple[int, ...],
        rig: dict[int, tuple[float, float, float]],
    ) -> None:
        super().__init__()
        self.config = config
        views, c, voxel = len(view_numbers), STUDENT_CHANNELS, config.voxel
        self.encoder = StudentEncoder(views, config.norm, shared=config.encoder == "shared")
        self.bottleneck = (
            ConsistencyBottleneck(views, c, config.latent_channels, config.norm)
            if config.bottleneck
            else None
        )
        self.voxel: VoxelConstruction | None = None
        self.transform: ViewTransform | None = None
        self.conv3d: Conv3dFusion | None = None
        if config.fusion == "ivc":
            grid = (voxel.depth, voxel.height, voxel.width)
            self.voxel = VoxelConstruction(views, c, grid, voxel.channels, config.blocks, config.heads)
            self.transform = ViewTransform(view_numbers, rig, voxel.channels, voxel.depth, c)
        elif config.fusion == "conv3d":
            self.conv3d = Conv3dFusion(c, config.blocks)
        self.decoders = ViewDecoders(views, c, layers, config.decoder_blocks, config.norm)

    def fuse(self, f_e: Tensor, view_mask: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Decoder input [B,V,C,h,w] = f_p + f_c (Eq. 9), and the bottleneck's losses while training.

        Raises:
            ValueError: a sample without any view.
        """
        if not view_mask.any(dim=1).all():
            raise ValueError("a sample has all its views dropped; at least one must be kept")
        specific, common, losses = f_e * view_mask[:, :, None, None, None], None, {}
        if self.bottleneck is not None:
            common, specific, losses = self.bottleneck(f_e, view_mask)
        fused = specific
        if self.voxel is not None and self.transform is not None:
            fused = self.transform(self.voxel(specific, view_mask), f_e.shape[-2:])
        elif self.conv3d is not None:
            fused = self.conv3d(specific, view_mask)
        if common is not None:
            fused = fused + common[:, None]
        return fused, losses

    def _decode(
        self, f_e: Tensor, features: dict[str, Tensor], view_mask: Tensor
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        fused, losses = self.fuse(f_e, view_mask)
        sizes = {name: (f.shape[-2], f.shape[-1]) for name, f in features.items()}
        return self.decoders(fused, sizes), losses

    def forward(self, corrupted: Tensor, features: dict[str, Tensor], view_mask: Tensor) -> dict[str, Tensor]:
        """L = alpha L_distill + beta L_IB (Eq. 10), see `Method.forward`."""
        f_e = self.encoder(corrupted, view_mask)
        student, losses = self._decode(f_e, features, view_mask)
        losses = {"distill": distillation_loss(student, features, view_mask), **losses}
        total = self.config.distill_weight * losses["distill"]
        if self.bottleneck is not None:
            total = total + self.config.ib_weight * (losses["ib"] + self.config.kl_weight * losses["kl"])
        return {"loss": total, **losses}

    def encode(self, images: Tensor, view_mask: Tensor) -> Encoded:
        """See `Method.encode`."""
        return Encoded(self.encoder(images, view_mask), (images.shape[-2], images.shape[-1]))

    def anomaly_maps(self, encoded: Encoded, features: dict[str, Tensor], view_mask: Tensor) -> Tensor:
        """See `Method.anomaly_maps`."""
        student, _ = self._decode(encoded.f_e, features, view_mask)
        return combine_maps(student, features, view_mask, encoded.size, self.config.combine)


def build_idif(config: Config, spec: FeatureSpec, view_numbers: tuple[int, ...]) -> IDIF:
    """IDIF for a config, the features it distils and the cameras of the data."""
    model = IDIF(config.method, spec.layers, view_numbers, config.data.rig)
    return model.to(memory_format=torch.channels_last)
