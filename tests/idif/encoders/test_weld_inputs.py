"""Encoders of weld runs: absent inputs, sounds of any length, taps, constant sensors, published weights."""

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from cli.workflow.encoders import load_encoders
from cli.workflow.store_choice import choose_store
from idif.data.media import write_sound
from idif.datasets.config import DataConfig
from idif.datasets.readers import READERS
from idif.datasets.weld.reader import read_weld
from idif.encoders.encode import EncoderSet
from idif.encoders.frozen import ENCODER_SETS, find_family, load_encoder
from idif.encoders.live import LiveFeatures
from idif.encoders.options import EncoderOptions
from idif.encoders.weld.sensors import SENSOR_COLUMNS
from idif.errors import ConfigError
from tests.helpers.tiny_weld import make_tiny_weld

STILLS, VIDEO, AUDIO, TEXT, SENSORS = ENCODER_SETS["weld-tiny"]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("weld") / "data"
    make_tiny_weld(root)
    return root


def test_features_do_not_depend_on_what_other_samples_of_the_batch_lack(runs: Path) -> None:
    index = read_weld(runs).take([0, 1, 2])
    names = (VIDEO, AUDIO, SENSORS)
    encoders = EncoderSet(tuple(load_encoder("untrained", name) for name in names), None)
    (whole,) = LiveFeatures(runs, index, encoders, torch.device("cpu")).batches(range(3), 3)
    first, *others = index.samples
    lacking = replace(first, inputs=dict.fromkeys(first.inputs))
    partly = replace(index, samples=(lacking, *others))
    (batch,) = LiveFeatures(runs, partly, encoders, torch.device("cpu")).batches(range(3), 3)
    for name, values in batch.arrays.items():
        assert not values[0].any(), name
        torch.testing.assert_close(values[1:], whole.arrays[name][1:], rtol=1e-4, atol=1e-5)


def test_a_longer_sound_is_heard_to_its_end(tmp_path: Path) -> None:
    read = find_family(AUDIO).read
    frames = 64
    noise = 0.1 * np.random.default_rng(0).normal(size=frames * 160 + 240)
    write_sound(tmp_path / "fits.flac", noise)
    write_sound(tmp_path / "long.flac", np.concatenate([noise, noise, 0 * noise, 0 * noise]))
    fits, long = read(tmp_path / "fits.flac", 0), read(tmp_path / "long.flac", 0)
    assert fits.shape == long.shape == (frames, 128)
    assert fits.dtype == long.dtype == np.float32
    assert long[: frames // 2 - 2].mean() > long[frames // 2 + 2 :].mean() + 0.5
    assert abs(long[: frames // 2 - 2].mean() - fits.mean()) < 0.1


def test_a_sound_that_fits_is_what_the_library_makes_of_it(tmp_path: Path) -> None:
    noise = np.round(0.1 * np.random.default_rng(0).normal(size=6000) * 32767) / 32767
    write_sound(tmp_path / "s.flac", noise)
    family = find_family(AUDIO)
    values = family.read(tmp_path / "s.flac", 0)
    made = family.read._made()(  # type: ignore[attr-defined]
        np.round(noise * 32767).astype(np.float32) / 32768, sampling_rate=16000, return_tensors="np"
    )
    np.testing.assert_allclose(values, made["input_values"][0], atol=1e-5)
    assert (values[40:] == values[-1]).all()  # padding behind the last frame


def test_a_sound_shorter_than_a_window_is_padded(tmp_path: Path) -> None:
    write_sound(tmp_path / "s.flac", np.full(50, 0.5))
    assert np.isfinite(find_family(AUDIO).read(tmp_path / "s.flac", 0)).all()


def test_taps_choose_the_blocks_whose_tokens_are_kept() -> None:
    images = torch.zeros(2, 3, 32, 32, dtype=torch.uint8)
    images[:, :, 8:20] = 200
    default, chosen = (
        load_encoder("untrained", STILLS, options)
        for options in (EncoderOptions(), EncoderOptions(taps=(9, 20)))
    )
    assert [array.name for array in chosen.arrays(32)] == ["img_b9", "img_b20", "img_b31_mean"]
    first, other = default(images), chosen(images)
    assert list(first) == ["img_b20", "img_b31_mean"]
    assert list(other) == ["img_b9", *first]
    for name, values in first.items():
        assert torch.equal(values, other[name]), name
    assert default.sha256 == chosen.sha256
    assert "options" not in default.spec(32).preparation
    assert EncoderOptions.recorded(chosen.spec(32)).taps == (9, 20)
    assert load_encoder("untrained", STILLS, EncoderOptions(taps=(32,)))(images)["img_b32"].shape == (
        2,
        9,
        16,
    )
    for options in (EncoderOptions(taps=(33,)), EncoderOptions(taps=(0, 20)), EncoderOptions(neck="aligned")):
        with pytest.raises(ConfigError, match=STILLS):
            find_family(STILLS, options)


def test_tokens_of_a_block_are_the_output_of_that_many_blocks() -> None:
    encoder = load_encoder("untrained", STILLS, EncoderOptions(taps=(1, 20)))
    images = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    outputs: list[torch.Tensor] = []
    net: Any = encoder.module.net
    hooks = [block.register_forward_hook(lambda *args: outputs.append(args[2])) for block in net.blocks]
    arrays = encoder(images)
    for hook in hooks:
        hook.remove()
    assert torch.equal(arrays["img_b1"], outputs[0])
    assert torch.equal(arrays["img_b20"], outputs[19])
    torch.testing.assert_close(arrays["img_b31_mean"], outputs[30].mean(dim=1))


def test_options_of_a_set_are_those_of_its_encoder_of_images(runs: Path) -> None:
    names, data = ENCODER_SETS["weld-tiny"], DataConfig(reader="weld", root=runs)
    options = EncoderOptions(taps=(9, 20))
    loaded = load_encoders(names, ("untrained",), options, READERS["weld"], data)
    assert [encoder.options.taps for encoder in loaded] == [(9, 20), (), (), (), ()]
    with pytest.raises(ConfigError, match="those of a single encoder"):
        load_encoders((*names, "resnet18"), ("untrained",), options, READERS["weld"], data)


def test_stores_of_weld_runs_have_the_full_set_unless_told_otherwise() -> None:
    choose = partial(choose_store, data={}, default_encoder=READERS["weld"].encoder)
    assert choose().encoders == ENCODER_SETS["weld"]
    assert choose(encoders=["weld-tiny"]).encoders == ENCODER_SETS["weld-tiny"]
    assert choose(full_tokens=True).encoders == ENCODER_SETS["weld-tokens"]
    with pytest.raises(ConfigError, match=r"--full-tokens: expected an encoder of video .*got resnet18"):
        choose(encoders=["resnet18"], full_tokens=True)
    assert choose_store(data={}, default_encoder=READERS["realiad"].encoder).encoders == ("resnet18",)


def test_a_constant_sensor_is_centered_and_not_blown_up(tmp_path: Path) -> None:
    family = find_family(SENSORS)
    for number in range(2):
        lines = [f"1.1,2,{row + number},4e3,5,0" for row in range(9)]
        (tmp_path / f"{number}.csv").write_text("\n".join([",".join(SENSOR_COLUMNS), *lines]))
    assert family.learn is not None
    weights = family.learn([tmp_path / "0.csv", tmp_path / "1.csv"])
    assert weights["std"][[0, 1, 3, 4, 5]].tolist() == [1] * 5
    series = np.linspace(0, 8, 256)
    assert float(weights["std"][2]) == pytest.approx(np.stack([series, series + 1]).std(), rel=1e-5)


def test_published_files_of_the_text_network_may_hold_their_table_of_positions(tmp_path: Path) -> None:
    encoder = load_encoder("untrained", TEXT)
    weights = {key: value.clone().contiguous() for key, value in encoder.module.state_dict().items()}
    weights["text_model.embeddings.position_ids"] = torch.arange(77)[None]
    weights["vision_model.embeddings.class_embedding"] = torch.zeros(4)
    weights["logit_scale"] = torch.tensor(2.0)
    save_file(weights, tmp_path / "model.safetensors")
    assert load_encoder(tmp_path, TEXT).sha256 == encoder.sha256
