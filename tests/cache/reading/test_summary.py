"""The summary of a store says what the opened store says."""

from pathlib import Path

import pytest

from cache import FeatureStore
from cache.reading.summary import GroupSummary, summarize_store
from idif.data.index import Split
from idif.errors import StoreDamaged, StoreError
from tests.helpers.tiny_data import tiny_index
from tests.helpers.tiny_store import build_tiny

INDEX = tiny_index(categories=("cup", "bolt"), train=3, test=2)


def test_the_summary_agrees_with_the_opened_store(data: Path, tmp_path: Path) -> None:
    build_tiny(data, INDEX, tmp_path / "store")
    store, summary = FeatureStore.open(tmp_path / "store"), summarize_store(tmp_path / "store")
    assert summary.fingerprint == store.fingerprint
    assert summary.spec == store.spec
    assert summary.view_numbers == store.index.view_numbers
    assert summary.bytes == sum(
        path.stat().st_size for path in (tmp_path / "store").rglob("*") if path.is_file()
    )
    expected: list[tuple[str, Split, int, int, int]] = []
    splits: tuple[Split, ...] = ("train", "test")
    for category in ("bolt", "cup"):
        for split in splits:
            samples = [s for s in store.index.samples if (s.category, s.split) == (category, split)]
            views = sum(sum(sample.present) for sample in samples)
            anomalous = sum(sample.label for sample in samples)
            expected.append((category, split, len(samples), views, anomalous))
    assert summary.groups == tuple(GroupSummary(*group) for group in expected)


def test_a_store_that_cannot_be_opened_has_no_summary(data: Path, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="no such store"):
        summarize_store(tmp_path / "store")
    build_tiny(data, INDEX, tmp_path / "store")
    shard = next(path for path in (tmp_path / "store" / "cup").rglob("c/**/*") if path.is_file())
    shard.unlink()
    with pytest.raises(StoreDamaged, match="missing"):
        summarize_store(tmp_path / "store")
