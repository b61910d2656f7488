"""One HDF5 file and back: plain h5py reads it, the store returns byte for byte, damage is refused by name."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from cache import FeatureStore
from cache.checking.verify import verify_store
from cache.format.layout import MANIFEST
from cache.format.sealed_files import seal, unseal_bytes
from cache.hdf5 import export_store, import_store
from idif.errors import StoreDamaged, StoreError
from tests.helpers.tiny_data import tiny_index, tree
from tests.helpers.tiny_store import build_tiny

INDEX = tiny_index(train=3, test=2)


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


def reseal(group: h5py.Group, change: Callable[[dict[str, Any]], None]) -> None:
    """Change a group's manifest and give it a digest that fits, as someone who means harm would."""
    value = unseal_bytes(bytes(group[MANIFEST][:].tobytes()), "test")
    value.pop("sha256")
    change(value)
    del group[MANIFEST]
    group[MANIFEST] = np.frombuffer(seal(value), np.uint8)


def rename_category(name: str) -> Callable[[h5py.File], None]:
    def harm_file(file: h5py.File) -> None:
        file.move("cup", name)
        for split in ("train", "test"):
            reseal(file[f"{name}/{split}"], lambda value: value.update(category=name))

    return harm_file


def shard_outside(file: h5py.File) -> None:
    def change(value: dict[str, Any]) -> None:
        files = value["shards"][0]["files"]
        files["../../../outside"] = files.pop(next(iter(files)))

    reseal(file["cup/train"], change)


def array_outside(file: h5py.File) -> None:
    def change(value: dict[str, Any]) -> None:
        value["spec"]["layers"][0]["name"] = "../../../layer"

    reseal(file, change)


def shard_twice(file: h5py.File) -> None:
    reseal(file["cup/train"], lambda value: value["shards"].append(value["shards"][0]))


def other_values(file: h5py.File) -> None:
    reseal(file["cup/train"], lambda value: value.update(index=[1]))


def external_link(file: h5py.File) -> None:
    del file["cup/train/masks"]
    file["cup/train/masks"] = h5py.ExternalLink("other.h5", "masks")


def soft_link(file: h5py.File) -> None:
    file["again"] = h5py.SoftLink("/cup")


def external_bytes(file: h5py.File) -> None:
    del file["teacher.safetensors"]
    file.create_dataset("teacher.safetensors", (8,), np.uint8, external=[("/etc/passwd", 0, 8)])


def bomb(file: h5py.File) -> None:
    del file["teacher.safetensors"]
    file.create_dataset("teacher.safetensors", (2**46,), np.uint8, chunks=(2**20,), compression=9)


STRANGERS: dict[str, Callable[[h5py.File], None]] = {
    "reserved": rename_category("con"),
    "control": rename_category("cup\x1b[31m"),
    "long": rename_category("x" * 200),
    "shard-outside": shard_outside,
    "array-outside": array_outside,
    "shard-twice": shard_twice,
    "other-values": other_values,
    "external-link": external_link,
    "soft-link": soft_link,
    "external-bytes": external_bytes,
    "bomb": bomb,
}


@pytest.mark.parametrize("how", STRANGERS)
def test_a_hostile_file_writes_nothing(exported: Path, tmp_path: Path, how: str) -> None:
    file = Path(shutil.copy(exported, tmp_path / "s.h5"))
    with h5py.File(file, "r+") as opened:
        STRANGERS[how](opened)
    with pytest.raises(StoreDamaged) as refused:
        import_store(file, tmp_path / "deep" / "er" / "back")
    assert str(refused.value).isprintable()
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["s.h5"]


def test_a_category_named_as_the_parent_folder_is_refused(exported: Path, tmp_path: Path) -> None:
    file = Path(shutil.copy(exported, tmp_path / "s.h5"))
    with h5py.File(file, "r+") as opened:
        rename_category("..")(opened)
    neighbor = tmp_path / "stores" / "test"
    neighbor.mkdir(parents=True)
    (neighbor / MANIFEST).write_text("another store's")
    with pytest.raises(StoreDamaged, match=r"category '\.\.'"):
        import_store(file, neighbor.parent / "back")
    assert tree(neighbor.parent) == {f"test/{MANIFEST}": b"another store's"}
