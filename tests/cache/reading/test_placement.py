"""Placement: what ``auto`` chooses, what does not fit is refused, and the bits never change."""

import shutil
from pathlib import Path

import pytest
import torch

import cache.reading.placement
from cache import FeatureStore
from cache.reading.placement import Resident, choose_placement, place, source_bytes
from idif.data.arrays import StorageType
from idif.errors import CannotFinish, StoreDamaged
from tests.feature_source_contract import assert_same, join
from tests.helpers.tiny_data import tiny_index
from tests.helpers.tiny_store import build_tiny

CPU = torch.device("cpu")


INDEX = tiny_index(["cup"], 20, 3)


def make_store(data: Path, folder: Path, storage: StorageType) -> FeatureStore:
    build_tiny(data, INDEX, folder, shard_rows=4, storage=storage)
    return FeatureStore.open(folder)


@pytest.fixture(scope="module")
def store(data: Path, tmp_path_factory: pytest.TempPathFactory) -> FeatureStore:
    return make_store(data, tmp_path_factory.mktemp("placement") / "store", "float16")


@pytest.fixture(scope="module")
def compact(data: Path, tmp_path_factory: pytest.TempPathFactory) -> FeatureStore:
    return make_store(data, tmp_path_factory.mktemp("placement") / "compact", "uint8")


@pytest.mark.parametrize("storage", ["float16", "uint8"])
def test_bits_are_the_same_everywhere(store: FeatureStore, compact: FeatureStore, storage: str) -> None:
    source = store if storage == "float16" else compact
    order = [(5 * i) % 23 for i in range(23)]
    wanted = join(list(source.batches(order, 4)))
    for placement in ("memory", "device", "auto"):
        assert_same(join(list(place(source, placement, CPU).batches(order, 4))), wanted)


@pytest.mark.parametrize("storage", ["float16", "uint8"])
def test_bytes_are_those_of_the_tensors(store: FeatureStore, compact: FeatureStore, storage: str) -> None:
    source = store if storage == "float16" else compact
    packed = source.read_packed(range(23))
    assert source_bytes(source) == sum(part.numel() * part.element_size() for part in packed.tensors())


@pytest.mark.parametrize(("free", "wanted"), [(None, "disk"), (2.1, "memory"), (1.9, "disk")])
def test_auto_takes_half_of_what_is_free(
    store: FeatureStore, monkeypatch: pytest.MonkeyPatch, free: float | None, wanted: str
) -> None:
    memory = None if free is None else int(free * source_bytes(store))
    monkeypatch.setattr(cache.reading.placement, "free_memory", lambda: memory)
    chosen, reason = choose_placement(store, CPU)
    assert chosen == wanted
    assert reason
    assert isinstance(place(store, "auto", CPU), Resident if wanted == "memory" else FeatureStore)


def test_processes_on_one_machine_share_its_memory(
    store: FeatureStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache.reading.placement, "free_memory", lambda: int(5 * source_bytes(store)))
    for processes, wanted in ((1, "memory"), (2, "memory"), (3, "disk")):
        monkeypatch.setenv("LOCAL_WORLD_SIZE", str(processes))
        assert choose_placement(store, CPU)[0] == wanted
    assert "shared by 3 processes" in choose_placement(store, CPU)[1]


def test_auto_takes_the_card_while_it_fits(store: FeatureStore, monkeypatch: pytest.MonkeyPatch) -> None:
    need = source_bytes(store)
    for free, wanted in ((1.7, "device"), (1.6, "memory")):
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device, free=free: (int(free * need), 0))
        assert choose_placement(store, torch.device("cuda"))[0] == wanted


def test_what_does_not_fit_is_refused(store: FeatureStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache.reading.placement, "free_memory", lambda: 1000)
    with pytest.raises(CannotFinish, match=r"memory needs .* GB and .* GB are free; use disk"):
        place(store, "memory", CPU)
    assert place(store, "disk", CPU) is store


def test_free_memory_is_a_sane_number() -> None:
    free = cache.reading.placement.free_memory()
    assert free is None or 2**20 < free < 2**50


def test_damage_is_found_while_loading(store: FeatureStore, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(str(store.path), tmp_path / "copy"))
    shard = copy / "cup/train/images/c/2/0/0/0/0"
    raw = bytearray(shard.read_bytes())
    raw[7] ^= 1
    shard.write_bytes(raw)
    with pytest.raises(StoreDamaged, match="row 8 "):
        place(FeatureStore.open(copy), "memory", CPU)
