"""The student encoder F_E: each view's image to its feature f_E (paper: shared by the views)."""

import torch
from torch import Tensor, nn

from idif.encoders.preparation import normalize
from idif.methods.idif.norm import Norm, norm_layer


def _trunk(stages: int, norm: Norm) -> nn.Sequential:
    """ResNet18 from conv1 to the last of its stages, from scratch."""
    # imported where it is used: commands that build no student save seconds
    from torchvision.models import resnet18

    net = resnet18(weights=None, norm_layer=norm_layer(norm))
    every = (net.layer1, net.layer2, net.layer3, net.layer4)
    return nn.Sequential(net.conv1, net.bn1, net.relu, net.maxpool, *every[:stages])


class StudentEncoder(nn.Module):
    """f_E [B,V,C,h,w] from images float32 [B,V,3,H,W] in 0..1.

    With 3 stages C = 256 and h = H/16, with 4 C = 512 and h = H/32, rounded up. Only the views of
    ``view_mask`` are encoded: a dropped view cannot act through batch statistics; its feature is zero.
    """

    def __init__(self, views: int, norm: Norm, *, shared: bool, stages: int = 3) -> None:
        super().__init__()
        self.channels, self.stride = 32 * 2**stages, 2 * 2**stages
        self.trunks = nn.ModuleList(_trunk(stages, norm) for _ in range(1 if shared else views))

    def forward(self, images: Tensor, view_mask: Tensor) -> Tensor:
        """See the class."""
        batch, views, _, height, width = images.shape
        # strided convolutions round up
        size = (-(-height // self.stride), -(-width // self.stride))
        f_e = images.new_zeros(batch, views, self.channels, *size)
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
