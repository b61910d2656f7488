"""A build killed at any moment is continued to the very same bytes; no finished shard is encoded again."""

import multiprocessing
import random
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from cache import FeatureStore
from cache.building.journal import Journal
from cache.format.manifest import GroupManifest
from idif.data.index import SPLITS
from idif.errors import StoreError
from tests.helpers.tiny_data import make_tiny_realiad, tiny_index, tree, untrained
from tests.helpers.tiny_store import build_tiny

INDEX = tiny_index(train=8, test=4)
VIEWS = 68


def build(data: str, store: str) -> int:
    """Build and return how many views went through the encoder, as the encoder itself counts them."""
    torch.set_num_threads(1)
    encoder = untrained()
    encoded = 0

    def count(module: object, inputs: tuple[torch.Tensor, ...]) -> None:
        nonlocal encoded
        encoded += len(inputs[0])

    encoder.module.register_forward_pre_hook(count)
    build_tiny(Path(data), INDEX, Path(store), encoder, image_size=64, workers=1)
    return encoded


def finished_views(store: Path) -> int:
    """Views of the shards recorded as finished."""
    views = 0
    for category in ("bolt", "cup"):
        for split in SPLITS:
            folder = store / category / split
            try:
                manifest = GroupManifest.load(folder)
                plan, shards = manifest.plan, list(range(len(manifest.shards)))
            except FileNotFoundError:
                journal = Journal.load(folder)
                if journal is None:
                    continue
                plan, shards = journal.plan, list(journal.shards)
            samples = plan.index.samples
            views += sum(sum(one.present) for s in shards for one in samples[slice(*plan.bounds[s])])
    return views


def kill_and_continue(tmp_path: Path, kills: int, seed: int) -> int:
    data = tmp_path / "data"
    make_tiny_realiad(data, INDEX)
    began = time.monotonic()
    assert build(str(data), str(tmp_path / "reference")) == VIEWS
    whole = time.monotonic() - began
    wanted = tree(tmp_path / "reference")

    # a server with everything imported, so that a child is at work at once; spawn where there is none
    methods = multiprocessing.get_all_start_methods()
    context: Any = multiprocessing.get_context("forkserver" if "forkserver" in methods else "spawn")
    context.set_forkserver_preload([__name__])
    warm = context.Process(target=time.sleep, args=(0,))
    warm.start()
    warm.join()

    rng = random.Random(seed)
    store, killed, number = tmp_path / "store0", 0, 0
    while killed < kills:
        child = context.Process(target=build, args=(str(data), str(store)))
        child.start()
        child.join(rng.uniform(0.05, 1.2 * whole))
        child.kill()
        child.join()
        if child.exitcode == 0:  # it was done before the blow: begin another store
            assert tree(store) == wanted
            number += 1
            store = tmp_path / f"store{number}"
            continue
        killed += 1
        done = finished_views(store)
        if done < VIEWS:
            with pytest.raises(StoreError):
                FeatureStore.open(store)
        if rng.random() < 0.5:  # else the same store is hit again
            assert build(str(data), str(store)) == VIEWS - done
            assert tree(store) == wanted
            number += 1
            store = tmp_path / f"store{number}"
    build(str(data), str(store))
    assert tree(store) == wanted
    return killed


def test_killed_builds_resume_to_identical_bytes(tmp_path: Path) -> None:
    assert kill_and_continue(tmp_path, kills=5, seed=0) == 5


@pytest.mark.long
def test_a_hundred_killed_builds(tmp_path: Path) -> None:
    assert kill_and_continue(tmp_path, kills=100, seed=1) == 100
