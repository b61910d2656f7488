"""Models of timm: names, taps, arrays, weights that cannot be had, and real ones."""

import os
import socket
import sys
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import timm
import torch
from safetensors.torch import save_file
from timm.layers.pos_embed import resample_abs_pos_embed

import idif.encoders.hub
from idif.data.images import load_image
from idif.encoders.frozen import FrozenEncoder, find_family, load_encoder
from idif.encoders.options import EncoderOptions
from idif.encoders.timm_models import ALIASES, TapLayer, default_taps, tap_layers
from idif.errors import ConfigError, WeightsError


@pytest.mark.parametrize(("name", "model"), ALIASES.items())
def test_every_alias_is_a_model_with_weights_of_timm(name: str, model: str) -> None:
    assert model in timm.list_pretrained(f"{model.partition('.')[0]}.*")
    assert tap_layers(model, name)


def test_uniad_s_array_takes_106_624_bytes_a_sample() -> None:
    (aligned,) = find_family("efficientnet_b4", EncoderOptions(taps=(2, 4, 8, 16), neck="aligned")).arrays(
        224
    )
    assert aligned.shape == (272, 14, 14)
    assert 2 * aligned.size == 106_624
    assert [layer.channels for layer in tap_layers("tf_efficientnet_b4", "x")] == [24, 32, 56, 160, 448]


def test_blocks_of_a_dino_transformer_at_448_px() -> None:
    for name, side in (("vit_base_patch14_dinov2", 32), ("vit_base_patch16_dinov3", 28)):
        family = find_family(name)
        assert [(array.name, array.shape) for array in family.arrays(448)] == [
            (f"block{number}", (768, side, side)) for number in (3, 6, 9, 11)
        ]
    assert find_family("vit_small_patch14_dinov2").image_size == 518
    assert default_taps([TapLayer(n, n, f"block{n}", 8, 14) for n in range(24)]) == (6, 12, 18, 23)


def test_blocks_are_timm_s_without_the_tokens_of_no_patch() -> None:
    options = EncoderOptions(taps=(1, 3))
    encoder = load_encoder("untrained", "timm:test_vit", options)
    images = torch.rand(2, 3, 64, 64)
    net: Any = timm.create_model("test_vit", features_only=True, out_indices=(1, 3), img_size=64)
    net.eval()
    weights = encoder.module.state_dict()
    positions = weights["pos_embed"]
    grid = net.model.patch_embed.grid_size
    assert positions.shape[1] != net.model.pos_embed.shape[1], "the encoder resamples its positions"
    resampled = resample_abs_pos_embed(positions, grid, num_prefix_tokens=1)
    net.model.load_state_dict({**weights, "pos_embed": resampled}, strict=False)
    with torch.no_grad():
        expected = net(encoder.family.prepare(images))
    for values, wanted in zip(encoder(images).values(), expected, strict=True):
        torch.testing.assert_close(values, wanted, rtol=1e-4, atol=1e-5)


def test_a_convolutional_network_s_taps_are_those_of_features_only() -> None:
    encoder = load_encoder("untrained", "timm:test_efficientnet", EncoderOptions(taps=(2, 4, 8, 16)))
    net: Any = timm.create_model("test_efficientnet", features_only=True, out_indices=(0, 1, 2, 3)).eval()
    net.load_state_dict(encoder.module.state_dict(), strict=False)
    images = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        expected = net(encoder.family.prepare(images))
    for values, wanted in zip(encoder(images).values(), expected, strict=True):
        assert torch.equal(values, wanted)


REFUSED = [
    ("timm:nope", EncoderOptions(), "encoder: timm has no model 'nope'"),
    ("timm:test_vit.nope", EncoderOptions(), "encoder: timm has no weights 'nope' of test_vit"),
    ("nope", EncoderOptions(), "encoder: there is no 'nope'; known: resnet18, .*, timm:NAME"),
    ("timm:test_vit", EncoderOptions(taps=(40,)), "taps: timm:test_vit has 0, 1, .*, got 40"),
    ("timm:test_vit", EncoderOptions(padding="reflect"), "padding: timm:test_vit has no padded convolutions"),
]


@pytest.mark.parametrize(("name", "options", "message"), REFUSED)
def test_what_cannot_be_is_refused(name: str, options: EncoderOptions, message: str) -> None:
    with pytest.raises(ConfigError, match=f"^{message}"):
        load_encoder("untrained", name, options)


def test_tensorflow_s_padding_cannot_be_reflected() -> None:
    with pytest.raises(ConfigError, match=r"^padding: tf_efficientnet_lite0 pads as TensorFlow does"):
        load_encoder("untrained", "tf_efficientnet_lite0", EncoderOptions(padding="reflect"))


def test_a_missing_timm_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(
        ConfigError, match=r"^encoder: timm:test_resnet needs timm; install `idif\[encoders\]`"
    ):
        find_family("timm:test_resnet")


def test_weights_that_cannot_be_downloaded_are_named_with_the_alternatives(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def offline(*_: object) -> None:
        raise OSError("no route to host")

    monkeypatch.setattr(socket, "getaddrinfo", offline)
    monkeypatch.setattr(idif.encoders.hub, "getproxies", dict)
    with pytest.raises(WeightsError) as caught:
        load_encoder("imagenet", "tf_efficientnet_b4")
    place = "https://huggingface.co/timm/tf_efficientnet_b4.aa_in1k/resolve/main/model.safetensors"
    for part in ("tf_efficientnet_b4", place, "no route to host", "file", "untrained"):
        assert part in str(caught.value)


def test_weights_in_the_cache_need_no_network(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    untrained = load_encoder("untrained", "timm:test_vit", EncoderOptions(taps=(3,)))
    weights = timm.create_model("test_vit", num_classes=0).state_dict() | untrained.module.state_dict()
    save_file(weights, tmp_path / "model.safetensors")
    monkeypatch.setattr(
        huggingface_hub, "try_to_load_from_cache", lambda *_: str(tmp_path / "model.safetensors")
    )
    monkeypatch.setattr(socket, "getaddrinfo", None)
    loaded = load_encoder("imagenet", "timm:test_vit", EncoderOptions(taps=(3,)))
    assert loaded.weights == "imagenet"
    assert loaded.sha256 == untrained.sha256


def real_lite0(options: EncoderOptions) -> tuple[Path, FrozenEncoder]:
    data = os.environ.get("IDIF_DATA")
    if data is None:
        pytest.skip("IDIF_DATA is not set")
    path = Path(data) / "encoders" / "tf_efficientnet_lite0.safetensors"
    return Path(data), load_encoder(path, "tf_efficientnet_lite0", options)


def test_real_weights_of_efficientnet_lite0() -> None:
    options = EncoderOptions(taps=(2, 4, 8, 16))
    data, encoder = real_lite0(options)
    prepared = encoder.family.preparation
    assert prepared["mean"] == prepared["std"] == [0.5, 0.5, 0.5]
    assert [array.shape for array in encoder.arrays(224)] == [
        (16, 112, 112),
        (24, 56, 56),
        (40, 28, 28),
        (112, 14, 14),
    ]
    # leave-one-out nearest neighbors of ten textures each of four classes, on the pooled last tap
    files = [
        file for folder in sorted((data / "dtd/images").iterdir()) for file in sorted(folder.iterdir())[:10]
    ]
    images = torch.stack([torch.from_numpy(load_image(file, 160)[0]) for file in files])
    pooled = torch.cat([encoder(part)["stride16"].mean(dim=(2, 3)) for part in images.split(8)])
    units = torch.nn.functional.normalize(pooled - pooled.mean(dim=0), dim=1)
    nearest = (units @ units.T).fill_diagonal_(-1).argmax(dim=1)
    assert float((nearest // 10 == torch.arange(len(files)) // 10).float().mean()) > 0.75
