"""The same pixels and losses, wherever features come from, lie, and however they are read."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning_fabric import Fabric

import cache.reading.store
import idif.training.loop
from cache import FeatureStore
from cache.reading.placement import place
from idif.config.loader import resolve
from idif.corruption.synthesis import corrupt
from idif.corruption.textures import load_textures
from idif.data.features import FeatureSource
from idif.encoders.live import LiveFeatures
from idif.training.loop import Task, train
from idif.training.run_log import read_log
from tests.helpers.tiny_data import tiny_index, untrained
from tests.helpers.tiny_store import build_tiny

SIZE, CPU = 32, torch.device("cpu")
INDEX = tiny_index(categories=("cup",), train=5, test=0)
METHOD = {"voxel": {"depth": 2, "height": 2, "width": 2, "channels": 16}, "heads": 2, "blocks": 1}
# a small step: at a usual one AdamW makes percents of a rounding within six steps
TRAIN = {"epochs": 2, "batch_size": 2, "lr": 1e-7, "dropout": {"probability": 0.3}}


@pytest.fixture(scope="module")
def store(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("stores") / "s.zarr"
    build_tiny(data, INDEX, path, image_size=SIZE, workers=1)
    return path


Trained = Callable[[str, FeatureSource], tuple[list[float], list[torch.Tensor]]]


@pytest.fixture
def trained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Trained:
    """Trains from a source; returns the losses and every corrupted image the student saw."""
    seen: list[torch.Tensor] = []

    def watched(*args: Any) -> Any:
        found = corrupt(*args)
        seen.append(found[0])
        return found

    monkeypatch.setattr(idif.training.loop, "corrupt", watched)
    config = resolve({"method": METHOD, "train": TRAIN}, source="test")[0]
    textures = load_textures("procedural", SIZE, tmp_path)

    def run(name: str, source: FeatureSource) -> tuple[list[float], list[torch.Tensor]]:
        seen.clear()
        folder = tmp_path / name
        folder.mkdir()
        fabric = Fabric(accelerator="cpu", devices=1)
        train(config, Task("cup", folder, source, list(range(len(INDEX))), textures), fabric)
        losses = [line["loss"] for line in read_log(folder / "log.jsonl") if "loss" in line]
        assert len(losses) == len(seen) == 6
        return losses, list(seen)

    return run


def test_losses_do_not_depend_on_where_features_come_from(
    data: Path, store: Path, trained: Trained, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = FeatureStore.open(store)
    assert opened.index == INDEX
    losses, pixels = trained("disk", opened)
    assert len(set(losses)) == len(losses)

    live_losses, live_pixels = trained("live", LiveFeatures(data, INDEX, untrained(), SIZE, CPU))
    assert all(map(torch.equal, pixels, live_pixels))
    assert live_losses == pytest.approx(losses, rel=1e-3)
    assert live_losses != losses, "the store rounds to float16"

    for placement in ("memory", "device"):
        again = trained(placement, place(opened, placement, CPU))  # type: ignore[arg-type]
        assert again[0] == losses, placement
        assert all(map(torch.equal, pixels, again[1])), placement

    for readers, depth in ((1, 1), (5, 6)):
        monkeypatch.setattr(cache.reading.store, "READERS", readers)
        monkeypatch.setattr(cache.reading.store, "READ_AHEAD", depth)
        assert trained(f"{readers}-readers", FeatureStore.open(store))[0] == losses, readers
