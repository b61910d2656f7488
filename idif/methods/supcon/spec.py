"""The `MethodSpec` of supervised contrastive learning."""

from typing import Any

from idif.methods.pooling import Pooling
from idif.methods.protocol import Method, MethodContext, MethodSpec, ResourceRequest, Stage
from idif.methods.supcon.config import SeriesConfig, SupConConfig
from idif.methods.supcon.model import SupCon, check_series


def build_supcon(config: SupConConfig, context: MethodContext) -> Method:
    """The method for the features of a source.

    Raises:
        StoreMismatch: they lack an array that it reads.
        ConfigError: an array has other axes.
    """
    return SupCon(config, context.features)


def _resources(config: SupConConfig, request: ResourceRequest) -> dict[str, Any]:
    """None; features that do not fit are refused here, before a run's folder is written."""
    for name in config.series:
        check_series(name, request.features)
    Pooling(tuple(name for name in config.arrays if name not in config.series), request.features)
    return {}


def _smallest() -> SupConConfig:
    """A config for tests and the smoke test."""
    series = SeriesConfig(width=8, layers=1, attention_heads=2, feedforward=16)
    return SupConConfig(series_encoder=series, width=16, tokens=2, attention_heads=2, feedforward=32)


SUPCON_SPEC: MethodSpec[SupConConfig] = MethodSpec(
    build=build_supcon,
    stages=lambda config: (Stage("supcon", config),),
    resources=_resources,
    smallest=_smallest,
)
