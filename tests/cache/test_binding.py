"""What belongs together stays together: groups and stores, pixels and hashes, leftovers and their maker."""

import errno
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import cache.checking.repair
import cache.hdf5
import idif.data.images
import idif.encoders.encode
from cache import FeatureStore
from cache.building.build import BuildReport
from cache.checking.verify import verify_store
from cache.format.layout import MANIFEST, GroupName
from cache.format.manifest import GroupManifest, RootManifest
from cache.format.sealed_files import FileRecord, seal, seal_of, unseal, write_file
from cache.format.shard_codec import encode_shard_file, row_checksums
from cache.hdf5 import export_store, import_store
from cache.reading import open_groups
from idif.corruption.textures import load_textures
from idif.data.features import FIRST_MASK_RULE
from idif.data.images import HashingReader
from idif.errors import DatasetError, StoreDamaged, StoreError, StoreIncomplete, StoreMismatch
from tests.helpers.tiny_data import make_tiny_realiad, tiny_index, tree
from tests.helpers.tiny_store import build_tiny

INDEX = tiny_index(train=3, test=2)
OTHER = tiny_index(categories=("cup", "nut"), train=3, test=2)
CUP = GroupName.of("cup", "train")


@pytest.fixture(scope="module")
def built(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("store") / "s"
    build_tiny(data, INDEX, path)
    return path


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of the same settings and sample ids, but of other photographs."""
    home = tmp_path_factory.mktemp("other")
    make_tiny_realiad(home / "data", OTHER, seed=1)
    build_tiny(home / "data", OTHER, home / "s")
    return home / "s"


@pytest.fixture
def store(built: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(built, tmp_path / "s"))


def build(data: Path, store: Path, categories: Sequence[str] = ("cup", "bolt")) -> BuildReport:
    index = INDEX.take([row for row, s in enumerate(INDEX.samples) if s.category in categories])
    return build_tiny(data, index, store)


def problems(store: Path) -> str:
    return "; ".join(map(str, verify_store(store).problems))


def reseal(store: Path, change: Callable[[dict[str, Any]], None], group: GroupName = CUP) -> None:
    """Change a group's manifest and the root's list so that both are whole, as an attacker would."""
    path = store / str(group) / MANIFEST
    value = unseal(path)
    del value["sha256"]
    change(value)
    path.write_bytes(seal(value))
    root = RootManifest.load(store).with_group(group, seal_of(path.read_bytes()))
    (store / MANIFEST).write_bytes(root.to_bytes())


def test_a_group_of_another_store_is_refused(store: Path, other: Path) -> None:
    shutil.rmtree(store / "cup")
    shutil.copytree(other / "cup", store / "cup")
    with pytest.raises(StoreDamaged, match=r"cup/train/manifest\.json: not the one that the store lists"):
        FeatureStore.open(store)
    assert "cup/train/manifest.json: not the one that the store lists" in problems(store)
    assert len(FeatureStore.open(store, ["bolt"])) == 5


def test_a_group_that_was_added_is_refused(store: Path, other: Path) -> None:
    shutil.copytree(other / "nut", store / "nut")
    with pytest.raises(StoreDamaged, match="the store does not list nut/train, it is of another store"):
        FeatureStore.open(store)
    assert "nut/train/manifest.json: not the one that the store lists" in problems(store)


def test_a_group_that_was_removed_is_missed(store: Path, data: Path, built: Path) -> None:
    shutil.rmtree(store / "cup")
    with pytest.raises(StoreDamaged, match="missing, but the store lists cup/train; build it again"):
        FeatureStore.open(store)
    assert "cup/train/manifest.json: missing: the store lists this group" in problems(store)
    assert len(FeatureStore.open(store, ["bolt"])) == 5
    build(data, store)
    assert tree(store) == tree(built)


def test_a_manifest_without_a_shard_is_refused(store: Path) -> None:
    reseal(store, lambda value: value["shards"].pop())
    with pytest.raises(StoreDamaged, match="does not list every shard once, in order"):
        FeatureStore.open(store)
    assert "does not list every shard once, in order" in problems(store)


@pytest.mark.parametrize("key", ["crc32c", "files"])
def test_a_manifest_without_an_array_is_refused(store: Path, key: str) -> None:
    reseal(store, lambda value: value["shards"][0][key].popitem())
    with pytest.raises(StoreDamaged, match="shard 0 does not list"):
        FeatureStore.open(store)


def test_labels_on_the_disk_are_compared_with_the_samples(store: Path) -> None:
    group = GroupName.of("cup", "test")
    plan = GroupManifest.load(store / str(group)).plan
    layout = next(a for a in plan.array_layouts(RootManifest.load(store).spec) if a.name == "labels")
    zeros = np.zeros((2, *layout.row_shape), bool)
    content = encode_shard_file(layout, 2, plan.shard_rows, 0, zeros)
    name = layout.shard_file(0)
    (store / str(group) / name).write_bytes(content)

    def promise(value: dict[str, Any]) -> None:
        record = FileRecord.of(content)
        value["shards"][0]["files"][name] = {"size": record.size, "sha256": record.sha256}
        value["shards"][0]["crc32c"]["labels"] = list(row_checksums(zeros))

    reseal(store, promise, group)
    assert "labels/c/0/0: values differ from the manifest's samples (row 0 of cup/test)" in problems(store)


def test_a_build_killed_before_the_root_lists_its_group(
    data: Path, built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("cache.building.build.list_in_root", killed)
        with pytest.raises(KeyboardInterrupt):
            build(data, tmp_path / "s")
    assert (tmp_path / "s" / "bolt" / "train" / MANIFEST).exists()
    with pytest.raises(StoreIncomplete, match="run 'idif cache build' again"):
        FeatureStore.open(tmp_path / "s", ["bolt"], "train")
    build(data, tmp_path / "s")
    assert tree(tmp_path / "s") == tree(built)


def test_a_store_that_lists_no_groups_is_read_as_before(store: Path, data: Path) -> None:
    """Those of version 0.2."""
    value = unseal(store / MANIFEST)
    del value["sha256"], value["groups"]
    (store / MANIFEST).write_bytes(seal(value))
    assert len(FeatureStore.open(store)) == 10
    assert verify_store(store).sound
    assert build(data, store).shards_encoded == 0


def test_a_group_of_other_settings_is_found_where_the_root_lists_none(store: Path) -> None:
    value = unseal(store / MANIFEST)
    del value["sha256"], value["groups"]
    (store / MANIFEST).write_bytes(seal(value))
    group = unseal(store / "bolt" / "train" / MANIFEST)
    del group["sha256"]
    group["spec"] = "0" * 64
    (store / "bolt" / "train" / MANIFEST).write_bytes(seal(group))
    (problem,) = verify_store(store).problems
    assert (problem.file, problem.what) == (
        "bolt/train/manifest.json",
        "belongs to a store of other settings",
    )


def test_a_store_of_another_mask_rule_is_read_but_not_extended(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("idif.encoders.encode.MASK_RULE", FIRST_MASK_RULE)
        build(data, tmp_path / "s", ["cup"])
    assert "mask_rule" not in unseal(tmp_path / "s" / MANIFEST)["spec"], "its fingerprint is as it was"
    assert verify_store(tmp_path / "s").sound
    with pytest.raises(StoreMismatch, match="mask_rule: None, not 'grey-levels/v2'"):
        build(data, tmp_path / "s")


def test_a_complete_store_needs_no_writing(store: Path, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    before = tree(store)
    monkeypatch.setattr("idif.locks.FileLock.acquire", refuse)
    monkeypatch.setattr("idif.files.os.replace", refuse)
    report = build(data, store)
    assert (report.shards_encoded, report.shards_kept) == (0, 6)
    assert tree(store) == before
    shutil.rmtree(store / "cup")
    with pytest.raises(StoreError, match="Read-only file system"):
        build(data, store)


def test_textures_lie_elsewhere_if_the_store_is_read_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read_only, own = tmp_path / "stores", tmp_path / "runs"
    with monkeypatch.context() as patch:
        patch.setattr("idif.corruption.textures.is_writable", lambda folder: folder == own)
        load_textures("procedural", 8, read_only, fallback=own)
        assert [path.parent for path in tmp_path.rglob("*.npy")] == [own]
        load_textures("procedural", 16, own)
    shutil.move(own, read_only)
    monkeypatch.setattr("idif.corruption.textures._build", None)  # what is there is read
    load_textures("procedural", 16, read_only, fallback=own)


def test_the_hash_is_that_of_the_decoded_pixels(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = Path(shutil.copytree(data, tmp_path / "data"))
    first, second = (INDEX.samples[row].views[0] for row in (0, 1))
    assert first is not None
    assert second is not None
    replacement = (root / second.image).read_bytes()
    decoded = hashlib.sha256((root / first.image).read_bytes()).hexdigest()
    decode = idif.data.images.decode

    def replaced(content: bytes, path: Path, what: Any) -> Any:
        picture = decode(content, path, what)
        if path == root / first.image:
            path.write_bytes(replacement)
        return picture

    with monkeypatch.context() as patch:
        patch.setattr("idif.data.images.decode", replaced)
        build(root, tmp_path / "s")
    content = GroupManifest.load(tmp_path / "s" / "cup" / "train").content[0].views[0]
    assert content is not None
    assert content.image == decoded
    found = verify_store(tmp_path / "s", root=root, index=INDEX)
    assert "view 1: the image's content differs" in "; ".join(map(str, found.problems))


def test_a_file_that_changes_while_other_code_reads_it(tmp_path: Path) -> None:
    path, read = tmp_path / "a.wav", HashingReader()
    path.write_bytes(b"before")
    with read.watching(path):
        pass
    assert read.sha256 == {path: hashlib.sha256(b"before").hexdigest()}
    with pytest.raises(DatasetError, match=r"a\.wav: changed while it was read"), read.watching(path):
        path.write_bytes(b"after")


def killed_import(source: Path, store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Import until the third shard, and clean nothing up."""
    write, done = cache.hdf5._write, 0

    def killed(*arguments: Any) -> Any:
        nonlocal done
        done += 1
        if done == 3:
            raise KeyboardInterrupt
        return write(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr("cache.hdf5._write", killed)
        patch.setattr("cache.hdf5.remove_tree", lambda path: None)
        with pytest.raises(KeyboardInterrupt):
            import_store(source, store)


def test_what_a_killed_import_left_is_no_part_of_the_next(
    built: Path, other: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    export_store(other, tmp_path / "other.h5")
    export_store(built, tmp_path / "s.h5")
    killed_import(tmp_path / "s.h5", tmp_path / "back", monkeypatch)
    assert (tmp_path / "back.tmp").exists()
    import_store(tmp_path / "other.h5", tmp_path / "back")
    assert tree(tmp_path / "back") == tree(other)
    assert not (tmp_path / "back.tmp").exists()


def test_a_folder_in_the_way_of_an_import_is_not_touched(built: Path, tmp_path: Path) -> None:
    export_store(built, tmp_path / "s.h5")
    (tmp_path / "back.tmp").mkdir()
    (tmp_path / "back.tmp" / "thesis.tex").write_text("years")
    with pytest.raises(StoreError, match=r"back\.tmp: in the way, .* \(it holds thesis\.tex\); move it away"):
        import_store(tmp_path / "s.h5", tmp_path / "back")
    assert tree(tmp_path / "back.tmp") == {"thesis.tex": b"years"}


def nudge(monkeypatch: pytest.MonkeyPatch) -> None:
    """Encode as a machine that rounds otherwise."""
    encode = idif.encoders.encode.encode_present

    def nudged(*arguments: Any) -> dict[str, torch.Tensor]:
        return {name: x * (1 + 2e-3) for name, x in encode(*arguments).items()}

    monkeypatch.setattr(idif.encoders.encode, "encode_present", nudged)


def test_readers_beside_a_repair_see_one_state_or_a_refusal(
    store: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nudge(monkeypatch)
    early, late = FeatureStore.open(store, ["cup"], "train"), FeatureStore.open(store, ["cup"], "train")
    before = late.read(range(3)).arrays["layer1"].clone()
    (store / "cup/train/layer1/c/1/0/0/0/0").unlink()
    write, said, read = write_file, set(), []

    def look() -> None:
        try:
            read.append(FeatureStore.open(store, ["cup"], "train").read(range(2)).arrays["layer1"])
        except StoreError as error:
            said.add(f"{type(error).__name__}: {str(error).removeprefix(str(store))}")

    def watched(path: Path, content: bytes) -> None:
        write(path, content)
        look()

    monkeypatch.setattr("cache.checking.repair.write_file", watched)
    (store / "cup/train/layer1/c/0/0/0/0/0").unlink()
    assert verify_store(store, root=data, index=INDEX, repair=True).sound
    look()
    assert said == {
        "StoreIncomplete: : cup/train is being repaired, or its repair was cut short; wait for it, or run "
        "'idif cache verify --repair' again"
    }
    assert len(read) == 1
    assert not torch.equal(read[0], before[:2])
    with pytest.raises(StoreDamaged, match="was repaired or built again while the store was open"):
        early.read(range(3))


def test_a_repair_that_was_killed_is_finished_by_the_next(
    store: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: Any) -> None:
        raise KeyboardInterrupt

    nudge(monkeypatch)
    (store / "cup/train/layer1/c/0/0/0/0/0").unlink()
    with monkeypatch.context() as patch:
        patch.setattr("cache.checking.repair.list_in_root", interrupted)
        with pytest.raises(KeyboardInterrupt):
            verify_store(store, root=data, index=INDEX, repair=True)
    with pytest.raises(StoreIncomplete, match="its repair was cut short"):
        FeatureStore.open(store, ["cup"])
    with pytest.raises(StoreDamaged, match="a repair of cup/train was cut short"):
        build(data, store)
    assert "a repair of cup/train is going on, or was cut short" in problems(store)
    assert verify_store(store, root=data, index=INDEX, repair=True).sound
    assert FeatureStore.open(store).read(range(10)).arrays["layer1"].shape[0] == 10


def test_a_store_extended_while_it_is_opened_is_read_as_it_is_now(
    built: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    load, stale = open_groups.load_root, [True]

    def load_old(store: Any) -> RootManifest:
        root = load(store)
        if not stale:
            return root
        stale.clear()
        return root.with_group(CUP, "0" * 64)

    monkeypatch.setattr(open_groups, "load_root", load_old)
    assert len(FeatureStore.open(built)) == 10


def test_the_old_list_of_groups_names_no_other_folders(store: Path) -> None:
    value = unseal(store / MANIFEST)
    del value["sha256"]
    value["groups"]["../outside/train"] = "0" * 64
    (store / MANIFEST).write_bytes(seal(value))
    with pytest.raises(StoreDamaged, match=r"manifest\.json"):
        FeatureStore.open(store)
    assert json.loads((store / MANIFEST).read_bytes())["groups"]
