"""The feature maps that IDIF distills, shallow to deep."""

from dataclasses import dataclass

from idif.data.features import FeatureSpec
from idif.errors import ConfigError


@dataclass(frozen=True)
class LayerSpec:
    """One feature map of every view."""

    name: str
    channels: int
    stride: int
    """Image pixels per feature position along each axis."""

    def shape(self, image_size: int) -> tuple[int, int, int]:
        """(C, h, w) of one view, for square images of this size."""
        return self.channels, image_size // self.stride, image_size // self.stride


def feature_layers(features: FeatureSpec) -> tuple[LayerSpec, ...]:
    """The feature maps of a source, in its order.

    Raises:
        ConfigError: there are no images, or an array is not a feature map of every view.
    """
    if features.image_size is None:
        raise ConfigError("method.name: idif needs images and feature maps of every view; there are none")
    layers = []
    for array in features.features.values():
        if not array.is_feature_map:
            raise ConfigError(
                f"method.name: idif needs feature maps of every view (channel, y, x); {array.name} has the "
                f"axes {', '.join(array.axes)}"
            )
        layers.append(LayerSpec(array.name, array.shape[0], features.image_size // array.shape[-1]))
    return tuple(layers)
