"""The `MethodSpec` of DeCo-Diff."""

from pathlib import Path
from typing import Any

from idif.data.features import FeatureSpec, check_arrays
from idif.encoders.autoencoder import LOGVAR, MU
from idif.encoders.frozen import FrozenEncoder
from idif.encoders.options import DECODED
from idif.errors import ConfigError
from idif.methods.deco_diff.config import DeCoDiffConfig
from idif.methods.deco_diff.import_weights import import_weights
from idif.methods.deco_diff.model import DeCoDiff
from idif.methods.deco_diff.unet import HALVED, SIZES, Size
from idif.methods.protocol import (
    ImportedWeights,
    Method,
    MethodContext,
    MethodSpec,
    ResourceRequest,
    Stage,
)


def latent_shape(config: DeCoDiffConfig, features: FeatureSpec) -> tuple[int, int, int]:
    """(C, h, w) of the latents.

    Raises:
        StoreMismatch: there is no array `MU`.
        ConfigError: it is no feature map of every view, or its sides do not fit the network or the patches.
    """
    check_arrays((MU,), features)
    array = features.arrays[MU]
    if not array.is_feature_map or features.image_size is None:
        raise ConfigError(
            f"method.name: deco-diff needs latents (channel, y, x) of images; {MU} has the axes "
            f"{', '.join(array.axes)}"
        )
    channels, h, w = array.shape
    if h % HALVED or w % HALVED:
        raise ConfigError(
            f"teacher.image_size: expected latents whose sides are multiples of {HALVED}, got {h}x{w}"
        )
    for patch in config.patch_sizes:
        if h % patch or w % patch:
            raise ConfigError(f"method.patch_sizes: {patch} does not divide the {h}x{w} latents")
    return channels, h, w


def network_size(config: DeCoDiffConfig) -> Size:
    """Widths of the network: those of ``size``, or narrower in the same proportions."""
    size = SIZES[config.size]
    if config.width is None:
        return size
    return Size(config.width, size.heads, config.width * size.context // size.width)


def build_deco_diff(config: DeCoDiffConfig, context: MethodContext) -> Method:
    """DeCo-Diff for the latents of a source.

    Raises:
        StoreMismatch: they lack the array that it reads.
        ConfigError: they do not fit the settings, or diffusers is not installed.
    """
    features = context.features
    shape, size = latent_shape(config, features), features.image_size
    assert size is not None
    return DeCoDiff(
        config,
        network_size(config),
        shape,
        size,
        context.categories,
        posterior=config.sample_posterior and LOGVAR in features.arrays,
        decoder=_decoder(features, context.encoders),
        stores_decoded=DECODED in features.arrays,
        view_dropout=context.view_dropout,
    )


def _decoder(features: FeatureSpec, encoders: tuple[FrozenEncoder, ...]) -> FrozenEncoder | None:
    """The encoder that the latents come from, if it is at hand and has a decoder."""
    origin = features.arrays[MU].origin
    for encoder in encoders:
        if encoder.name == origin and encoder.family.decode is not None:
            return encoder
    return None


def _resources(config: DeCoDiffConfig, request: ResourceRequest) -> dict[str, Any]:
    """None; latents that do not fit are refused here, before a run's folder is written."""
    latent_shape(config, request.features)
    return {}


def _import(config: DeCoDiffConfig, context: MethodContext, path: Path) -> ImportedWeights:
    """See `import_weights`."""
    channels = latent_shape(config, context.features)[0]
    return import_weights(config, network_size(config), channels, context, path)


def _smallest() -> DeCoDiffConfig:
    """A config for tests: trains in seconds, on latents from 4x4."""
    return DeCoDiffConfig(
        size="XS", width=32, patch_sizes=(1, 2), patch_probabilities=(0.5, 0.5), reverse_steps=2
    )


DECO_DIFF_SPEC = MethodSpec(
    build=build_deco_diff,
    stages=lambda config: (Stage("deco-diff", config),),
    resources=_resources,
    smallest=_smallest,
    scores_with_encoders=lambda config: True,
    import_weights=_import,
)
