"""The feature store: outputs of frozen encoders, kept on disk and read in batches."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cache.reading.store import FeatureStore

__all__ = ["FeatureStore"]


def __getattr__(name: str) -> Any:
    # only when it is used: it imports torch, which the format and the inspection of a store do not need
    if name == "FeatureStore":
        from cache.reading.store import FeatureStore

        return FeatureStore
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
