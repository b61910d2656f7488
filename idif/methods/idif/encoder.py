"""The student encoder F_E: each view's image to its feature f_E (paper: shared by the views)."""

import torch
from torch import Tensor, nn
from torchvision.models import resnet18

from idif.encoders.preparation import normalize
from idif.methods.idif.norm import Norm, norm_layer

STUDENT_CHANNELS = 256
"""C of f_E: ResNet18's layer3."""
STUDENT_STRIDE = 16


def _trunk(norm: Norm) -> nn.Sequential:
    """ResNet18 from conv1 to layer3, from scratch: [N,3,H,W] -> [N,256,H/16,W/16]."""
    net = resnet18(weights=None, norm_layer=norm_layer(norm))
    return nn.Sequential(net.conv1, net.bn1, net.relu, net.maxpool, net.layer1, net.layer2, net.layer3)


class StudentEncoder(nn.Module):
    """f_E [B,V,256,H/16,W/16] from images float32 [B,V,3,H,W] in 0..1.

    Only the views of ``view_mask`` are encoded, so that a dropped view cannot act through batch
    statistics; its feature is zero.
    """

    def __init__(self, views: int, norm: Norm, *, shared: bool) -> None:
        super().__init__()
        self.trunks = nn.ModuleList(_trunk(norm) for _ in range(1 if shared else views))

    def forward(self, images: Tensor, view_mask: Tensor) -> Tensor:
        """See the class."""
        batch, views, _, height, width = images.shape
        f_e = images.new_zeros(
            batch, views, STUDENT_CHANNELS, height // STUDENT_STRIDE, width // STUDENT_STRIDE
        )
        chosen = [view_mask]
        if len(self.trunks) > 1:
            slot = torch.arange(views, device=view_mask.device)
            chosen = [view_mask & (slot == view) for view in range(views)]
        for trunk, mask in zip(self.trunks, chosen, strict=True):
            kept = images[mask]
            if len(kept):
                encoded = trunk(normalize(kept).contiguous(memory_format=torch.channels_last))
                f_e = f_e.to(encoded.dtype)
                f_e[mask] = encoded
        return f_e
