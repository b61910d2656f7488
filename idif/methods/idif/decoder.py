"""The decoders of all views, as one grouped reversed ResNet with the teacher's three scales (Eq. 9)."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from idif.methods.idif.layers import LayerSpec
from idif.methods.idif.mean_features import MeanFeatures
from idif.methods.idif.norm import Norm, norm_layer


class GroupedBasicBlock(nn.Module):
    """ResNet's basic block, grouped by V views: [B,V*C,h,w] -> [B,V*C,h,w]; views do not mix."""

    def __init__(self, views: int, channels: int, norm: Norm) -> None:
        super().__init__()
        make_norm, total = norm_layer(norm, views), views * channels
        self.conv1 = nn.Conv2d(total, total, 3, padding=1, groups=views, bias=False)
        self.norm1: nn.Module = make_norm(total)
        self.conv2 = nn.Conv2d(total, total, 3, padding=1, groups=views, bias=False)
        self.norm2: nn.Module = make_norm(total)

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        y = F.relu(self.norm1(self.conv1(x)), inplace=True)
        return F.relu(self.norm2(self.conv2(y)) + x, inplace=True)


class ViewDecoders(nn.Module):
    """V decoders of the same shape as one grouped computation: [B,V,C,h,w] -> {layer: [B,V,C',h',w']}.

    From deep to shallow: narrow by 1x1, upsample bilinearly, residual blocks, and a 1x1 to each layer's
    features. There is no skip connection from the corrupted encoder: it would pass the anomaly on to
    the output.
    """

    def __init__(
        self,
        views: int,
        channels: int,
        layers: Sequence[LayerSpec],
        blocks: int,
        norm: Norm,
        *,
        mean_prior: bool = False,
    ) -> None:
        """New decoders.

        Args:
            views: V.
            channels: C of the decoder input.
            layers: the feature maps to predict.
            blocks: residual blocks per scale.
            norm: kind of normalization.
            mean_prior: whether the output is a deviation from ``means``, at first zero.
        """
        super().__init__()
        self._sizes = (channels, blocks, norm)
        # a benchmark sets the other layout for comparison
        self.memory_format = torch.channels_last
        self.views, self.layers = views, tuple(sorted(layers, key=lambda layer: -layer.stride))
        make_norm = norm_layer(norm, views)
        self.narrow, self.refine, self.emit = nn.ModuleList(), nn.ModuleList(), nn.ModuleList()
        before = channels
        for layer in self.layers:
            total = views * layer.channels
            self.narrow.append(
                nn.Sequential(nn.Conv2d(views * before, total, 1, groups=views, bias=False), make_norm(total))
            )
            self.refine.append(
                nn.Sequential(*(GroupedBasicBlock(views, layer.channels, norm) for _ in range(blocks)))
            )
            self.emit.append(nn.Conv2d(total, total, 1, groups=views))
            before = layer.channels
        self.means: MeanFeatures | None = None
        if mean_prior:
            self.means = MeanFeatures(views, self.layers)
            for emit in self.emit:
                assert isinstance(emit, nn.Conv2d)
                assert emit.bias is not None
                nn.init.zeros_(emit.weight)
                nn.init.zeros_(emit.bias)

    def forward(self, fused: Tensor, sizes: dict[str, tuple[int, int]]) -> dict[str, Tensor]:
        """``fused`` [B,V,C,h,w] and each layer's (h', w') -> {layer: [B,V,C',h',w']}."""
        x = fused.flatten(1, 2).contiguous(memory_format=self.memory_format)
        out: dict[str, Tensor] = {}
        for layer, narrow, refine, emit in zip(self.layers, self.narrow, self.refine, self.emit, strict=True):
            x = narrow(x)
            if x.shape[-2:] != sizes[layer.name]:
                x = F.interpolate(x, size=sizes[layer.name], mode="bilinear", align_corners=False)
            x = refine(F.relu(x))
            predicted = emit(x).unflatten(1, (self.views, layer.channels))
            out[layer.name] = predicted if self.means is None else self.means(layer.name, predicted)
        return out

    def single_view(self, slot: int) -> "ViewDecoders":
        """A copy of the decoder of one view slot, a `ViewDecoders` of one view, in eval mode.

        Every parameter contains the views along its first axis.
        """
        channels, blocks, norm = self._sizes
        with torch.device("meta"):
            prior = self.means is not None
            single = ViewDecoders(1, channels, self.layers, blocks, norm, mean_prior=prior)
        mine = {
            name: value.detach().chunk(self.views)[slot] if value.ndim else value
            for name, value in self.state_dict().items()
        }
        single.load_state_dict(mine, assign=True)
        single.eval()
        for narrow in single.narrow:
            assert isinstance(narrow, nn.Sequential)
            narrow[0], narrow[1] = _folded(narrow[0], narrow[1])
        for block in single.refine.modules():
            if isinstance(block, GroupedBasicBlock):
                block.conv1, block.norm1 = _folded(block.conv1, block.norm1)
                block.conv2, block.norm2 = _folded(block.conv2, block.norm2)
        return single.to(memory_format=torch.channels_last)


def _folded(conv: nn.Module, norm: nn.Module) -> tuple[nn.Conv2d, nn.Module]:
    """Fold a batch norm in eval mode into the convolution; other norms are returned unchanged."""
    assert isinstance(conv, nn.Conv2d)
    if not isinstance(norm, nn.BatchNorm2d):
        return conv, norm
    return fuse_conv_bn_eval(conv, norm), nn.Identity()
