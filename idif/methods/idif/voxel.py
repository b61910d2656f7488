"""Implicit voxel construction: one volume from all kept views by masked-view attention (Eq. 7, 11, 12)."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def position_code(height: int, width: int, channels: int, like: Tensor) -> Tensor:
    """Sine-cosine code of a height x width grid, [height*width, channels], of ``like``'s type and device.

    Positions run over 0..1 along both axes, so that the code means the same at every image size.
    """
    quarter = channels // 4
    octave = torch.arange(quarter, device=like.device) / max(quarter - 1, 1)
    frequency = math.pi * 2 ** (octave * 5)
    y = (torch.arange(height, device=like.device) + 0.5) / height
    x = (torch.arange(width, device=like.device) + 0.5) / width
    rows = (y[:, None] * frequency)[:, None].expand(height, width, quarter)
    columns = (x[:, None] * frequency)[None].expand(height, width, quarter)
    code = torch.cat([rows.sin(), rows.cos(), columns.sin(), columns.cos()], dim=-1)
    return F.pad(code, (0, channels - 4 * quarter)).view(height * width, channels).to(like.dtype)


class Attention(nn.Module):
    """Multi-head attention; keys where ``key_mask`` is false get -inf (Eq. 12)."""

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(channels, channels)
        self.key = nn.Linear(channels, channels)
        self.value = nn.Linear(channels, channels)
        self.out = nn.Linear(channels, channels)

    def forward(self, queries: Tensor, keys: Tensor, values: Tensor, key_mask: Tensor | None) -> Tensor:
        """queries [B,N,d] or [1,N,d], keys and values [B,M,d], key_mask bool [B,M] or None -> [B,N,d]."""
        q, k, v = (
            t.view(*t.shape[:2], self.heads, -1).transpose(1, 2)
            for t in (self.query(queries), self.key(keys), self.value(values))
        )
        mask = None if key_mask is None else key_mask[:, None, None, :]
        q = q.expand(k.shape[0], -1, -1, -1)
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        projected: Tensor = self.out(mixed.transpose(1, 2).flatten(2))
        return projected


def feed_forward(channels: int) -> nn.Sequential:
    """FFN of Eq. 7, pre-norm."""
    return nn.Sequential(
        nn.LayerNorm(channels),
        nn.Linear(channels, 4 * channels),
        nn.GELU(),
        nn.Linear(4 * channels, channels),
    )


class FusionBlock(nn.Module):
    """P' = FFN(SA(P)), P = FFN(CA(P', f_s)) (Eq. 7), as pre-norm residual steps."""

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.self_norm, self.cross_norm = nn.LayerNorm(channels), nn.LayerNorm(channels)
        self.self_attention = Attention(channels, heads)
        self.cross_attention = Attention(channels, heads)
        self.after_self, self.after_cross = feed_forward(channels), feed_forward(channels)

    def forward(
        self,
        voxels: Tensor,
        voxel_code: Tensor,
        tokens: Tensor,
        token_code: Tensor,
        token_mask: Tensor | None,
    ) -> Tensor:
        """P [B,N,d] from voxels [B,N,d], or [1,N,d] if shared by all samples.

        voxel_code [N,d], tokens [B,M,d], token_code [M,d] or [B,M,d]; token_mask bool [B,M], or None to take
        every token.
        """
        x = self.self_norm(voxels)
        voxels = voxels + self.self_attention(x + voxel_code, x + voxel_code, x, None)
        voxels = voxels + self.after_self(voxels)
        x = self.cross_norm(voxels)
        voxels = voxels + self.cross_attention(x + voxel_code, tokens + token_code, tokens, token_mask)
        fused: Tensor = voxels + self.after_cross(voxels)
        return fused


class VoxelConstruction(nn.Module):
    """The volume P [B,d,D,H,W] of a sample, from f_s [B,V,C,h,w] of its kept views.

    Starts from a learned prototype P0 [D*H*W, d]. A token is one position of one view (patch size 1);
    tokens carry a sine-cosine code of the position and a learned code of the view.
    """

    def __init__(
        self, views: int, channels: int, grid: tuple[int, int, int], width: int, blocks: int, heads: int
    ) -> None:
        super().__init__()
        self.grid = grid
        count = math.prod(grid)
        self.prototype = nn.Parameter(torch.randn(count, width) * 0.02)
        self.voxel_code = nn.Parameter(torch.randn(count, width) * 0.02)
        self.view_code = nn.Parameter(torch.randn(views, width) * 0.02)
        self.embed = nn.Sequential(nn.Linear(channels, width), nn.LayerNorm(width))
        self.blocks = nn.ModuleList(FusionBlock(width, heads) for _ in range(blocks))

    def forward(self, specific: Tensor, view_mask: Tensor) -> Tensor:
        """f_s [B,V,C,h,w], view_mask bool [B,V] -> P [B,d,D,H,W].

        The keys of a dropped view get -inf, so its values have no influence.
        """
        batch, _, _, height, width = specific.shape
        tokens = self.embed(specific.flatten(3).transpose(2, 3)).flatten(1, 2)
        code = position_code(height, width, self.view_code.shape[1], self.view_code)
        token_code = (self.view_code[:, None] + code[None]).flatten(0, 1)
        token_mask = view_mask.repeat_interleave(height * width, dim=1)
        voxels = self.prototype.expand(batch, -1, -1)
        for block in self.blocks:
            voxels = block(voxels, self.voxel_code, tokens, token_code, token_mask)
        return voxels.transpose(1, 2).reshape(batch, -1, *self.grid)

    def forward_kept(self, specific: Tensor, slots: Tensor) -> Tensor:
        """As `forward`, from the kept views; work that depends on the prototype only is done once.

        Args:
            specific: f_s [N,n,C,h,w] of the n kept views of each of N samples.
            slots: int64 [N,n], the slots of these views.

        Returns:
            P [N,d,D,H,W].
        """
        count, _, _, height, width = specific.shape
        tokens = self.embed(specific.flatten(3).transpose(2, 3)).flatten(1, 2)
        code = position_code(height, width, self.view_code.shape[1], self.view_code)
        token_code = (self.view_code[slots][:, :, None] + code).flatten(1, 2)
        voxels = self.prototype[None]
        for block in self.blocks:
            voxels = block(voxels, self.voxel_code, tokens, token_code, None)
        return voxels.transpose(1, 2).reshape(count, -1, *self.grid)
