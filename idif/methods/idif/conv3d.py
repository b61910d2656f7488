"""Fusion by 3D convolutions over the stacked views, in the manner of Pix2Vox (Table 3, dkd+3dconv)."""

import torch.nn.functional as F
from torch import Tensor, nn


class Conv3dFusion(nn.Module):
    """f_p [B,V,C,h,w] from f [B,V,C,h,w]: the views along a new axis, mixed by residual 3D convolutions."""

    def __init__(self, channels: int, blocks: int) -> None:
        super().__init__()
        groups = max(1, channels // 16)
        self.blocks = nn.ModuleList(
            nn.Sequential(
                nn.Conv3d(channels, channels // 2, 3, padding=1, bias=False),
                nn.GroupNorm(max(1, groups // 2), channels // 2),
                nn.ReLU(inplace=True),
                nn.Conv3d(channels // 2, channels, 3, padding=1, bias=False),
                nn.GroupNorm(groups, channels),
            )
            for _ in range(blocks)
        )

    def forward(self, features: Tensor, view_mask: Tensor) -> Tensor:
        """See the class; dropped views are zero in the input and output of every convolution."""
        keep = view_mask[:, None, :, None, None].to(features.dtype)
        x = features.transpose(1, 2) * keep
        for block in self.blocks:
            x = F.relu(x + block(x)) * keep
        return x.transpose(1, 2)
