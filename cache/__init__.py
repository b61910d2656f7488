"""The feature store: precomputed features of frozen encoders, stored as Zarr and read in batches."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cache.building.build import build_store
    from cache.building.request import BuildRequest
    from cache.checking.verify import verify_store
    from cache.reading.store import FeatureStore

__all__ = ["BuildRequest", "FeatureStore", "build_store", "verify_store"]

_LAZY = {
    "BuildRequest": "cache.building.request",
    "FeatureStore": "cache.reading.store",
    "build_store": "cache.building.build",
    "verify_store": "cache.checking.verify",
}
"""Public name -> its module, imported on first use, so that the format can be read without torch."""


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_LAZY[name]), name)
