"""Building a store: resumed, extended and refused by name; nothing half-written is ever published."""

import errno
import json
import multiprocessing
import os
import shutil
import socket
from collections import namedtuple
from collections.abc import Callable
from dataclasses import replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest
import torch

from cache import FeatureStore
from cache.building.build import BuildReport
from cache.building.journal import Journal
from cache.building.lock import builder_lock
from cache.format.manifest import ShardRecord
from idif.data.index import Index, Sample, View
from idif.encoders.family import fixed
from idif.encoders.frozen import ENCODERS, FrozenEncoder, find_family, hash_weights
from idif.errors import (
    CannotFinish,
    ConfigError,
    DatasetError,
    StoreDamaged,
    StoreError,
    StoreIncomplete,
    StoreMismatch,
)
from tests.helpers.tiny_data import tiny_index, tree, two_cameras, untrained
from tests.helpers.tiny_store import build_tiny

INDEX = tiny_index()


def build(data: Path, store: Path, index: Index = INDEX, **options: Any) -> BuildReport:
    return build_tiny(data, index, store, **options)


@pytest.fixture(scope="module")
def reference(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    store = tmp_path_factory.mktemp("store") / "reference"
    build(data, store)
    return store


@pytest.fixture
def built(reference: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(reference, tmp_path / "built"))


@pytest.fixture
def data_copy(data: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(data, tmp_path / "data"))


def stop_after(encoder: FrozenEncoder, batches: int, error: type[BaseException] = KeyboardInterrupt) -> Any:
    """Make an encoder fail at its n-th call."""
    calls = 0

    def count(*_: object) -> None:
        nonlocal calls
        calls += 1
        if calls > batches:
            raise error

    return encoder.module.register_forward_pre_hook(count)


def change_view(index: Index, row: int, slot: int, **changes: Any) -> Index:
    sample = index.samples[row]
    view = sample.views[slot]
    assert view is not None
    views = (*sample.views[:slot], replace(view, **changes), *sample.views[slot + 1 :])
    samples = [*index.samples[:row], replace(sample, views=views), *index.samples[row + 1 :]]
    return replace(index, samples=tuple(samples))


def test_the_order_of_the_index_does_not_matter(data: Path, reference: Path, tmp_path: Path) -> None:
    shuffled = INDEX.take(reversed(range(len(INDEX))))
    build(data, tmp_path / "s", shuffled)
    assert tree(tmp_path / "s") == tree(reference)


def test_a_second_build_encodes_nothing_and_changes_nothing(data: Path, built: Path, reference: Path) -> None:
    encoder = untrained()
    stop_after(encoder, 0)
    seen: list[tuple[int, int]] = []
    report = build(
        data, built, encoder=encoder, progress=lambda done, total, what="": seen.append((done, total))
    )
    assert (report.shards_encoded, report.shards_kept) == (0, 10)
    assert seen[-1] == (50, 50)
    assert tree(built) == tree(reference)


@pytest.mark.parametrize("batches", [0, 1, 4, 9])
def test_an_interrupted_build_is_refused_then_continued(
    data: Path, reference: Path, tmp_path: Path, batches: int
) -> None:
    store, encoder = tmp_path / "s", untrained()
    stop_after(encoder, batches)
    with pytest.raises(KeyboardInterrupt):
        build(data, store, encoder=encoder)
    assert not (store / "build.lock").exists()
    with pytest.raises(StoreIncomplete):
        FeatureStore.open(store)
    report = build(data, store)
    assert report.shards_kept == batches  # a batch is a whole shard here
    assert report.shards_kept + report.shards_encoded == 10
    assert tree(store) == tree(reference)


def test_a_store_cut_between_two_groups_is_not_taken_for_whole(data: Path, tmp_path: Path) -> None:
    encoder = untrained()
    stop_after(encoder, 3)  # the first group has three shards
    with pytest.raises(KeyboardInterrupt):
        build(data, tmp_path / "s", encoder=encoder)
    assert (tmp_path / "s/bolt/train/manifest.json").exists()
    with pytest.raises(StoreIncomplete, match="bolt/test"):
        FeatureStore.open(tmp_path / "s")
    assert len(FeatureStore.open(tmp_path / "s", ["bolt"], "train").index) == 5


def test_categories_and_splits_are_added(data: Path, reference: Path, tmp_path: Path) -> None:
    store = tmp_path / "s"
    for category, split in (("cup", "test"), ("bolt", "test"), ("cup", "train"), ("bolt", "train")):
        build(data, store, INDEX.take(INDEX.rows(lambda s: (s.category, s.split) == (category, split))))  # noqa: B023
    assert tree(store) == tree(reference)


def test_a_category_of_fewer_cameras_is_the_one_that_was_built_beside_others(
    data_copy: Path, tmp_path: Path
) -> None:
    whole = two_cameras(INDEX, "cup")
    bolt, cup = (whole.take(whole.rows(lambda s: s.category == name)) for name in ("bolt", "cup"))  # noqa: B023
    cup = cup.with_views((1, 2))
    build(data_copy, tmp_path / "whole", whole)
    before = tree(tmp_path / "whole")
    report = build(data_copy, tmp_path / "whole", cup)
    assert (report.groups, report.shards_encoded) == (("cup/train", "cup/test"), 0)
    build(data_copy, tmp_path / "extended", bolt)
    assert build(data_copy, tmp_path / "extended", cup).shards_encoded == 5
    build(data_copy, tmp_path / "continued", bolt.take(bolt.rows(lambda s: s.split == "test")))
    encoder = untrained()
    stop_after(encoder, 2)
    with pytest.raises(KeyboardInterrupt):
        build(data_copy, tmp_path / "continued", whole, encoder=encoder)
    build(data_copy, tmp_path / "continued", cup)
    build(data_copy, tmp_path / "continued", bolt)
    assert before == tree(tmp_path / "whole") == tree(tmp_path / "extended") == tree(tmp_path / "continued")
    with pytest.raises(StoreMismatch, match="view 2: is in the store but not in the data"):
        build(data_copy, tmp_path / "whole", cup.with_views((1,)))
    build(data_copy, tmp_path / "cup", cup)
    with pytest.raises(StoreMismatch, match=r"view numbers: \[1, 2\], not \[1, 2, 3\]"):
        build(data_copy, tmp_path / "cup", bolt)


def test_a_moved_and_touched_dataset_is_accepted(data_copy: Path, built: Path) -> None:
    for path in data_copy.rglob("*"):
        os.utime(path, (1, 1))
    assert build(data_copy, built).shards_encoded == 0


def other_weights() -> FrozenEncoder:
    torch.manual_seed(1)
    module = find_family("resnet18").build().eval()
    return FrozenEncoder("resnet18", "file", hash_weights(module.state_dict()), module)


OTHER_SETTINGS = [
    ({"encoder": other_weights}, "weights_sha256"),
    ({"image_size": 48}, "image_size: 32, not 48"),
    ({"shard_rows": 4}, "shard_rows: 2, not 4"),
    ({"storage": "uint8"}, "storage: 'float16', not 'uint8'"),
]


@pytest.mark.parametrize(("options", "part"), OTHER_SETTINGS)
def test_other_settings_are_named(
    data: Path, built: Path, reference: Path, options: dict[str, Any], part: str
) -> None:
    made = {key: value() if callable(value) else value for key, value in options.items()}
    with pytest.raises(StoreMismatch, match=part):
        build(data, built, **made)
    assert tree(built) == tree(reference)


def test_another_resize_rule_is_named(data: Path, built: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    family = find_family("resnet18")
    other = replace(family, preparation={**family.preparation, "resize": "other"})
    monkeypatch.setitem(ENCODERS, "resnet18", fixed(other))
    with pytest.raises(StoreMismatch, match=r"resize: .*, not 'other'"):
        build(data, built)


def test_other_view_numbers_are_named(data: Path, built: Path) -> None:
    def renumber(sample: Sample) -> Sample:
        return replace(sample, views=tuple(v and replace(v, number=v.number + 1) for v in sample.views))

    other = Index((2, 3, 4), tuple(renumber(sample) for sample in INDEX.samples))
    with pytest.raises(StoreMismatch, match=r"view numbers: \[1, 2, 3\], not \[2, 3, 4\]"):
        build(data, built, other)


def test_other_samples_and_labels_are_named(data: Path, built: Path) -> None:
    missing = INDEX.take(range(1, len(INDEX)))
    with pytest.raises(StoreMismatch, match="sample cup/OK/S0000 is in the store but not in the data"):
        build(data, built, missing)
    extra = replace(INDEX.samples[0], sample_id="cup/OK/S0099")
    with pytest.raises(StoreMismatch, match="sample cup/OK/S0099 is in the data but not in the store"):
        build(data, built, replace(INDEX, samples=(*INDEX.samples, extra)))
    with pytest.raises(StoreMismatch, match="S1001, view 3: label is scratch in the store, dent in the data"):
        build(data, built, change_view(INDEX, 6, 2, anomaly_class="dent"))
    with pytest.raises(StoreMismatch, match="S1001, view 3: a mask is in the store only"):
        build(data, built, change_view(INDEX, 6, 2, mask=None))
    lost = replace(INDEX.samples[0], views=(None, *INDEX.samples[0].views[1:]))
    with pytest.raises(StoreMismatch, match="S0000, view 1: is in the store but not in the data"):
        build(data, built, replace(INDEX, samples=(lost, *INDEX.samples[1:])))


@pytest.mark.parametrize("kind", ["image", "mask"])
def test_changed_content_is_named(data_copy: Path, built: Path, kind: str) -> None:
    view = INDEX.samples[6].views[2]
    assert isinstance(view, View)
    path = data_copy / str(getattr(view, kind))
    path.write_bytes(path.read_bytes() + b"\0")
    with pytest.raises(StoreMismatch, match=f"S1001, view 3: the {kind}'s content differs"):
        build(data_copy, built)


def test_content_changed_before_a_continuation_is_named(data_copy: Path, tmp_path: Path) -> None:
    encoder = untrained()
    stop_after(encoder, 2)
    with pytest.raises(KeyboardInterrupt):
        build(data_copy, tmp_path / "s", encoder=encoder)
    view = INDEX.samples[9].views[0]  # the first row of the first group
    assert view is not None
    (data_copy / view.image).write_bytes(b"other")
    with pytest.raises(StoreMismatch, match="bolt/OK/S0000, view 1: the image"):
        build(data_copy, tmp_path / "s")


def _cut(line: bytes) -> bytes:
    return line[:-5]


def _change_a_checksum(line: bytes) -> bytes:
    at = line.rindex(b'"crc32c":{"layer1":[') + len(b'"crc32c":{"layer1":[')
    return line[:at] + (b"1" if line[at : at + 1] != b"1" else b"2") + line[at + 1 :]


@pytest.mark.parametrize("harm", [_cut, _change_a_checksum])
def test_a_torn_or_flipped_journal_loses_only_its_last_line(
    data: Path, reference: Path, tmp_path: Path, harm: Callable[[bytes], bytes]
) -> None:
    encoder = untrained()
    stop_after(encoder, 2)
    with pytest.raises(KeyboardInterrupt):
        build(data, tmp_path / "s", encoder=encoder)
    journal = tmp_path / "s/bolt/train/build.jsonl"
    journal.write_bytes(harm(journal.read_bytes()))
    assert build(data, tmp_path / "s").shards_kept == 1
    assert tree(tmp_path / "s") == tree(reference)


def test_a_build_cut_short_before_its_first_image_is_known_as_one(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    # before the root's manifest, before the groups' plans
    for step in ("cache.building.build.weights_bytes", "cache.building.build.Journal.begin"):
        with monkeypatch.context() as patch:
            patch.setattr(step, interrupt)
            with pytest.raises(KeyboardInterrupt):
                build(data, tmp_path / "s")
        with pytest.raises(StoreIncomplete):
            FeatureStore.open(tmp_path / "s", ["cup"])
    build(data, tmp_path / "s")
    assert not (tmp_path / "s/building.json").exists()


def test_a_finished_group_that_lost_a_file_is_not_extended(data: Path, built: Path) -> None:
    (built / "cup/train/images/c/0/0/0/0/0").unlink()
    with pytest.raises(StoreDamaged, match="shard 0 are missing"):
        build(data, built)


def test_bad_images_are_named_and_nothing_is_published(data_copy: Path, tmp_path: Path) -> None:
    view = INDEX.samples[4].views[1]
    assert view is not None
    path = data_copy / view.image
    whole = path.read_bytes()
    for harm, text in (
        (lambda: path.write_bytes(whole[: len(whole) // 7]), "image cannot be read"),
        (path.unlink, "image is missing"),
    ):
        harm()
        with pytest.raises(DatasetError, match=f"{path.name}: {text}"):
            build(data_copy, tmp_path / "s", INDEX.take(range(5)))
        with pytest.raises(StoreIncomplete):
            FeatureStore.open(tmp_path / "s")


@pytest.mark.parametrize(("value", "kind"), [(float("nan"), "weights"), (3e30, "overflow")])
def test_features_that_are_not_finite_stop_the_build(
    data: Path, tmp_path: Path, value: float, kind: str
) -> None:
    encoder = untrained()

    def spoil(module: object, inputs: tuple[Any, ...], output: dict[str, torch.Tensor]) -> None:
        if inputs[0].shape[0] == 5:  # the second sample of this shard lacks a view
            output["layer2"][3, 7, 1, 2] = value

    encoder.module.register_forward_hook(spoil)
    with pytest.raises(
        CannotFinish, match=r"row 1 \(sample bolt/OK/S0001\), view 1, layer2: .* not finite as float16"
    ):
        build(data, tmp_path / "s", encoder=encoder)
    with pytest.raises(StoreIncomplete):
        FeatureStore.open(tmp_path / "s")


def test_space_is_checked_before_anything_is_encoded(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Usage = namedtuple("Usage", "total used free")
    monkeypatch.setattr("cache.building.build_state.shutil.disk_usage", lambda path: Usage(10**6, 0, 900_000))
    with pytest.raises(CannotFinish, match=r"needs 0\.000995 GB and 0\.0009 GB are free"):
        build(data, tmp_path / "s")
    assert list((tmp_path / "s").iterdir()) == []


def test_a_disk_that_fills_up_loses_nothing(
    data: Path, reference: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = 0
    sync = os.fsync

    def full(descriptor: int) -> None:
        nonlocal written
        written += 1
        if written > 400:
            raise OSError(errno.ENOSPC, "No space left on device")
        sync(descriptor)

    with monkeypatch.context() as patch:
        patch.setattr("idif.files.os.fsync", full)
        with pytest.raises(CannotFinish, match="no space left"):
            build(data, tmp_path / "s")
    assert not list((tmp_path / "s").rglob("*.tmp"))
    report = build(data, tmp_path / "s")
    assert report.shards_kept > 0
    assert tree(tmp_path / "s") == tree(reference)


def test_a_shard_is_on_the_disk_before_it_counts_as_finished(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a power cut a journal must not name a shard that is gone, nor forget one that was finished."""
    synced: dict[int, int] = {}
    sync, add, added = os.fsync, Journal.add, list[ShardRecord]()

    def recorded(descriptor: int) -> None:
        sync(descriptor)
        synced[os.fstat(descriptor).st_ino] = os.fstat(descriptor).st_size

    def is_synced(path: Path) -> bool:
        return synced.get(path.stat().st_ino) == path.stat().st_size

    def checked(journal: Journal, record: ShardRecord) -> None:
        assert all(is_synced(journal.path.parent / name) for name in record.files)
        add(journal, record)
        assert is_synced(journal.path)
        added.append(record)

    monkeypatch.setattr(os, "fsync", recorded)
    monkeypatch.setattr(Journal, "add", checked)
    assert build(data, tmp_path / "s").shards_encoded == len(added) > 0


def test_folders_that_cannot_be_a_store_are_refused(data: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(StoreError, match="expected a folder"):
        build(data, tmp_path / "file")
    with pytest.raises(StoreError, match="cannot be written"):
        build(data, tmp_path / "file" / "below")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.tex").write_text("x")
    with pytest.raises(StoreError, match=r"not a store and not empty \(it holds thesis\.tex\)"):
        build(data, tmp_path / "full")
    assert tree(tmp_path / "full") == {"thesis.tex": b"x"}


def test_settings_that_cannot_be_used_are_refused(data: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="image_size: expected a positive multiple of 16, got 20"):
        build(data, tmp_path / "s", image_size=20)
    with pytest.raises(DatasetError, match="no samples"):
        build(data, tmp_path / "s", INDEX.take([]))
    with pytest.raises(DatasetError, match="cup/OK/S0000 occurs twice"):
        build(data, tmp_path / "s", INDEX.take([0, 0]))
    bad = replace(INDEX.samples[0], category="../cup")
    with pytest.raises(StoreError, match=r"'\.\./cup'"):
        build(data, tmp_path / "s", replace(INDEX, samples=(bad,)))
    assert not (tmp_path / "s").exists()


def _hold_lock(store: Path, connection: Connection) -> None:
    with builder_lock(store):
        connection.send(os.getpid())
        connection.recv()


def test_a_second_builder_is_refused_and_a_dead_one_is_not_waited_for(data: Path, built: Path) -> None:
    shutil.rmtree(built / "cup")  # a complete store needs no lock
    spawn = multiprocessing.get_context("spawn")
    ours, theirs = spawn.Pipe()
    process = spawn.Process(target=_hold_lock, args=(built, theirs))
    process.start()
    assert ours.poll(60)
    pid = ours.recv()
    with pytest.raises(StoreError, match=f"process {pid} on {socket.gethostname()} is building here"):
        build(data, built)
    process.kill()
    process.join()
    assert json.loads((built / "build.lock.holder").read_text())["pid"] == pid  # it left its lock behind
    assert build(data, built).shards_kept == 5
    assert not list(built.glob("build.lock*"))


def test_two_builders_in_one_process(data: Path, built: Path) -> None:
    shutil.rmtree(built / "cup")
    with builder_lock(built), pytest.raises(StoreError, match=f"process {os.getpid()}"):
        build(data, built)
