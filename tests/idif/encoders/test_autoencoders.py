"""Autoencoders: arrays, decoders, names of older weights files, and real weights."""

import math
import os
import socket
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from idif.data.features import FeatureSpec
from idif.data.images import load_image
from idif.data.index import Sample, View
from idif.encoders.encode import EncoderSet
from idif.encoders.frozen import FrozenEncoder, find_family, load_encoder
from idif.encoders.options import EncoderOptions
from idif.errors import ConfigError, WeightsError
from tests.helpers.tiny_vae import TINY_VAE, installed_vae


@pytest.fixture(scope="module", autouse=True)
def tiny_vae() -> Iterator[None]:
    with installed_vae():
        yield


@pytest.fixture(scope="module")
def encoder() -> FrozenEncoder:
    return load_encoder("untrained", "tiny_vae")


def test_the_latents_take_16_384_bytes_a_variant_at_256_px() -> None:
    arrays = find_family("sd_vae").arrays(256)
    assert [(array.name, array.shape) for array in arrays] == [("mu", (4, 32, 32)), ("logvar", (4, 32, 32))]
    assert sum(2 * array.size for array in arrays) == 16_384
    (mu,) = find_family("taef2").arrays(256)
    assert (mu.name, mu.shape) == ("mu", (32, 32, 32))


def test_mean_and_variance_are_those_of_the_scaled_latents(encoder: FrozenEncoder) -> None:
    net: Any = encoder.module
    images = torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        posterior = net.net.encode(images * 2 - 1).latent_dist
    arrays = encoder(images)
    torch.testing.assert_close(arrays["mu"], posterior.mean * TINY_VAE.factor)
    torch.testing.assert_close((arrays["logvar"] / 2).exp(), posterior.std * TINY_VAE.factor)
    noise = torch.randn(posterior.mean.shape, generator=torch.Generator().manual_seed(0))
    wanted = posterior.sample(torch.Generator().manual_seed(0)) * TINY_VAE.factor
    torch.testing.assert_close(arrays["mu"] + (arrays["logvar"] / 2).exp() * noise, wanted)


def test_the_decoder_takes_the_scaled_latents(encoder: FrozenEncoder) -> None:
    net: Any = encoder.module
    latents = torch.randn(2, 4, 4, 4)
    with torch.no_grad():
        wanted = net.net.decode(latents / TINY_VAE.factor).sample
    decoded = encoder.decode(latents)
    assert decoded.shape == (2, 3, 32, 32)
    torch.testing.assert_close(decoded * 2 - 1, wanted)
    assert load_encoder("untrained", "taef2").decode(torch.randn(1, 32, 2, 2)).shape == (1, 3, 16, 16)


def test_older_names_of_attention_are_read_and_a_folder_too(encoder: FrozenEncoder, tmp_path: Path) -> None:
    older = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    weights = {}
    for name, tensor in encoder.module.state_dict().items():
        renamed = name
        for ours, theirs in older.items():
            renamed = renamed.replace(f".{ours}.", f".{theirs}.")
        weights[renamed] = tensor.contiguous()
    assert "encoder.mid_block.attentions.0.proj_attn.weight" in weights
    folder = tmp_path / "vae"
    folder.mkdir()
    save_file(weights, folder / "diffusion_pytorch_model.safetensors")
    assert load_encoder(folder, "tiny_vae").sha256 == encoder.sha256
    save_file(weights, folder / "another.safetensors")
    with pytest.raises(WeightsError, match=r"expected one \.safetensors file in the folder, got another"):
        load_encoder(folder, "tiny_vae")


def test_weights_that_cannot_be_had_are_named_with_their_address(monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(*_: Any) -> None:
        raise OSError("no route to host")

    monkeypatch.setattr(socket, "getaddrinfo", offline)
    monkeypatch.setattr("idif.encoders.hub.getproxies", dict)
    with pytest.raises(WeightsError, match="no route to host") as caught:
        load_encoder("imagenet", "tiny_vae")
    assert f"https://huggingface.co/{TINY_VAE.repository}/resolve/main/" in str(caught.value)
    with pytest.raises(WeightsError, match="this encoder has no such weights"):
        load_encoder("imagenet", "taef2")


@pytest.mark.parametrize("name", ["tiny_vae", "taef2"])
def test_layers_cannot_be_chosen(name: str) -> None:
    with pytest.raises(ConfigError, match=f"taps, neck, padding: {name} has no such options"):
        find_family(name, EncoderOptions(neck="aligned"))


@pytest.mark.parametrize("recorded", [None, 4])
def test_variants_are_cut_out_of_the_uncut_image(tmp_path: Path, recorded: int | None) -> None:
    """As the authors do: the resized image is shifted, its center is cut out, and that may be turned.

    The shift is int(40 / 8 - 32 / 8), or that of an existing store.
    """
    by = recorded or 1
    pixels = np.random.default_rng(0).integers(0, 256, (60, 52, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    names = ("plain", "shifted", "rotated180", "shifted-rotated180")
    chosen = load_encoder("untrained", "tiny_vae", EncoderOptions(resize="bicubic", crop_from=40))
    sample = Sample("a", "cup", "train", (View(1, "a.png", None, "OK"),))
    encoders = EncoderSet((chosen,), 32, stores_images=False, variants=names, recorded_shift=recorded)
    decoded = {name: torch.from_numpy(x[None]) for name, x in encoders.decode(tmp_path, sample).items()}
    arrays = encoders.encode(decoded, {"image": torch.ones(1, 1, dtype=torch.bool)})
    whole = torch.from_numpy(load_image(tmp_path / "a.png", 40, "bicubic")[0])
    moved = torch.zeros_like(whole)
    moved[:, by:, by:] = whole[:, :-by, :-by]
    cuts = [image[:, 4:36, 4:36] for image in (whole, moved)]
    wanted = chosen(torch.stack([*cuts, *(cut.rot90(2, (1, 2)) for cut in cuts)]))
    assert arrays["mu"].shape == (1, 4, 1, 4, 4, 4)
    torch.testing.assert_close(arrays["mu"][0, :, 0], wanted["mu"], rtol=1e-4, atol=1e-5)
    plain = EncoderSet((chosen,), 32).decode(tmp_path, sample)
    assert np.array_equal(plain["images"], decoded["images"][0].numpy())


def test_the_shift_follows_from_the_margin_and_is_part_of_the_fingerprint() -> None:
    def spec(size: int, crop_from: int, *variants: str) -> FeatureSpec:
        chosen = load_encoder("untrained", "tiny_vae", EncoderOptions(crop_from=crop_from))
        return EncoderSet((chosen,), size, variants=("plain", *variants)).spec("float16")

    # stores of 256 px out of 288 and those without shifted variants are written as before
    assert "shift" not in spec(256, 288, "shifted").to_json()
    assert "shift" not in spec(128, 144, "rotated180").to_json()
    small = spec(128, 144, "shifted-rotated180")
    assert small.shift == small.to_json()["shift"] == 2
    assert FeatureSpec.from_json(small.to_json()) == small
    assert small.differences(replace(small, shift=4)) == ["shift: 2, not 4"]
    assert small.fingerprint != replace(small, shift=4).fingerprint


def test_a_shift_needs_a_margin(encoder: FrozenEncoder) -> None:
    with pytest.raises(ConfigError, match="expected crop_from of at least 40, got None"):
        EncoderSet((encoder,), 32, variants=("plain", "shifted"))
    EncoderSet((encoder,), 32, variants=("plain", "rotated180"))


def test_real_weights_of_taef2_rebuild_photographs() -> None:
    root = os.environ.get("IDIF_DATA")
    if root is None:
        pytest.skip("IDIF_DATA names no folder of real data")
    encoder = load_encoder(Path(root) / "encoders" / "taef2.safetensors", "taef2")
    files = sorted((Path(root) / "mvtec3d" / "cable_gland").rglob("rgb/*.png"))[:2]
    images = torch.stack([torch.from_numpy(load_image(file, 256)[0]) for file in files]).float() / 255
    error = (encoder.decode(encoder(images)["mu"]) - images).square().mean(dim=(1, 2, 3))
    decibels = [-10 * math.log10(value) for value in error.tolist()]
    assert min(decibels) > 37, decibels
