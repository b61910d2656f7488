"""ResNets: their arrays, reflected padding, and weights of the wrong one."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional as F

from idif.encoders.frozen import find_family, load_encoder
from idif.encoders.options import EncoderOptions
from idif.encoders.preparation import reflect_padding
from idif.encoders.resnet import ARCHITECTURES, LAYERS
from idif.errors import ConfigError, WeightsError

ALL_TAPS = EncoderOptions(taps=tuple(LAYERS))


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_every_network_gives_the_arrays_it_declares(name: str) -> None:
    family = find_family(name, ALL_TAPS)
    with torch.device("meta"):
        maps = family.build()(torch.empty(1, 3, 96, 96))
    assert [(array.name, array.shape) for array in family.arrays(96)] == [
        (layer, tuple(values.shape[1:])) for layer, values in maps.items()
    ]


def test_msflow_s_arrays_at_512_px() -> None:
    options = EncoderOptions(neck="average-pool", padding="reflect", resize="lanczos")
    arrays = find_family("wide_resnet50_2", options).arrays(512)
    assert [(array.name, 2 * array.size) for array in arrays] == [
        ("p1", 2_097_152),
        ("p2", 1_048_576),
        ("p3", 524_288),
    ]


def test_reflection_is_that_of_torch_s_padding() -> None:
    convolution = nn.Conv2d(2, 3, 3, stride=2, padding=1)
    images = torch.rand(1, 2, 8, 8)
    expected = F.conv2d(
        F.pad(images, (1, 1, 1, 1), mode="reflect"), convolution.weight, convolution.bias, stride=2
    )
    reflect_padding(convolution, "test")
    assert torch.equal(convolution(images), expected)
    with pytest.raises(ConfigError, match=r"^padding: test has no padded convolutions"):
        reflect_padding(nn.Conv2d(2, 3, 1), "test")


def test_every_padded_convolution_of_a_resnet_is_reflected() -> None:
    module = find_family("resnet50", EncoderOptions(padding="reflect")).build()
    layers = [layer for layer in module.modules() if isinstance(layer, nn.Conv2d)]
    reflected = [layer.kernel_size for layer in layers if layer.padding_mode == "reflect"]
    assert set(reflected) == {(3, 3), (7, 7)}
    assert len(reflected) == 1 + 3 + 4 + 6


def test_weights_of_a_deeper_network_of_the_same_names_are_refused(tmp_path: Path) -> None:
    save_file(ARCHITECTURES["resnet34"].build().state_dict(), tmp_path / "w.safetensors")
    assert load_encoder(tmp_path / "w.safetensors", "resnet34").weights == "file"
    with pytest.raises(WeightsError, match=r"'layer1\.2\.\S+' belongs to another network than torchvision's"):
        load_encoder(tmp_path / "w.safetensors")


def test_unknown_taps_and_unsorted_ones_are_named() -> None:
    with pytest.raises(ConfigError, match=r"^taps: resnet18 has strides 2, 4, 8, 16, 32, got 3$"):
        find_family("resnet18", EncoderOptions(taps=(3,)))
    with pytest.raises(ConfigError, match=r"^taps: expected ascending numbers, got \[8, 4\]$"):
        EncoderOptions(taps=(8, 4))


def test_default_options_are_not_recorded_and_stores_stay_as_they_were() -> None:
    plain, explicit = find_family("resnet18"), find_family("resnet18", EncoderOptions(taps=(4, 8, 16)))
    assert list(plain.preparation) == ["resize", "mean", "std"]
    assert explicit.preparation == plain.preparation
    assert "options" in find_family("resnet18", EncoderOptions(neck="aligned")).preparation
