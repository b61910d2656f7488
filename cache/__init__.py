"""The feature store: what a frozen encoder said, kept on disk and streamed back."""

from cache.reading.store import FeatureStore

__all__ = ["FeatureStore"]
