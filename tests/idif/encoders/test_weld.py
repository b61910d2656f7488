"""Encoders of weld runs: arrays, weights, orientation, statistics, and the store of a set of them."""

import socket
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from cache import FeatureStore
from cache.checking.verify import verify_store
from idif.data.features import NO_INPUT
from idif.data.media import interpolated, read_series, write_sound
from idif.datasets.weld.reader import read_weld
from idif.encoders.frozen import (
    ENCODER_SETS,
    FrozenEncoder,
    encoder_names,
    find_family,
    learn_encoder,
    load_encoder,
)
from idif.encoders.live import LiveFeatures
from idif.encoders.weld.catalog import FULL_TOKENS
from idif.encoders.weld.sensors import SENSOR_COLUMNS
from idif.errors import DatasetError, WeightsError
from tests.helpers.tiny_weld import IMAGE_SIZE, make_tiny_weld, make_tiny_weld_store, tiny_weld_encoders

TINY = ENCODER_SETS["weld-tiny"]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("weld") / "data"
    make_tiny_weld(root)
    # one run lacks its video, one its sound, and one two stills
    (root / "run_0001" / "run_0001.avi").unlink()
    (root / "run_0002" / "run_0002.flac").unlink()
    for still in sorted((root / "run_0003" / "images").iterdir())[3:]:
        still.unlink()
    return root


@pytest.fixture(scope="module")
def store(runs: Path) -> FeatureStore:
    path = runs.parent / "weld.zarr"
    make_tiny_weld_store(runs, path)
    return FeatureStore.open(path)


def some_input(encoder: FrozenEncoder, count: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.rand(count, *encoder.family.absent_shape(IMAGE_SIZE), generator=generator)


@pytest.mark.parametrize("name", TINY)
def test_an_encoder_gives_the_arrays_it_declares(name: str) -> None:
    encoder = load_encoder("untrained", name)
    inputs = some_input(encoder, 3)
    arrays = encoder(inputs)
    assert list(arrays) == [array.name for array in encoder.arrays(IMAGE_SIZE)]
    for array in encoder.arrays(IMAGE_SIZE):
        assert tuple(arrays[array.name].shape) == (3, *array.shape)
        assert arrays[array.name].dtype == torch.float32
        assert torch.isfinite(arrays[array.name]).all()
        alone = encoder(inputs[1:2])[array.name][0]
        assert torch.allclose(alone, arrays[array.name][1], atol=1e-5)


@pytest.mark.parametrize("name", TINY)
def test_weights_come_from_a_file_or_a_folder_and_wrong_ones_are_refused(name: str, tmp_path: Path) -> None:
    encoder = load_encoder("untrained", name)
    assert load_encoder("untrained", name).sha256 == encoder.sha256
    state = {key: value.clone().contiguous() for key, value in encoder.module.state_dict().items()}
    first = next(iter(state))
    state[first] = state[first] + 1
    save_file(state, tmp_path / "model.safetensors")
    loaded = load_encoder(tmp_path, name)
    assert loaded.sha256 == load_encoder(tmp_path / "model.safetensors", name).sha256 != encoder.sha256
    state[first] = torch.full_like(state[first], torch.nan)
    save_file(state, tmp_path / "nan.safetensors")
    with pytest.raises(WeightsError, match="not finite"):
        load_encoder(tmp_path / "nan.safetensors", name)
    del state[first]
    save_file(state, tmp_path / "less.safetensors")
    with pytest.raises(WeightsError, match="is missing"):
        load_encoder(tmp_path / "less.safetensors", name)


def test_full_sizes_declare_the_published_shapes() -> None:
    shapes = {
        array.name: array.shape for name in encoder_names("weld") for array in find_family(name).arrays(224)
    }
    assert shapes == {
        "img_b20": (201, 1280),
        "img_b31_mean": (1280,),
        "video": (16, 1024),
        "audio": (73, 768),
        "text": (512,),
        "sensor": (256, 6),
    }


def test_full_tokens_have_the_mean_that_is_kept_otherwise() -> None:
    pooled, full = (load_encoder("untrained", name) for name in ("vjepa2_tiny", FULL_TOKENS["vjepa2_tiny"]))
    frames = some_input(pooled, 2)
    mean, tokens = pooled(frames)["video"], full(frames)["video"]
    assert tuple(tokens.shape[1:]) == full.arrays(IMAGE_SIZE)[0].shape
    moments = mean.shape[1]
    assert torch.allclose(tokens.unflatten(1, (moments, -1)).mean(dim=2), mean, atol=1e-6)
    (large,) = find_family(FULL_TOKENS["vjepa2_large"]).arrays(224)
    assert large.shape == (4096, 1024)


@pytest.mark.long
@pytest.mark.parametrize(
    ("name", "millions"),
    [("dinov3_huge_plus_b20_b31", 814.4), ("vjepa2_large", 303.9), ("ast_base", 86.6), ("clip_text", 63.4)],
)
def test_full_sizes_have_the_published_number_of_parameters(name: str, millions: float) -> None:
    with torch.device("meta"):
        module = find_family(name).build()
    assert sum(p.numel() for p in module.parameters()) / 1e6 == pytest.approx(millions, rel=0.03)


def test_pretrained_weights_that_cannot_be_had_are_told_with_the_place_to_get_them(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def offline(*args: object) -> None:
        raise OSError("no network")

    monkeypatch.setattr(socket, "getaddrinfo", offline)
    monkeypatch.setattr("idif.encoders.hub.getproxies", dict)
    monkeypatch.setattr("idif.encoders.hub.cached_file", lambda *args: None)
    pretrained = find_family("ast_base").pretrained
    assert pretrained is not None
    with pytest.raises(WeightsError, match=r"no network.*/ast-finetuned-audioset-14-14-0\.443/resolve"):
        pretrained()
    with pytest.raises(WeightsError, match="no such weights"):
        load_encoder("imagenet", "ast_tiny")


def test_the_spectrogram_has_time_first_and_tokens_keep_it(tmp_path: Path) -> None:
    sound = np.zeros(64 * 160)
    sound[40 * 160 : 41 * 160] = np.sin(np.arange(160))  # one tone, 400 ms after the start
    write_sound(tmp_path / "tone.flac", sound)
    encoder = load_encoder("untrained", "ast_tiny")
    spectrogram = encoder.family.read(tmp_path / "tone.flac", 0)
    assert spectrogram.shape == (64, 128)
    loudness = spectrogram.max(axis=1)
    assert 37 <= int(loudness.argmax()) <= 41
    module: Any = encoder.module
    patches = module.audio_spectrogram_transformer.embeddings.patch_embeddings
    values = torch.zeros(1, 64, 128)
    values[:, 32:48] = 1
    changed = (patches(values) - patches(torch.zeros_like(values))).abs().sum(dim=2)
    grid = changed.unflatten(1, module.grid)[0]
    assert grid.shape == (8, 4)
    assert (grid.sum(dim=0) > 0).tolist() == [False, False, True, False]


def test_sensors_are_standardized_by_the_training_runs(runs: Path, store: FeatureStore) -> None:
    training = FeatureStore.open(store.path, split="train")
    (batch,) = training.batches(range(len(training.index)), 10)
    values = batch.arrays["sensor"]
    assert values.dtype == torch.float32
    assert torch.allclose(values.mean(dim=(0, 1)), torch.zeros(6), atol=1e-4)
    assert torch.allclose(values.std(dim=(0, 1)), torch.ones(6), atol=1e-2)
    sensors = store.encoder_set().encoders[-1]
    assert sensors.weights == "training"
    raw = np.concatenate(
        [
            interpolated(read_series(runs / str(s.inputs["sensor"]), SENSOR_COLUMNS), 256)
            for s in training.index.samples
        ]
    )
    mean = sensors.module.get_buffer("mean").numpy()
    assert np.allclose(mean, raw.mean(axis=0, dtype=np.float64), rtol=1e-5)
    with pytest.raises(DatasetError, match="no training sample has the input 'sensor'"):
        learn_encoder("weld_sensors", runs, read_weld(runs).take([]))


def test_a_store_equals_the_live_encoders_and_records_what_is_present(
    runs: Path, store: FeatureStore
) -> None:
    index = store.index
    assert {sample.split for sample in index.samples} == {"train", "val", "test"}
    live = LiveFeatures(runs, index, tiny_weld_encoders(runs), torch.device("cpu"))
    rows = range(len(index))
    for kept, fresh in zip(store.batches(rows, 5), live.batches(rows, 5), strict=True):
        assert kept.present.keys() == fresh.present.keys() == {"video", "audio", "sensor"}
        for name, values in fresh.arrays.items():
            assert torch.allclose(kept.arrays[name].float(), values.float(), atol=2e-3), name
    (batch,) = store.batches(rows, len(index))
    ids = [sample.sample_id for sample in index.samples]
    lacking = {"video": "run_0001", "audio": "run_0002"}
    for name, run in lacking.items():
        assert batch.present[name].tolist() == [sample_id != run for sample_id in ids]
        assert not batch.arrays[name][ids.index(run)].any()
    assert batch.view_mask[ids.index("run_0003")].tolist() == [True, True, True, False, False]
    assert batch.arrays["text"].std(dim=0).max() == 0
    assert batch.arrays["text"].float().norm(dim=1).sub(1).abs().max() < 1e-2
    assert NO_INPUT not in store.spec.inputs


def test_a_store_is_verified_against_its_files(runs: Path, store: FeatureStore) -> None:
    assert isinstance(store.path, Path)
    report = verify_store(store.path, root=runs, index=read_weld(runs), deep=True)
    assert report.sound, report.problems
    assert not report.encoders_left_out
