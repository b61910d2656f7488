"""Verification finds every kind of damage and every change of the data; repair mends what is broken."""

import random
import shutil
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import idif.encoders.encode
from cache import FeatureStore
from cache.checking.verify import verify_store
from cache.checking.verify_report import Problem
from idif.data.index import Index
from idif.errors import StoreError
from idif.progress import Progress
from tests.helpers.tiny_data import tiny_index, tree, untrained
from tests.helpers.tiny_store import build_tiny

INDEX = tiny_index(train=3, test=3)


@pytest.fixture(scope="module")
def built(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    store = tmp_path_factory.mktemp("store") / "tiny"
    build_tiny(data, INDEX, store)
    return store


@pytest.fixture
def store(built: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(built, tmp_path / "store"))


def test_a_sound_store_has_no_problems(store: Path, data: Path) -> None:
    before = tree(store)
    seen: dict[str, list[tuple[int, int]]] = {}

    def bar(title: str, unit: str) -> AbstractContextManager[Progress]:
        calls = seen.setdefault(unit, [])
        return nullcontext(lambda done, total, what="": calls.append((done, total)))

    report = verify_store(store, root=data, index=INDEX, deep=True, bar=bar)
    assert report.sound, report.problems
    assert report.files >= len(before)
    assert report.views_compared == sum(sum(sample.present) for sample in INDEX.samples)
    assert report.rows_encoded == len(INDEX)
    assert {unit: calls[-1][0] for unit, calls in seen.items() if unit != "bytes"} == {
        "views": report.views_compared,
        "rows": report.rows_encoded,
    }
    for calls in seen.values():
        assert calls == sorted(calls)
        assert calls[-1][0] <= calls[-1][1] == calls[0][1]
    assert tree(store) == before


def flip(raw: bytes, rng: random.Random) -> bytes:
    bit = rng.randrange(len(raw) * 8)
    changed = bytearray(raw)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


def damage_and_verify(store: Path, count: int, seed: int) -> None:
    """Each harm is done alone, must be reported with its file, and is undone again."""
    rng = random.Random(seed)
    files = sorted(path for path in store.rglob("*") if path.is_file())
    for number in range(count):
        kind = ("flip", "flip", "truncate", "delete", "swap")[number % 5]
        path = rng.choice(files)
        raw = path.read_bytes()
        others = [f for f in files if f.parts[-5:-3] == path.parts[-5:-3] and f.read_bytes() != raw]
        touched = {path: raw}
        if kind == "flip":
            path.write_bytes(flip(raw, rng))
        elif kind == "truncate":
            path.write_bytes(raw[: rng.randrange(len(raw))])
        elif kind == "delete":
            path.unlink()
        else:
            other = rng.choice([f for f in files if f.name == path.name and f.read_bytes() != raw] or others)
            touched[other] = other.read_bytes()
            path.write_bytes(touched[other])
            other.write_bytes(raw)
        problems = verify_store(store).problems
        for each in touched:
            name = each.relative_to(store).as_posix()
            found = [p for p in problems if p.file == name]
            assert found, (kind, name, problems)
            if "/c/" in name:
                assert found[0].rows, (kind, name)
        for each, content in touched.items():
            each.write_bytes(content)


def test_random_damage_is_always_found(store: Path) -> None:
    damage_and_verify(store, 60, seed=0)
    assert verify_store(store).sound


@pytest.mark.long
def test_five_hundred_damages_are_found(store: Path) -> None:
    damage_and_verify(store, 500, seed=1)


def test_damage_names_its_rows(store: Path) -> None:
    path = store / "cup/train/layer3/c/0/0/0/0/0"
    raw = bytearray(path.read_bytes())
    raw[3 * 256 * 4 * 2 + 5] ^= 16  # the second row: after 3 views of 256 x 2 x 2 float16
    path.write_bytes(raw)
    (problem,) = verify_store(store).problems
    assert (problem.rows, problem.group, problem.shard) == ((1,), "cup/train", 0)
    assert str(problem).endswith("not the bytes that were written (row 1 of cup/train)")
    assert str(Problem("f", (0, 1, 2, 5), "x", "g")) == "f: x (rows 0-2, 5 of g)"


def test_bytes_that_no_reader_looks_at_are_checked_too(store: Path) -> None:
    path = store / "cup/train/layer1/c/0/0/0/0/0"
    raw, index = path.read_bytes(), 2 * 16 + 4  # two chunks' offset and length, and the index's checksum
    path.write_bytes(raw[:-index] + b"junk" + raw[-index:])
    assert verify_store(store).problems[0].file == "cup/train/layer1/c/0/0/0/0/0"


def test_a_manifest_of_another_group_is_found(store: Path) -> None:
    shutil.copy(store / "cup/train/manifest.json", store / "bolt/train/manifest.json")
    (problem,) = verify_store(store).problems
    assert "belongs to cup/train" in problem.what


def test_an_unfinished_group_is_found(store: Path) -> None:
    (store / "cup/test/manifest.json").unlink()
    (problem,) = verify_store(store).problems
    assert (problem.file, problem.what) == ("cup/test/manifest.json", "missing: the store lists this group")


def test_there_must_be_a_store(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="no such store"):
        verify_store(tmp_path / "nowhere")
    with pytest.raises(StoreError, match="not a store"):
        verify_store(tmp_path)


def test_changed_data_are_named_sample_by_sample(store: Path, data: Path, tmp_path: Path) -> None:
    root = Path(shutil.copytree(data, tmp_path / "moved"))
    image, mask = INDEX.samples[0].views[1], INDEX.samples[4].views[2]
    assert image is not None
    assert mask is not None
    (root / image.image).write_bytes((root / image.image).read_bytes() + b"\0")
    (root / str(mask.mask)).unlink()
    samples = list(INDEX.samples)
    gone = samples.pop(2)
    relabelled = samples[-1].views[0]
    assert relabelled is not None
    views = (replace(relabelled, anomaly_class="dent"), *samples[-1].views[1:])
    samples[-1] = replace(samples[-1], views=views)
    report = verify_store(store, root=root, index=Index(INDEX.view_numbers, tuple(samples)))
    texts = [str(problem) for problem in report.problems]
    assert len(texts) == 4, texts
    assert any("cup/OK/S0000, view 2: the image's content differs" in text for text in texts)
    assert any(f"{mask.mask}: cannot be read" in text for text in texts)
    assert any(f"{gone.sample_id} is in the store but not in the data" in text for text in texts)
    assert any("view 1: label is OK in the store, dent in the data" in text for text in texts)


def test_a_deep_verification_finds_features_of_another_encoder(data: Path, tmp_path: Path) -> None:
    encoder = untrained()
    larger = lambda module, inputs, output: {k: v * 1.1 for k, v in output.items()}  # noqa: E731
    encoder.module.register_forward_hook(larger)
    build_tiny(data, INDEX, tmp_path / "s", encoder)
    assert verify_store(tmp_path / "s").sound
    problems = verify_store(tmp_path / "s", deep=True).problems
    assert {problem.file.split("/")[-1] for problem in problems} == {"layer1", "layer2", "layer3"}


def test_repair_restores_every_byte_and_touches_nothing_else(store: Path, data: Path) -> None:
    wanted = tree(store)
    harmed = [
        "cup/train/layer1/c/0/0/0/0/0",
        "cup/train/labels/c/1/0",
        "bolt/test/masks/c/1/0/0/0",
        "bolt/test/images/zarr.json",
        "bolt/zarr.json",
        "zarr.json",
    ]
    for name in harmed[::2]:
        (store / name).write_bytes(b"harm")
    for name in harmed[1::2]:
        (store / name).unlink()
    times = {path: path.stat().st_mtime_ns for path in store.rglob("*") if path.is_file()}
    report = verify_store(store, root=data, index=INDEX, repair=True)
    assert report.sound, report.problems
    assert report.shards_repaired == 3
    assert tree(store) == wanted
    rewritten = {p.relative_to(store).as_posix() for p, t in times.items() if p.stat().st_mtime_ns != t}
    assert rewritten == set(harmed[::2])


def test_repair_never_mixes_in_other_data(store: Path, data: Path, tmp_path: Path) -> None:
    root = Path(shutil.copytree(data, tmp_path / "moved"))
    view = INDEX.samples[0].views[0]
    other = INDEX.samples[1].views[0]
    assert view is not None
    assert other is not None
    shutil.copy(root / other.image, root / view.image)
    (store / "cup/train/layer1/c/0/0/0/0/0").unlink()
    (store / "cup/train/layer1/c/1/0/0/0/0").unlink()
    report = verify_store(store, root=root, index=INDEX, repair=True)
    assert report.shards_repaired == 1  # the other shard's images are as they were
    assert len(report.problems) == 2
    assert not (store / "cup/train/layer1/c/0/0/0/0/0").exists()


def test_what_cannot_be_repaired_stays_on_the_list(store: Path, data: Path) -> None:
    (store / "teacher.safetensors").write_bytes(b"x")
    (store / "cup/test/manifest.json").write_bytes(b"x")
    (store / "cup/train/layer1/c/0/0/0/0/0").unlink()
    report = verify_store(store, root=data, index=INDEX, repair=True)
    assert report.shards_repaired == 0
    files = {problem.file for problem in report.problems}
    assert files == {"teacher.safetensors", "cup/test/manifest.json", "cup/train/layer1/c/0/0/0/0/0"}


def test_a_shard_rebuilt_by_other_arithmetic_gets_a_new_promise(
    store: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another machine rounds otherwise: the repaired store is sound again, and its fingerprint the same."""
    before = FeatureStore.open(store).fingerprint
    encode = idif.encoders.encode.encode_present

    def nudged(*arguments: Any) -> dict[str, torch.Tensor]:
        return {name: x * (1 + 2e-3) for name, x in encode(*arguments).items()}

    monkeypatch.setattr(idif.encoders.encode, "encode_present", nudged)
    (store / "cup/train/layer1/c/0/0/0/0/0").unlink()
    assert verify_store(store, root=data, index=INDEX, repair=True).sound
    assert verify_store(store, root=data, index=INDEX, deep=True).sound
    assert FeatureStore.open(store).fingerprint == before
