"""The `MethodSpec` of MSFlow."""

import torch

from idif.data.features import check_arrays
from idif.errors import ConfigError
from idif.methods.msflow.config import MSFlowConfig
from idif.methods.msflow.import_weights import import_weights
from idif.methods.msflow.model import MSFlow
from idif.methods.protocol import Method, MethodContext, MethodSpec, Stage


def build_msflow(config: MSFlowConfig, context: MethodContext) -> Method:
    """MSFlow for the feature maps that its config names.

    Raises:
        StoreMismatch: the source lacks one of them.
        ConfigError: there are no images, or an array is not a feature map of every view with an even number
            of channels.
    """
    features = context.features
    check_arrays(config.scales, features)
    if features.image_size is None:
        raise ConfigError("method.name: msflow needs feature maps of images; the samples have none")
    channels = []
    for name in config.scales:
        array = features.arrays[name]
        if not array.is_feature_map:
            raise ConfigError(
                f"method.scales: expected feature maps of every view (channel, y, x); {name} has the axes "
                f"{', '.join(array.axes)}"
            )
        if array.shape[0] % 2:
            raise ConfigError(
                f"method.scales: a coupling splits channels into halves; {name} has {array.shape[0]}, an odd "
                "number"
            )
        channels.append(array.shape[0])
    method = MSFlow(config, channels, features.image_size, context.view_dropout)
    for parameter in method.parameters():
        if parameter.ndim == 4:
            parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
    return method


def _smallest() -> MSFlowConfig:
    """A config for tests and the smoke test: trains in seconds."""
    return MSFlowConfig(blocks=(1, 1, 1), position_channels=4)


MSFLOW_SPEC = MethodSpec(
    build=build_msflow,
    stages=lambda config: (Stage("flows", config),),
    smallest=_smallest,
    import_weights=import_weights,
)
