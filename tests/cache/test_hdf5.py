"""One HDF5 file and back: plain h5py reads it, the store returns byte for byte, damage is refused by name."""

import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest

from cache import FeatureStore
from cache.checking.verify import verify_store
from cache.hdf5 import export_store, import_store
from idif.errors import StoreDamaged, StoreError
from tests.helpers.tiny_data import tiny_index, tree
from tests.helpers.tiny_store import build_tiny

INDEX = tiny_index(train=3, test=2)
pytestmark = pytest.mark.usefixtures("no_waiting_for_the_disk")


@pytest.fixture(scope="module", params=["float16", "uint8"])
def store(data: Path, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Path:
    path = tmp_path_factory.mktemp("store") / "s"
    build_tiny(data, INDEX, path, storage=request.param)
    return path


@pytest.fixture(scope="module")
def exported(store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("h5") / "s.h5"
    seen: list[tuple[int, int]] = []
    size = export_store(store, file, progress=lambda done, total, what="": seen.append((done, total)))
    assert size == file.stat().st_size
    assert seen[-1] == (len(INDEX), len(INDEX))
    return file


def test_the_round_trip_is_exact(store: Path, exported: Path, tmp_path: Path) -> None:
    assert import_store(exported, tmp_path / "back") == len(INDEX)
    assert tree(tmp_path / "back") == tree(store)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["back"]
    assert verify_store(tmp_path / "back").sound


def test_plain_h5py_reads_it(store: Path, exported: Path) -> None:
    opened = FeatureStore.open(store, ["cup"], "test")
    batch, stored = opened.read(range(2)), opened.read_arrays(range(2))
    with h5py.File(exported) as file:
        group = file["cup/test"]
        for name in ("layer1", "layer2", "layer3", "images", "masks"):
            assert np.array_equal(group[name][:], stored[name].numpy())
        assert np.array_equal(group["labels"][:], batch.labels.numpy())
        assert np.array_equal(group["view_mask"][:], batch.view_mask.numpy())
        for name, x in batch.arrays.items():
            if f"{name}_scale" in group:
                values = group[name][:].astype(np.float16) * group[f"{name}_scale"][:][:, None, :, None, None]
                assert np.array_equal(values, x.numpy())


def harm(file: Path, name: str, how: str) -> None:
    with h5py.File(file, "r+") as opened:
        if how == "delete":
            del opened[name]
            return
        values = opened[name][:]
        if how == "cut":
            del opened[name]
            opened[name] = values[:-1]
            return
        flat = values.reshape(-1).view(np.uint8)
        flat[len(flat) // 2] ^= 1
        opened[name][...] = values


HARMS = [
    ("cup/train/layer2", "flip", r"cup/train/layer2: row 1 is not what was exported"),
    ("cup/train/layer2", "cut", r"cup/train/layer2: rows 2-2 are"),
    ("bolt/test/images", "delete", "bolt/test/images: missing"),
    ("bolt/test/manifest.json", "flip", r"bolt/test/manifest\.json: not the bytes"),
    ("manifest.json", "flip", r"manifest\.json: not the bytes"),
    ("teacher.safetensors", "flip", r"teacher\.safetensors: not the bytes"),
]


@pytest.mark.parametrize(("name", "how", "text"), HARMS)
def test_damage_is_refused_and_nothing_is_left(
    exported: Path, tmp_path: Path, name: str, how: str, text: str
) -> None:
    file = Path(shutil.copy(exported, tmp_path / "s.h5"))
    harm(file, name, how)
    with pytest.raises(StoreDamaged, match=text):
        import_store(file, tmp_path / "back")
    assert [path.name for path in tmp_path.iterdir()] == ["s.h5"]


def test_a_damaged_store_is_not_exported(store: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(store, tmp_path / "copy"))
    file = copy / "cup/train/layer1/c/1/0/0/0/0"
    raw = bytearray(file.read_bytes())
    raw[9] ^= 1
    file.write_bytes(raw)
    with pytest.raises(StoreDamaged, match="layer1"):
        export_store(copy, tmp_path / "s.h5")
    assert [path.name for path in tmp_path.iterdir()] == ["copy"]


def test_nothing_is_written_over_and_other_files_are_refused(
    store: Path, exported: Path, tmp_path: Path
) -> None:
    with pytest.raises(StoreError, match="is there already"):
        export_store(store, exported)
    with pytest.raises(StoreError, match="is there already"):
        import_store(exported, store)
    (tmp_path / "x.h5").write_bytes(b"no")
    with pytest.raises(StoreError, match="cannot be read as HDF5"):
        import_store(tmp_path / "x.h5", tmp_path / "back")
    with h5py.File(tmp_path / "y.h5", "w"):
        pass
    with pytest.raises(StoreError, match="not a store that 'idif cache export' wrote"):
        import_store(tmp_path / "y.h5", tmp_path / "back")
    with pytest.raises(StoreError, match="no such store"):
        export_store(tmp_path / "nowhere", tmp_path / "z.h5")
