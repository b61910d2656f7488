"""Stores of any arrays: signed ones, several encoders, variants, inputs that a sample has once, no images."""

import json
import pickle
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import zarr
from torch.utils.data import DataLoader

from cache import FeatureStore
from cache.building.build import build_store
from cache.building.request import BuildRequest
from cache.checking.verify import verify_store
from cache.format.manifest import SampleContent, ViewContent
from cache.hdf5 import export_store, import_store
from cache.reading.placement import Resident, place, source_bytes
from idif.data.arrays import StorageType
from idif.data.features import FeatureSource, FeatureSpec
from idif.data.index import Index
from idif.data.subset import Subset
from idif.encoders.encode import EncoderSet
from idif.encoders.frozen import load_encoder
from idif.encoders.live import LiveFeatures
from idif.errors import ConfigError, StoreDamaged, StoreMismatch
from tests import feature_source_contract as contract
from tests.helpers.tiny_data import tiny_index, tree, untrained
from tests.helpers.vector_encoder import add_signals, installed, signal_index

INDEX = tiny_index(["cup"], train=4, test=3)
CPU = torch.device("cpu")


@pytest.fixture(scope="module", autouse=True)
def families() -> Iterator[None]:
    with installed():
        yield


@pytest.fixture(scope="module")
def signals(data: Path) -> Index:
    """The index of the images, with a signal of every sample."""
    return add_signals(data, INDEX)


def encoders(*names: str, image_size: int | None = 32, **options: object) -> EncoderSet:
    made = [untrained() if name == "resnet18" else load_encoder("untrained", name) for name in names]
    return EncoderSet(tuple(made), image_size, **options)  # type: ignore[arg-type]


def build(
    data: Path, index: Index, store: Path, chosen: EncoderSet, storage: StorageType = "float16"
) -> FeatureStore:
    build_store(BuildRequest(data, index, store, chosen, storage, batch_size=2, shard_rows=2, workers=1))
    return FeatureStore.open(store)


ALL = ("resnet18", "signed-map", "vector")
SETS: dict[str, tuple[tuple[str, ...], dict[str, Any]]] = {
    "all": (ALL, {}),
    "variants": (("signed-map", "vector"), {"variants": ("plain", "rotated180")}),
    "no stored images": (("signed-map",), {"stores_images": False}),
    "no images": (("vector",), {"image_size": None}),
}


@pytest.fixture(
    scope="module", params=[(s, t) for s in SETS for t in ("float16", "uint8", "float32")], ids=str
)
def store(
    data: Path, signals: Index, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> FeatureStore:
    name, storage = request.param
    names, options = SETS[name]
    folder = tmp_path_factory.mktemp("store") / "s"
    index = signal_index(data) if name == "no images" else signals
    return build(data, index, folder, encoders(*names, **options), storage)


@pytest.fixture(params=["disk", "memory"])
def source(store: FeatureStore, request: pytest.FixtureRequest) -> FeatureSource:
    return place(store, request.param, CPU)


@pytest.mark.parametrize("check", contract.CONTRACT, ids=lambda check: check.__name__)
def test_contract(source: FeatureSource, check: contract.Check) -> None:
    check(source)


def test_stored_agrees_with_live_and_resident_is_as_large_as_said(store: FeatureStore, data: Path) -> None:
    live = LiveFeatures(data, store.index, replace(store.encoder_set(), variants=()), CPU)
    contract.check_stored_agrees_with_live(store, live)
    packed = store.read_packed(range(len(store)))
    assert source_bytes(store) == sum(x.numel() * x.element_size() for x in packed.tensors())


def test_part_of_a_store_can_be_made_resident(store: FeatureStore) -> None:
    part = Subset(store, tuple(range(len(store)))[::2])
    order, count = [2, 0, 1], max(1, len(store.spec.variants))
    chosen = [i % count for i in order]
    resident = contract.join(list(Resident(part, CPU).batches(order, 2, chosen)))
    contract.assert_same(resident, contract.join(list(part.batches(order, 2, chosen))))


def test_it_is_sound_exported_and_described(store: FeatureStore, data: Path, tmp_path: Path) -> None:
    assert isinstance(store.path, Path)
    report = verify_store(store.path, root=data, index=store.index, deep=True)
    assert report.sound, report.problems
    assert report.rows_encoded == len(store)
    assert report.encoders_left_out == ()
    without = verify_store(store.path, deep=True)
    kept = {e.name for e in store.spec.encoders if e.input == "image" and store.spec.stores_images}
    assert {*without.encoders_left_out} == {e.name for e in store.spec.encoders} - kept
    export_store(store.path, tmp_path / "s.h5")
    import_store(tmp_path / "s.h5", tmp_path / "back")
    assert tree(tmp_path / "back") == tree(store.path)
    text = repr(store)
    assert text.startswith(f"FeatureStore('{store.path}'): {len(store)} rows")
    for name in (*store.spec.arrays, *(encoder.name for encoder in store.spec.encoders)):
        assert name in text


def test_plain_zarr_reads_arrays_and_truth(store: FeatureStore) -> None:
    group: Any = zarr.open_group(str(store.path), mode="r")[f"{store.index.categories[0]}/test"]
    rows = store.index.rows(lambda sample: sample.split == "test")
    batch, samples = store.read(rows), [store.index.samples[row] for row in rows]
    assert group["sample_labels"][:].tolist() == [sample.label for sample in samples]
    assert group["sample_labels"][:].any()
    for name in store.spec.inputs:
        assert group[f"present_{name}"][:].tolist() == [s.inputs[name] is not None for s in samples]
    assert ("view_mask" in group) == bool(store.index.view_numbers)
    for name, array in store.spec.features.items():
        stored = group[name]
        values = stored[:]
        if "scale" in stored.attrs:
            scale = group[str(stored.attrs["scale"])]
            axes = scale.metadata.dimension_names
            shape = [
                n if a in axes else 1
                for n, a in zip(values.shape, stored.metadata.dimension_names, strict=True)
            ]
            assert values.dtype == (np.int8 if array.signed else np.uint8)
            values = values.astype(np.float16) * scale[:].reshape(shape)
        if array.has_variants:
            values = values[:, 0]
        assert np.array_equal(values, batch.arrays[name].numpy()), name


def test_a_data_loader_stacks_rows_and_workers_open_the_store_anew(store: FeatureStore) -> None:
    loader: DataLoader[dict[str, torch.Tensor]] = DataLoader(store, batch_size=3, num_workers=0)
    for number, part in enumerate(loader):
        rows = range(3 * number, min(3 * number + 3, len(store)))
        batch = store.read(rows)
        assert set(part) >= {*batch.arrays, "rows", "view_mask", "labels", "sample_labels"}
        assert part["rows"].tolist() == [*rows]
        for name, x in batch.arrays.items():
            assert torch.equal(part[name], x)
    again = pickle.loads(pickle.dumps(store))
    assert again[1].keys() == store[1].keys()
    with pytest.raises(IndexError):
        store[len(store)]


def test_spawned_workers_read_it(data: Path, tmp_path: Path) -> None:
    store = build(data, INDEX, tmp_path / "s", encoders("resnet18"))
    loader: DataLoader[dict[str, torch.Tensor]] = DataLoader(
        store, batch_size=4, num_workers=1, multiprocessing_context="spawn"
    )
    assert torch.cat([part["layer3"] for part in loader]).equal(
        store.read(range(len(store))).arrays["layer3"]
    )


def test_weights_of_every_encoder_lie_at_the_root(data: Path, signals: Index, tmp_path: Path) -> None:
    store = build(data, signals, tmp_path / "s", encoders(*ALL))
    weights = {path.name for path in (tmp_path / "s").glob("*.safetensors")}
    assert weights == {"teacher.safetensors", "signed-map.safetensors", "vector.safetensors"}
    assert {*json.loads((tmp_path / "s/manifest.json").read_text())["files"]} == {*weights, "zarr.json"}
    assert [encoder.name for encoder in store.encoder_set().encoders] == [*ALL]
    assert store.encoder_set().spec("float16") == store.spec
    (tmp_path / "s/vector.safetensors").write_bytes(
        (tmp_path / "s/vector.safetensors").read_bytes()[:-1] + b"x"
    )
    with pytest.raises(StoreDamaged, match=r"vector\.safetensors: not the weights"):
        store.encoder_set()
    assert [p.file for p in verify_store(tmp_path / "s").problems] == ["vector.safetensors"]


def test_arrays_of_one_encoder_alone_are_the_same_bytes(data: Path, signals: Index, tmp_path: Path) -> None:
    """A second encoder and inputs add files; they change none of the first encoder's."""
    build(data, INDEX, tmp_path / "one", encoders("resnet18"))
    build(data, signals, tmp_path / "all", encoders(*ALL))
    one, every = tree(tmp_path / "one"), tree(tmp_path / "all")
    same = [name for name in one if not name.endswith("manifest.json")]
    assert all(every[name] == one[name] for name in same)
    assert "teacher.safetensors" in same


def test_names_that_collide_are_refused(data: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="both resnet18 and resnet18 have an array or file named 'layer1'"):
        build(data, INDEX, tmp_path / "s", encoders("resnet18", "resnet18"))
    assert not (tmp_path / "s").exists()


def test_a_missing_and_a_changed_signal_are_named(data: Path, signals: Index, tmp_path: Path) -> None:
    root = Path(shutil.copytree(data, tmp_path / "data"))
    build(root, signals, tmp_path / "s", encoders("signed-map", "vector"))
    np.save(root / "signals/0000.npy", np.zeros(12, np.float32))
    with pytest.raises(StoreMismatch, match=r"S0000: the signal's content differs \(signals/0000.npy\)"):
        build(root, signals, tmp_path / "s", encoders("signed-map", "vector"))
    (problem,) = verify_store(tmp_path / "s", root=root, index=signals).problems
    assert "the signal's content differs" in problem.what
    absent = replace(signals.samples[2], inputs={"signal": None})
    other = replace(signals, samples=(*signals.samples[:2], absent, *signals.samples[3:]))
    with pytest.raises(StoreMismatch, match="S0002: signal is in the store but not in the data"):
        build(root, other, tmp_path / "s", encoders("signed-map", "vector"))
    burnt = replace(signals.samples[2], sample_class="burn")
    other = replace(signals, samples=(*signals.samples[:2], burnt, *signals.samples[3:]))
    with pytest.raises(StoreMismatch, match="S0002: label is OK in the store, burn in the data"):
        build(root, other, tmp_path / "s", encoders("signed-map", "vector"))


def test_inputs_that_no_encoder_takes_are_no_part_of_a_store(
    data: Path, signals: Index, tmp_path: Path
) -> None:
    store = build(data, signals, tmp_path / "s", encoders("signed-map"))
    assert all(sample.inputs == {} for sample in store.index.samples)
    assert verify_store(tmp_path / "s", root=data, index=signals).sound


def test_damage_to_a_signed_array_is_found_and_repaired(data: Path, signals: Index, tmp_path: Path) -> None:
    chosen = encoders("signed-map", "vector", variants=("plain", "rotated180"))
    build(data, signals, tmp_path / "s", chosen, "uint8")
    wanted = tree(tmp_path / "s")
    for name in ("contrast/c/0/0/0/0/0/0", "vector/c/1/0", "present_signal/c/0", "contrast_scale/c/1/0/0"):
        (tmp_path / "s/cup/train" / name).write_bytes(b"harm")
    assert len(verify_store(tmp_path / "s").problems) == 4
    assert verify_store(tmp_path / "s", root=data, index=signals, repair=True).sound
    assert tree(tmp_path / "s") == wanted


def test_content_and_spec_keep_their_old_form_where_they_can() -> None:
    content = SampleContent((ViewContent("a", None), None))
    assert content.to_json() == [{"image": "a", "mask": None}, None]
    for one in (content, SampleContent((), {"signal": "b", "video": None})):
        assert SampleContent.from_json(json.loads(json.dumps(one.to_json()))) == one
    spec = encoders("resnet18").spec("float16")
    flat = spec.to_json()
    assert [*flat] == [
        *("encoder", "weights", "weights_sha256", "layers", "image_size", "resize", "mean", "std"),
        *("precision", "storage", "mask_rule"),
    ]
    assert flat["layers"][0] == {"name": "layer1", "channels": 64, "stride": 4}
    assert FeatureSpec.from_json(json.loads(json.dumps(flat))) == spec
    for other in (encoders(*ALL).spec("uint8"), encoders("vector", image_size=None).spec("float32")):
        assert FeatureSpec.from_json(json.loads(json.dumps(other.to_json()))) == other
