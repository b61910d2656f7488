"""The frozen encoder: the right features from the right weights, and every wrong file named."""

import os
from pathlib import Path
from urllib.error import URLError

import pytest
import torch
from safetensors.torch import load_file, save_file
from torchvision.models import ResNet18_Weights, resnet18

from idif.encoders.encode import encode_present
from idif.encoders.frozen import FrozenEncoder, hash_weights, load_encoder
from idif.encoders.preparation import normalize
from idif.errors import WeightsError


@pytest.fixture(scope="module")
def untrained() -> FrozenEncoder:
    return load_encoder("untrained")


def state(encoder: FrozenEncoder) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in encoder.module.state_dict().items()}


def test_features_are_those_of_torchvision_s_network(untrained: FrozenEncoder) -> None:
    net = resnet18(weights=None)
    net.load_state_dict(state(untrained), strict=False)
    net.eval()
    images = torch.randint(0, 256, (2, 3, 64, 96), dtype=torch.uint8)
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    x = (images / 255 - mean.view(3, 1, 1)) / std.view(3, 1, 1)
    torch.testing.assert_close(normalize(images), x)
    with torch.no_grad():
        x = net.maxpool(net.relu(net.bn1(net.conv1(x))))
        expected = {}
        for name in ("layer1", "layer2", "layer3"):
            x = getattr(net, name)(x)
            expected[name] = x
    features = untrained(images)
    assert list(features) == list(expected)
    assert [array.name for array in untrained.arrays(64)] == list(expected)
    for array in untrained.arrays(64):
        channels, height, width = array.shape
        assert (height, width) == (expected[array.name].shape[2],) * 2
        assert features[array.name].shape == (2, channels, height, width * 96 // 64)
        torch.testing.assert_close(features[array.name], expected[array.name])


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
@pytest.mark.parametrize("present", [[True, False], [True, True], [False, False]])
def test_autocast_changes_no_feature(
    untrained: FrozenEncoder, dtype: torch.dtype, present: list[bool]
) -> None:
    """A training step that encodes, e.g. of the segmentation head, gets the features that stores hold."""
    images = torch.randint(0, 256, (1, 2, 3, 32, 32), dtype=torch.uint8)
    inputs = images if dtype == torch.uint8 else images / 255
    wanted = encode_present(untrained, inputs, torch.tensor([present]))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = encode_present(untrained, inputs, torch.tensor([present]))
        assert torch.is_autocast_enabled("cpu"), "the step goes on in its own precision"
    for name, x in wanted.items():
        assert found[name].dtype == torch.float32
        assert torch.equal(found[name], x)


def test_it_is_frozen_and_in_eval_mode(untrained: FrozenEncoder) -> None:
    before = hash_weights(state(untrained))
    out = untrained(torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8))
    assert not untrained.module.training
    assert not any(p.requires_grad for p in untrained.module.parameters())
    assert not out["layer3"].requires_grad
    assert hash_weights(state(untrained)) == before


def test_untrained_weights_are_everywhere_the_same_and_leave_the_generator_alone() -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    first = load_encoder("untrained")
    assert torch.equal(torch.rand(3), expected)
    assert first.sha256 == load_encoder("untrained").sha256
    assert first.sha256.startswith(PINNED)


PINNED = "46be756befff"


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_a_file_round_trips_and_keys_beyond_layer3_may_be_there(
    untrained: FrozenEncoder, tmp_path: Path, suffix: str
) -> None:
    weights = state(untrained) | {"fc.weight": torch.zeros(10, 512), "layer4.0.conv1.weight": torch.ones(3)}
    path = tmp_path / f"w{suffix}"
    if suffix == ".pth":
        torch.save(weights, path)
    else:
        save_file(weights, path)
    loaded = load_encoder(path)
    assert loaded.weights == "file"
    assert loaded.sha256 == untrained.sha256


def test_one_changed_bit_changes_the_hash(untrained: FrozenEncoder, tmp_path: Path) -> None:
    weights = state(untrained)
    weights["layer2.1.conv2.weight"].view(torch.int32)[3, 2, 1, 0] ^= 1
    save_file(weights, tmp_path / "w.safetensors")
    assert load_encoder(tmp_path / "w.safetensors").sha256 != untrained.sha256


def test_wrong_files_are_named(untrained: FrozenEncoder, tmp_path: Path) -> None:
    def refused(path: Path, expected: str) -> None:
        with pytest.raises(WeightsError) as caught:
            load_encoder(path)
        assert str(path) in str(caught.value)
        assert expected in str(caught.value)

    refused(tmp_path / "none.pth", "no such weights file")
    path = tmp_path / "w.safetensors"
    weights = state(untrained)
    del weights["layer3.0.conv1.weight"]
    save_file(weights, path)
    refused(path, "'layer3.0.conv1.weight' is missing")
    save_file(state(untrained) | {"conv1.weight": torch.zeros(64, 1, 7, 7)}, path)
    refused(path, "'conv1.weight' has shape [64, 1, 7, 7], expected [64, 3, 7, 7]")
    save_file(state(untrained) | {"bn1.bias": torch.full((64,), float("nan"))}, path)
    refused(path, "'bn1.bias' holds values that are not finite")
    path.write_bytes(path.read_bytes()[:1000])
    refused(path, "not readable as encoder weights")
    for name, content in (("text.pth", b"hello"), ("empty.pth", b"")):
        (tmp_path / name).write_bytes(content)
        refused(tmp_path / name, "not readable as encoder weights")
    torch.save([1, 2], tmp_path / "list.pth")
    refused(tmp_path / "list.pth", "expected a dictionary of tensors")


def test_imagenet_offline_names_the_alternatives(monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(*_: object, **__: object) -> None:
        raise URLError("no route to host")

    monkeypatch.setattr(ResNet18_Weights, "get_state_dict", offline)
    with pytest.raises(WeightsError) as caught:
        load_encoder("imagenet")
    for alternative in ("checkpoints", "https://download.pytorch.org", ".safetensors", "untrained"):
        assert alternative in str(caught.value)


def test_imagenet_takes_what_torchvision_gives(
    untrained: FrozenEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = state(untrained)
    monkeypatch.setattr(ResNet18_Weights, "get_state_dict", lambda *_, **__: weights)
    loaded = load_encoder("imagenet")
    assert loaded.weights == "imagenet"
    assert loaded.sha256 == untrained.sha256


def test_folded_imagenet_weights_load() -> None:
    data = os.environ.get("IDIF_DATA")
    if data is None:
        pytest.skip("IDIF_DATA is not set")
    path = Path(data) / "resnet18" / "resnet18_imagenet_conv1_to_layer3.safetensors"
    encoder = load_encoder(path)
    out = encoder(torch.randint(0, 256, (1, 3, 64, 64), dtype=torch.uint8))
    # trained features are sparse and of moderate size; a seeded random network's are neither
    assert 0.3 < float((out["layer3"] == 0).float().mean()) < 0.95
    assert 0.1 < float(out["layer1"].mean()) < 2
    assert len(load_file(path)) == 75
