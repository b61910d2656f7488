"""`Stacking`: the feature maps of a view as one map of vectors, and maps of scores at the image's size."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from idif.data.arrays import ArraySpec
from idif.data.features import FeatureSpec
from idif.errors import ConfigError
from idif.methods.memory.config import StackingConfig

FINEST = 8
"""Image pixels that a position of the grid covers at least, along each axis, unless ``grid`` is given."""
TRUNCATE = 4.0
"""Standard deviations after which the Gaussian is cut off."""


class Stacking(nn.Module):
    """Averages feature maps over neighboring positions, resamples them to one grid and concatenates them."""

    upsampling: Tensor
    """float32 [H,g]: resamples a map of scores to the image along one axis, and smooths it."""

    def __init__(self, config: StackingConfig, features: FeatureSpec) -> None:
        """A stacking of the source's maps.

        Raises:
            ConfigError: the source has no images, lacks a layer, or a layer is no map of every view.
        """
        super().__init__()
        layers = chosen_layers(config, features)
        assert features.image_size is not None
        self.names = tuple(layer.name for layer in layers)
        self.dimensions = sum(layer.shape[0] for layer in layers)
        self.grid = config.grid or _default_grid(layers, features.image_size)
        self.pooling, self.unit_length = config.pooling, config.unit_length
        self.pads_zeros = config.border == "zeros"
        self.register_buffer(
            "upsampling", _upsampling(self.grid, features.image_size, config.smoothing), persistent=False
        )

    def forward(self, features: Mapping[str, Tensor]) -> Tensor:
        """{layer: [P,C,h,w]} of P views -> float32 [P,D,g,g]."""
        return torch.cat([self._prepared(features[name].float()) for name in self.names], dim=1)

    def to_image(self, maps: Tensor) -> Tensor:
        """Maps float32 [...,g,g] at the image's size [...,H,W], smoothed."""
        return self.upsampling @ maps @ self.upsampling.T

    def _prepared(self, maps: Tensor) -> Tensor:
        if self.unit_length:
            maps = F.normalize(maps, dim=1)
        if self.pooling > 1:
            around = self.pooling // 2
            maps = F.avg_pool2d(maps, self.pooling, 1, around, count_include_pad=self.pads_zeros)
        side = maps.shape[-1]
        if side == self.grid:
            return maps
        if side % self.grid == 0:
            return F.avg_pool2d(maps, side // self.grid)
        return F.interpolate(maps, (self.grid, self.grid), mode="bilinear", align_corners=False)


def chosen_layers(config: StackingConfig, features: FeatureSpec) -> list[ArraySpec]:
    """The feature maps that a config names, by default all of the source.

    Raises:
        ConfigError: the source has no images, lacks a layer, or a layer is no square map of every view.
    """
    if features.image_size is None:
        raise ConfigError(
            f"method.name: {config.name} needs images and feature maps of views; there are none"
        )
    maps = {
        name: array
        for name, array in features.features.items()
        if array.is_feature_map and array.shape[1] == array.shape[2]
    }
    names = tuple(maps) if config.layers is None else config.layers
    for name in names:
        if name not in maps:
            raise ConfigError(
                f"method.layers: {name!r} is not among the feature maps of every view: {', '.join(maps)}"
            )
    if not names:
        raise ConfigError(f"method.layers: {config.name} needs a feature map of every view; there is none")
    return [maps[name] for name in names]


def _default_grid(layers: list[ArraySpec], image_size: int) -> int:
    sides = sorted(layer.shape[-1] for layer in layers)
    return max((side for side in sides if side * FINEST <= image_size), default=sides[0])


def _upsampling(grid: int, size: int, smoothing: float) -> Tensor:
    """The matrix [size,grid] of linear interpolation, then of a Gaussian with reflection at the ends."""
    matrix = F.interpolate(torch.eye(grid)[None], size=size, mode="linear", align_corners=False)[0].T
    if smoothing == 0:
        return matrix.contiguous()
    radius = min(round(TRUNCATE * smoothing), size - 1)
    offsets = torch.arange(-radius, radius + 1, dtype=torch.float64)
    kernel = torch.exp(-0.5 * (offsets / smoothing) ** 2)
    kernel = (kernel / kernel.sum()).float()
    columns = F.pad(matrix.T[:, None], (radius, radius), mode="reflect")
    return F.conv1d(columns, kernel[None, None])[:, 0].T.contiguous()
