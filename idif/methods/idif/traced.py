"""IDIF at test as a graph that can be exported: no shape and no branch depends on which views are there."""

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from idif.encoders.resnet import normalize
from idif.methods.idif.encoder import StudentEncoder
from idif.methods.idif.feature_distance import combine_maps

if TYPE_CHECKING:
    from idif.methods.idif.model import IDIF


class TracedStudent(nn.Module):
    """What the student of an `IDIF` in eval mode says the teacher's features are.

    All views are encoded, where `IDIF` encodes those that are there: at test a view's feature depends on no
    other view. The volume is turned by matrices that are computed once, so that no resampling is left in
    the graph.
    """

    turns: Tensor

    def __init__(self, model: "IDIF") -> None:
        super().__init__()
        assert not model.training, "batch statistics cannot be exported"
        self.encoder, self.bottleneck, self.decoders = model.encoder, model.bottleneck, model.decoders
        self.voxel, self.transform, self.conv3d = model.voxel, model.transform, model.conv3d
        if model.voxel is not None and model.transform is not None:
            self.register_buffer("turns", model.transform.rotation_operators(model.voxel.grid).detach())

    def forward(self, images: Tensor, features: dict[str, Tensor], view_mask: Tensor) -> dict[str, Tensor]:
        """{layer: [B,V,C,h,w]}, of the sizes of ``features``; of no meaning on absent views.

        Args:
            images: float32 [B,V,3,H,W] in 0..1, finite on absent views too.
            features: {layer: [B,V,C,h,w]}; only their sizes matter here.
            view_mask: bool [B,V].
        """
        f_e = encode_all(self.encoder, images).contiguous()
        common = None
        if self.bottleneck is None:
            specific = f_e * view_mask[:, :, None, None, None]
        else:
            common, specific, _ = self.bottleneck(f_e, view_mask)
        fused = specific
        if self.voxel is not None and self.transform is not None:
            volume = self.voxel(specific, view_mask)
            turned = (volume.flatten(2)[:, None] @ self.turns).unflatten(-1, self.voxel.grid)
            size = (f_e.shape[-2], f_e.shape[-1])
            fused = self.transform.collapse_depth(turned.flatten(0, 1), size).view_as(f_e)
        elif self.conv3d is not None:
            fused = self.conv3d(specific, view_mask)
        if common is not None:
            fused = fused + common[:, None]
        sizes = {name: (f.shape[-2], f.shape[-1]) for name, f in features.items()}
        student: dict[str, Tensor] = self.decoders(fused, sizes)
        return student


class TracedIDIF(nn.Module):
    """The maps of `IDIF.encode` and `IDIF.anomaly_maps`, of a model in eval mode."""

    def __init__(self, model: "IDIF") -> None:
        super().__init__()
        self.student, self.combine = TracedStudent(model), model.config.combine

    def forward(self, images: Tensor, features: dict[str, Tensor], view_mask: Tensor) -> Tensor:
        """Maps float32 [B,V,H,W], zero on absent views and on all of a sample without any.

        Takes what `TracedStudent` takes.
        """
        student = self.student(images, features, view_mask)
        size = (images.shape[-2], images.shape[-1])
        maps = combine_maps(student, features, view_mask, size, self.combine)
        # a sample without views has no mean over views: its maps are not finite before this
        return maps.masked_fill(~view_mask[:, :, None, None], 0.0)


def encode_all(encoder: StudentEncoder, images: Tensor) -> Tensor:
    """f_E [B,V,C,h,w] of every view of ``images`` [B,V,3,H,W], there or not."""
    views, pixels = images.shape[1], normalize(images)
    if len(encoder.trunks) > 1:
        return torch.stack([trunk(pixels[:, view]) for view, trunk in enumerate(encoder.trunks)], dim=1)
    # the trunk's weights are channels last, and so is what it gives
    shared: Tensor = encoder.trunks[0](pixels.flatten(0, 1)).contiguous()
    return shared.view(-1, views, *shared.shape[1:])
