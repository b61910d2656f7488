"""The `MethodSpec` of UniAD."""

from typing import Any

from idif.data.features import FeatureSpec, check_arrays
from idif.errors import ConfigError
from idif.methods.protocol import Method, MethodContext, MethodSpec, ResourceRequest, Stage
from idif.methods.uniad.config import NeighborMaskConfig, UniADConfig
from idif.methods.uniad.import_weights import import_weights
from idif.methods.uniad.model import ALIGNED, UniAD
from idif.methods.uniad.neighbor_mask import neighbors


def feature_shape(config: UniADConfig, features: FeatureSpec) -> tuple[int, int, int]:
    """(C, h, w) of the features to reconstruct.

    Raises:
        StoreMismatch: there is no array `ALIGNED`.
        ConfigError: it is no feature map of every view, the image size is no multiple of its grid, or the
            pooling window does not fit into a map.
    """
    check_arrays((ALIGNED,), features)
    array, size = features.arrays[ALIGNED], features.image_size
    if not array.is_feature_map or size is None:
        raise ConfigError(
            f"method.name: uniad needs feature maps (channel, y, x) of images; {ALIGNED} has the axes "
            f"{', '.join(array.axes)}"
        )
    channels, h, w = array.shape
    if size % h or size % w:
        raise ConfigError(
            f"teacher.image_size: expected a multiple of the {h}x{w} grid of {ALIGNED}, got {size}"
        )
    if config.view_score == "pooled-max" and config.pool > size:
        raise ConfigError(f"method.pool: expected at most the image size {size}, got {config.pool}")
    return channels, h, w


def build_uniad(config: UniADConfig, context: MethodContext) -> Method:
    """UniAD for the features of a source.

    Raises:
        StoreMismatch: they lack the array that it reads.
        ConfigError: their grid does not fit the image size or the neighbor mask.
    """
    shape, size = feature_shape(config, context.features), context.features.image_size
    assert size is not None
    return UniAD(config, shape, size, context.view_dropout)


def _resources(config: UniADConfig, request: ResourceRequest) -> dict[str, Any]:
    """None; features that do not fit are refused here, before a run's folder is written."""
    _, h, w = feature_shape(config, request.features)
    if config.neighbor_mask.used:
        neighbors((h, w), config.neighbor_mask.size)
    return {}


def _smallest() -> UniADConfig:
    """A config for tests and the smoke test: trains in seconds, on grids from 2x2."""
    mask = NeighborMaskConfig(size=(1, 1))
    return UniADConfig(
        width=16,
        attention_heads=2,
        feedforward=32,
        encoder_layers=1,
        decoder_layers=2,
        neighbor_mask=mask,
        pool=4,
    )


UNIAD_SPEC = MethodSpec(
    build=build_uniad,
    stages=lambda config: (Stage("uniad", config),),
    resources=_resources,
    smallest=_smallest,
    import_weights=import_weights,
)
