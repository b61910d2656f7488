"""Several processes build one store: the bytes of one, also after a member was killed."""

import multiprocessing
import os
import signal
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist

from cache import FeatureStore
from cache.building.lock import builder_lock
from cache.building.ranks import Ranks
from idif.errors import CannotFinish, StoreError, StoreIncomplete
from tests.cache.building.test_kill import finished_views
from tests.helpers.tiny_data import make_tiny_realiad, tiny_index, tree, untrained
from tests.helpers.tiny_store import build_tiny

INDEX = tiny_index(train=6, test=4)
VIEWS = sum(sum(sample.present) for sample in INDEX.samples)
KILL = getattr(signal, "SIGKILL", signal.SIGTERM)
"""What leaves a process no time for anything; Windows has one such signal."""
GONE = 3
"""Exit code of a member that says that another is gone."""


def build(data: Path, store: Path, ranks: Ranks, die_after: int | None = None) -> int:
    """Build as a member; returns the views that it encoded. Dies by SIGKILL after ``die_after`` batches."""
    torch.set_num_threads(1)
    encoder = untrained()
    batches: list[int] = []

    def count(module: object, inputs: tuple[torch.Tensor, ...]) -> None:
        if len(batches) == die_after:
            os.kill(os.getpid(), KILL)
        batches.append(len(inputs[0]))

    encoder.module.register_forward_pre_hook(count)
    build_tiny(data, INDEX, store, encoder, workers=1, ranks=ranks)
    return sum(batches)


def member(folder: Path, store: Path, rank: int, world: int, die_after: int | None) -> None:
    meeting = f"file://{(folder / f'meeting-{store.name}-{world}-{die_after}').as_posix()}"
    dist.init_process_group(
        "gloo", init_method=meeting, rank=rank, world_size=world, timeout=timedelta(seconds=120)
    )
    try:
        encoded = build(folder / "data", store, Ranks(rank, world), die_after if rank == world - 1 else None)
    except CannotFinish as error:
        raise SystemExit(GONE if "another process of this command has stopped" in str(error) else 1) from None
    (folder / f"encoded-{store.name}-{rank}").write_text(str(encoded))


def run_team(folder: Path, store: Path, world: int, die_after: int | None = None) -> Sequence[int | None]:
    """Exit codes of a team's members."""
    methods = multiprocessing.get_all_start_methods()
    context: Any = multiprocessing.get_context("forkserver" if "forkserver" in methods else "spawn")
    context.set_forkserver_preload([__name__])
    members = [
        context.Process(target=member, args=(folder, store, rank, world, die_after)) for rank in range(world)
    ]
    for process in members:
        process.start()
    for process in members:
        process.join(300)
    return [process.exitcode for process in members]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("team")
    make_tiny_realiad(root / "data", INDEX)
    assert build(root / "data", root / "alone", Ranks()) == VIEWS
    return root


def test_two_builders_make_the_store_of_one(folder: Path) -> None:
    assert run_team(folder, folder / "two", 2) == [0, 0]
    assert tree(folder / "two") == tree(folder / "alone")
    encoded = [int((folder / f"encoded-two-{rank}").read_text()) for rank in range(2)]
    assert sum(encoded) == VIEWS
    assert min(encoded) >= VIEWS // 2 - 6  # a shard has six views at most


def test_a_team_of_three_loses_one_and_goes_on(folder: Path) -> None:
    store = folder / "three"
    codes = run_team(folder, store, 3, die_after=2)
    assert codes[:2] == [GONE, GONE]
    assert codes[2] not in (0, GONE)
    with pytest.raises(StoreIncomplete):
        FeatureStore.open(store)
    assert list(store.glob("*/*/build-2.jsonl"))  # what the dead one had finished is on record
    done = finished_views(store)
    assert 0 < done < VIEWS
    assert run_team(folder, store, 3) == [0, 0, 0]
    encoded = [int((folder / f"encoded-three-{rank}").read_text()) for rank in range(3)]
    assert sum(encoded) == VIEWS - done
    assert tree(store) == tree(folder / "alone")


def test_shares_are_everything_once() -> None:
    items = list(range(11))
    shares = [Ranks(rank, 3).share(items) for rank in range(3)]
    assert sorted(item for share in shares for item in share) == items
    assert {len(share) for share in shares} == {3, 4}


def test_a_member_that_outlives_its_team_keeps_others_out(tmp_path: Path) -> None:
    with (
        builder_lock(tmp_path, rank=2),
        pytest.raises(StoreError, match=f"process {os.getpid()} .* is building here"),
        builder_lock(tmp_path),
    ):
        pass
    (tmp_path / "build-1.lock").write_text("{}")  # left by a member that was killed
    with builder_lock(tmp_path):
        pass
    assert list(tmp_path.iterdir()) == []
