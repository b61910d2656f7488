"""The `MethodSpec` of Causal-FiLM."""

from typing import Any

from idif.data.features import FeatureSpec, check_arrays
from idif.errors import ConfigError
from idif.methods.causal_film.config import CausalFiLMConfig, SensorConfig
from idif.methods.causal_film.model import PROCESS, TEXT, CausalFiLM
from idif.methods.protocol import Method, MethodContext, MethodSpec, ResourceRequest, Stage

AXES = {"mean": ("token", "channel"), "gem": ("token", "channel"), "none": ("channel",)}
"""Axes of an array of the views, for each way to pool it."""


def check_features(config: CausalFiLMConfig, features: FeatureSpec) -> None:
    """Refuse a source whose arrays the method cannot read.

    Raises:
        StoreMismatch: an array is missing.
        ConfigError: an array has other axes.
    """
    needed = [*PROCESS, *(pooling.array for pooling in config.poolings)]
    check_arrays([*needed, TEXT] if config.loss.text else needed, features)
    for name in PROCESS:
        array = features.arrays[name]
        if array.axes != ("time", "channel"):
            raise ConfigError(
                f"method.name: causal-film needs {name} of the axes time, channel; it has "
                f"{', '.join(array.axes)}"
            )
    for pooling in config.poolings:
        array, wanted = features.arrays[pooling.array], AXES[pooling.pool]
        if not array.per_view or array.own_axes != wanted:
            raise ConfigError(
                f"method.poolings: {pooling.pool} needs an array of the axes view, {', '.join(wanted)}; "
                f"{pooling.array} has {', '.join(array.axes)}"
            )
        if pooling.pool != "none" and pooling.skip >= array.shape[0]:
            raise ConfigError(
                f"method.poolings: skip: expected less than the {array.shape[0]} tokens of {pooling.array}, "
                f"got {pooling.skip}"
            )


def build_causal_film(config: CausalFiLMConfig, context: MethodContext) -> Method:
    """Causal-FiLM for the features of a source.

    Raises:
        StoreMismatch: they lack an array that it reads.
        ConfigError: an array has other axes.
    """
    check_features(config, context.features)
    return CausalFiLM(config, context.features, context.view_dropout)


def _resources(config: CausalFiLMConfig, request: ResourceRequest) -> dict[str, Any]:
    """None; features that do not fit are refused here, before a run's folder is written."""
    check_features(config, request.features)
    return {}


def _smallest() -> CausalFiLMConfig:
    """A config for tests and the smoke test."""
    sensor = SensorConfig(width=16, layers=1, state=4)
    return CausalFiLMConfig(width=16, sensor=sensor, layers=1, attention_heads=2, feedforward=32)


CAUSAL_FILM_SPEC = MethodSpec(
    build=build_causal_film,
    stages=lambda config: (Stage("causal-film", config),),
    resources=_resources,
    smallest=_smallest,
)
