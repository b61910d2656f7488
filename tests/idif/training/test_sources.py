"""The same pixels and losses, wherever features come from, lie, and however they are read."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from lightning_fabric import Fabric

import cache.reading.store
from cache import FeatureStore
from cache.reading.placement import Placement, place
from idif.config.loader import resolve
from idif.corruption.textures import load_textures
from idif.data.batch import Batch
from idif.data.features import FeatureSource
from idif.methods.idif.perturbation import Perturbation, PerturbedBatch
from idif.randomness import Draws
from idif.training.loop import train
from idif.training.run_log import read_log
from tests.helpers.tiny_data import tiny_index
from tests.helpers.tiny_store import build_tiny
from tests.helpers.tiny_training import SMALL, idif_task, live_source

SIZE, CPU = 32, torch.device("cpu")
INDEX = tiny_index(categories=("cup",), train=5, test=0)
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
    once = Perturbation.__call__

    def watched(self: Perturbation, batch: Batch, draws: Draws) -> PerturbedBatch:
        perturbed = once(self, batch, draws)
        seen.append(perturbed.images)
        return perturbed

    monkeypatch.setattr(Perturbation, "__call__", watched)
    config = resolve({"method": SMALL, "train": TRAIN}, source="test")[0]
    textures = load_textures("procedural", SIZE, tmp_path)

    def run(name: str, source: FeatureSource) -> tuple[list[float], list[torch.Tensor]]:
        seen.clear()
        folder, fabric = tmp_path / name, Fabric(accelerator="cpu", devices=1)
        train(config, idif_task(config, source, textures, folder), fabric)
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

    live_losses, live_pixels = trained("live", live_source(data, INDEX, SIZE))
    assert all(map(torch.equal, pixels, live_pixels))
    assert live_losses == pytest.approx(losses, rel=1e-3)
    assert live_losses != losses, "the store rounds to float16"

    placements: tuple[Placement, ...] = ("memory", "device")
    for placement in placements:
        again = trained(placement, place(opened, placement, CPU))
        assert again[0] == losses, placement
        assert all(map(torch.equal, pixels, again[1])), placement

    for readers, depth in ((1, 1), (5, 6)):
        monkeypatch.setattr(cache.reading.store, "READERS", readers)
        monkeypatch.setattr(cache.reading.store, "READ_AHEAD", depth)
        assert trained(f"{readers}-readers", FeatureStore.open(store))[0] == losses, readers
