"""Reading a store: the contract, exact values, any order, damage refused, opening refused by name."""

import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorstore as ts
import torch
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

from cache import FeatureStore
from cache.reading.placement import Resident, place
from idif.data.batch import Batch
from idif.data.features import FeatureSource
from idif.encoders.encode import EncoderSet, encode_present
from idif.encoders.live import LiveFeatures
from idif.errors import StoreDamaged, StoreError
from tests import feature_source_contract as contract
from tests.helpers.tiny_data import tiny_index, untrained
from tests.helpers.tiny_store import build_tiny

CPU = torch.device("cpu")
INDEX = tiny_index()


@pytest.fixture(scope="module")
def path(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    store = tmp_path_factory.mktemp("store") / "tiny"
    build_tiny(data, INDEX, store, batch_size=2)
    return store


@pytest.fixture(scope="module")
def whole(path: Path) -> Batch:
    store = FeatureStore.open(path)
    return store.read(range(len(store.index)))


@pytest.fixture
def copy(path: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(path, tmp_path / "copy"))


@pytest.fixture(scope="module")
def compact(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    store = tmp_path_factory.mktemp("store") / "compact"
    build_tiny(data, INDEX, store, batch_size=2, storage="uint8")
    return store


@pytest.fixture(
    scope="module", params=[(s, p) for s in ("float16", "uint8") for p in ("disk", "memory", "device")]
)
def source(path: Path, compact: Path, request: pytest.FixtureRequest) -> FeatureSource:
    storage, placement = request.param
    return place(FeatureStore.open(path if storage == "float16" else compact), placement, CPU)


@pytest.mark.parametrize("check", contract.CONTRACT, ids=lambda check: check.__name__)
def test_contract(source: FeatureSource, check: contract.Check) -> None:
    check(source)


def test_stored_agrees_with_live(source: FeatureSource, data: Path) -> None:
    contract.check_stored_agrees_with_live(
        source, LiveFeatures(data, INDEX, EncoderSet((untrained(),), 32), CPU)
    )


def test_a_live_source_can_be_made_resident(data: Path) -> None:
    live = LiveFeatures(data, INDEX, EncoderSet((untrained(),), 32), CPU)
    resident = Resident(live, CPU)
    assert resident.spec == live.spec
    contract.check_agrees_with_index(resident)


def test_features_are_exactly_the_encoders_output_as_float16(path: Path) -> None:
    store, encoder = FeatureStore.open(path, ["cup"], "train"), untrained()
    for start in (0, 2, 4):  # the batches that the build encoded
        batch = store.read(range(start, min(start + 2, 5)))
        for name, x in encode_present(encoder, batch.images, batch.view_mask).items():
            assert torch.equal(batch.arrays[name], x.half())


@settings(max_examples=40, deadline=None)
@given(rows=st.lists(st.integers(0, 17), max_size=30))
def test_any_rows_in_any_order(path: Path, whole: Batch, rows: list[int]) -> None:
    batch = FeatureStore.open(path).read(rows)
    assert batch.rows.tolist() == rows
    wanted = torch.tensor(rows, dtype=torch.int64)
    assert torch.equal(batch.images, whole.images[wanted])
    for name, x in batch.arrays.items():
        assert torch.equal(x, whole.arrays[name][wanted])


def test_rows_come_by_category_then_train_before_test_then_id(path: Path) -> None:
    index = FeatureStore.open(path).index
    keys = [(s.category, s.split == "test", s.sample_id) for s in index.samples]
    assert keys == sorted(keys)
    assert {s.sample_id for s in index.samples} == {s.sample_id for s in INDEX.samples}


def test_one_category_and_split_are_the_same_rows(path: Path, whole: Batch) -> None:
    store = FeatureStore.open(path, categories=["cup"], split="test")
    assert {(s.category, s.split) for s in store.index.samples} == {("cup", "test")}
    part = store.read(range(len(store.index)))
    assert torch.equal(part.images, whole.images[-len(store.index) :])


def test_a_read_is_what_tensorstore_decodes(path: Path, whole: Batch) -> None:
    """Rows read straight from the files are those a Zarr library finds there, whatever the shard's order."""
    for array, tensor in ((n, x) for n, x in whole.arrays.items() if n != "masks"):
        spec = {
            "driver": "zarr3",
            "kvstore": {"driver": "file", "path": f"{path.as_posix()}/cup/train/{array}/"},
        }
        assert np.array_equal(ts.open(spec, open=True).result().read().result(), tensor[9:14].numpy())


def test_zarr_python_reads_the_same_values(path: Path, whole: Batch) -> None:
    group: Any = zarr.open_group(str(path), mode="r")
    names = ("bolt/train", "bolt/test", "cup/train", "cup/test")
    for array, tensor in whole.arrays.items():
        stored = np.concatenate([np.asarray(group[f"{name}/{array}"][:]) for name in names])
        assert np.array_equal(stored, tensor.numpy()), array
    for array, tensor in (("view_mask", whole.view_mask), ("labels", whole.labels)):
        stored = np.concatenate([np.asarray(group[f"{name}/{array}"][:]) for name in names])
        assert np.array_equal(stored, tensor.numpy()), array
    assert np.isnan(group["cup/train/layer1"].fill_value)


def test_a_pickled_store_reads_the_same(path: Path, whole: Batch) -> None:
    store = pickle.loads(pickle.dumps(FeatureStore.open(path, ["bolt"])))
    assert store.index.categories == ("bolt",)
    assert torch.equal(store.read([1]).images, whole.images[[1]])


def test_the_encoder_comes_back(path: Path) -> None:
    (encoder,) = FeatureStore.open(path).encoder_set().encoders
    assert (encoder.sha256, encoder.weights) == (untrained().sha256, "untrained")


def test_the_fingerprint_is_of_what_was_opened(path: Path, copy: Path) -> None:
    assert FeatureStore.open(path).fingerprint == FeatureStore.open(copy).fingerprint
    prints = {FeatureStore.open(path, c).fingerprint for c in (None, ["cup"], ["bolt"])}
    assert len(prints) == 3


LAYER = "cup/train/layer1/c/1/0/0/0/0"  # rows 2 and 3 of cup/train, 11 and 12 of the store


def test_a_damaged_chunk_raises_and_names_its_row(copy: Path) -> None:
    file = copy / LAYER
    raw = bytearray(file.read_bytes())
    raw[10] ^= 1
    file.write_bytes(raw)
    store = FeatureStore.open(copy)
    with pytest.raises(StoreDamaged, match=r"layer1/c/1/.*row 11 \(sample cup/OK/S0002\)"):
        store.read([0, 11])
    with pytest.raises(StoreDamaged):
        list(store.batches(range(18), 4))
    store.read([0, 12])


def test_a_row_that_was_never_written_raises(copy: Path) -> None:
    file = copy / LAYER
    raw = file.read_bytes()
    index = 2 * 16 + 4  # offset and length of two rows, and the index's own checksum
    file.write_bytes(raw[:-index] + b"\xff" * 16 + raw[-index + 16 :])  # how Zarr marks a missing chunk
    store = FeatureStore.open(copy)
    with pytest.raises(StoreDamaged, match=r"layer1/c/1/.*row 11 "):
        store.read([11, 12])
    store.read([12])


def test_swapped_shards_raise_on_reading(copy: Path) -> None:
    first, second = copy / "cup/train/layer2/c/0/0/0/0/0", copy / "cup/train/layer2/c/1/0/0/0/0"
    a, b = first.read_bytes(), second.read_bytes()
    first.write_bytes(b)
    second.write_bytes(a)
    store = FeatureStore.open(copy)
    with pytest.raises(StoreDamaged, match="layer2"):
        store.read([9])


def test_a_shard_lost_after_opening_raises(copy: Path) -> None:
    store = FeatureStore.open(copy)
    (copy / LAYER).unlink()
    with pytest.raises(StoreDamaged, match=r"layer1/c/1/.* row 12 "):
        store.read([9, 12, 10, 0])  # of one group: two rows of a sound shard beside the lost one
    store.read([9, 10, 13, 0])


def _break_json(path: Path) -> None:
    path.write_bytes(path.read_bytes().replace(b'"train"', b'"tra1n"', 1))


REFUSED = [
    (LAYER, Path.unlink, StoreDamaged, "missing"),
    (LAYER, lambda p: p.write_bytes(p.read_bytes()[:-1]), StoreDamaged, r"\d+ bytes, expected \d+"),
    ("cup/train/manifest.json", _break_json, StoreDamaged, "not the bytes"),
    ("cup/train/manifest.json", Path.unlink, StoreDamaged, "missing, but the store lists cup/train"),
    ("cup/train/layer1/zarr.json", lambda p: p.write_text("{}"), StoreDamaged, "not the bytes"),
    ("manifest.json", lambda p: p.write_text("{"), StoreDamaged, "not the bytes"),
    ("manifest.json", Path.unlink, StoreDamaged, "missing"),
    ("teacher.safetensors", Path.unlink, StoreDamaged, "missing"),
]


@pytest.mark.parametrize(("name", "harm", "error", "text"), REFUSED)
def test_opening_refuses(
    copy: Path, name: str, harm: Callable[[Path], object], error: type[Exception], text: str
) -> None:
    harm(copy / name)
    with pytest.raises(error, match=text) as caught:
        FeatureStore.open(copy)
    assert str(caught.value).startswith(str(copy))


def test_opening_names_what_is_not_there(path: Path, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="no such store"):
        FeatureStore.open(tmp_path / "nowhere")
    with pytest.raises(StoreError, match="not a store"):
        FeatureStore.open(tmp_path)
    with pytest.raises(StoreError, match="no category 'bolts'; nearest: bolt"):
        FeatureStore.open(path, ["bolts"])


def test_another_teacher_in_place_is_found(copy: Path) -> None:
    file = copy / "teacher.safetensors"
    raw = bytearray(file.read_bytes())
    raw[-3] ^= 1
    file.write_bytes(raw)
    with pytest.raises(StoreDamaged, match=r"teacher\.safetensors"):
        FeatureStore.open(copy).encoder_set()
