"""The consistency bottleneck: the feature common to all views of a sample (Eq. 5 and 6)."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from idif.methods.idif.norm import Norm, norm_layer
from idif.methods.view_mean import mean_over_kept

LOGVAR_RANGE = (-10.0, 10.0)
"""Range to which log variances are clamped, so that no exponential overflows early in training."""


class Decoupling(NamedTuple):
    """Output of the bottleneck."""

    common: Tensor
    """f_c [B,C,h,w]: one per sample."""
    specific: Tensor
    """f_s [B,V,C,h,w] = f_E - f_c on the kept views, zero on dropped ones."""
    losses: dict[str, Tensor]
    """Scalars ``ib`` (Eq. 5) and ``kl``."""


class ConsistencyBottleneck(nn.Module):
    """Splits f_E [B,V,C,h,w] into a common feature f_c [B,C,h,w] per sample and a specific one per view.

    p(f_c | f_E) = N(mu(f_E), Sigma(f_E)) over all views together (V*C channels in, one view's shape
    out), sampled while training, its mean at test. q predicts every view's f_E from f_c; -log q of a
    Gaussian is the mean squared error over the kept views. Its target takes no gradient: otherwise the
    encoder could meet the bound by discarding information.
    """

    def __init__(self, views: int, channels: int, latent_channels: int | None, norm: Norm) -> None:
        super().__init__()
        latent = latent_channels or channels
        make_norm = norm_layer(norm)
        self.views, self.channels = views, channels
        self.merge = nn.Sequential(
            nn.Conv2d(views * channels, channels, 1, bias=False),
            make_norm(channels),
            nn.ReLU(inplace=True),
            nn.Conv2d(channels, channels, 3, padding=1, bias=False),
            make_norm(channels),
            nn.ReLU(inplace=True),
        )
        self.mean = nn.Conv2d(channels, latent, 1)
        self.logvar = nn.Conv2d(channels, latent, 1)
        # a small spread at the start, so that the first steps learn from f_c rather than from noise
        nn.init.zeros_(self.logvar.weight)
        assert self.logvar.bias is not None
        nn.init.constant_(self.logvar.bias, -4.0)
        self.lift = nn.Identity() if latent == channels else nn.Conv2d(latent, channels, 1)
        self.reconstruct = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1, bias=False),
            make_norm(channels),
            nn.ReLU(inplace=True),
            nn.Conv2d(channels, views * channels, 1),
        )

    def forward(self, f_e: Tensor, view_mask: Tensor) -> Decoupling:
        """Decouple ``f_e`` [B,V,C,h,w]; views not in ``view_mask`` [B,V] enter as zeros.

        The kept views are scaled by V/kept, so that the input's magnitude does not depend on their number.
        """
        batch, views, channels, height, width = f_e.shape
        keep = view_mask[:, :, None, None, None].to(f_e.dtype)
        f_e = f_e * keep
        scale = views / keep.sum(dim=1, keepdim=True)
        merged = self.merge((f_e * scale).view(batch, views * channels, height, width))
        mean, logvar = self.mean(merged), self.logvar(merged).clamp(*LOGVAR_RANGE)
        latent = mean
        if self.training:
            latent = mean + torch.randn_like(mean) * (0.5 * logvar).exp()
        common = self.lift(latent)
        specific = (f_e - common[:, None]) * keep
        losses: dict[str, Tensor] = {}
        if self.training:
            predicted = self.reconstruct(common).view_as(f_e)
            error = ((predicted.float() - f_e.detach().float()) ** 2).mean(dim=(2, 3, 4))
            losses["ib"] = mean_over_kept(error, view_mask)
            m, s = mean.float(), logvar.float()
            losses["kl"] = 0.5 * (m**2 + s.exp() - s - 1).mean()
        return Decoupling(common, specific, losses)

    def per_view_contribution(self, f_e: Tensor) -> Tensor:
        """Contribution of each view of ``f_e`` [B,V,C,h,w] to the first layer's output: [B,V,C,h,w].

        That layer is linear and 1x1, so its output for any choice of views is a scaled sum of these.
        """
        first = self.merge[0]
        assert isinstance(first, nn.Conv2d)
        weight = first.weight.view(self.channels, self.views, self.channels, 1, 1).transpose(0, 1)
        added = F.conv2d(f_e.flatten(1, 2), weight.flatten(0, 1), groups=self.views)
        return added.view_as(f_e)

    def common_from_contributions(self, brought: Tensor) -> Tensor:
        """f_c [N,C,h,w] at test, from the contributions [N,n,C,h,w] of the n kept views of N samples."""
        merged = self.merge[1:](brought.sum(dim=1) * (self.views / brought.shape[1]))
        common: Tensor = self.lift(self.mean(merged))
        return common
