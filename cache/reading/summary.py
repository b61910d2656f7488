"""Summary of a store from its manifests.

Reads no data, and imports neither torch nor tensorstore.
"""

from dataclasses import dataclass

from cache.format.manifest import GroupPlan
from cache.format.object_store import StorePath
from cache.reading.open_groups import open_store, store_bytes, store_fingerprint
from idif.data.features import FeatureSpec
from idif.data.index import Split


@dataclass(frozen=True)
class GroupSummary:
    """Counts of one category and split."""

    category: str
    split: Split
    samples: int
    views: int
    """Number of present views."""
    anomalous: int
    """Number of anomalous samples."""


@dataclass(frozen=True)
class StoreSummary:
    """The contents of a store."""

    path: StorePath
    bytes: int
    fingerprint: str
    """As `cache.FeatureStore.fingerprint`."""
    view_numbers: tuple[int, ...]
    spec: FeatureSpec
    groups: tuple[GroupSummary, ...]
    """Groups by category, in the order train, val, test."""


def summarize_store(path: str | StorePath) -> StoreSummary:
    """Summarize a store, with the same checks as opening it.

    Args:
        path: a folder, or ``s3://BUCKET/PREFIX`` as text.

    Raises:
        The exceptions of `cache.FeatureStore.open`.
    """
    store, root, groups = open_store(path, None, None)
    return StoreSummary(
        path=store,
        bytes=store_bytes(store),
        fingerprint=store_fingerprint(root.spec, groups),
        view_numbers=root.view_numbers,
        spec=root.spec,
        groups=tuple(_summarize(group.manifest.plan) for group in groups),
    )


def _summarize(plan: GroupPlan) -> GroupSummary:
    samples = plan.index.samples
    return GroupSummary(
        category=plan.group.category,
        split=plan.group.split,
        samples=len(samples),
        views=sum(sum(sample.present) for sample in samples),
        anomalous=sum(sample.label for sample in samples),
    )
