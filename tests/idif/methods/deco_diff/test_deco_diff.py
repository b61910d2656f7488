"""DeCo-Diff: sizes, schedules, corruption, correction, maps, and settings that do not fit."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from scipy import ndimage
from torch import Tensor

from idif.config.loader import resolve
from idif.data.arrays import feature_map
from idif.data.batch import Batch
from idif.data.features import EncoderSpec, FeatureSpec
from idif.encoders.frozen import FrozenEncoder
from idif.errors import ConfigError, StoreMismatch
from idif.methods.catalog import METHODS
from idif.methods.deco_diff.difference_maps import DifferenceMaps, enlarging, fuse
from idif.methods.deco_diff.diffusion import (
    betas,
    correct,
    corrupt,
    latent_scale,
    noise_scale,
    random_patches,
    reverse_timesteps,
    shuffled_patches,
)
from idif.methods.deco_diff.unet import SIZES, DeviationUNet, Size
from idif.methods.protocol import MethodContext
from idif.randomness import Draws

COUNTS = {
    "XS": 24_749_636,
    "S": 98_831_492,
    "M": 222_245_572,
    "L": 394_991_876,
    "XL": 612_717_564,
}


def count(size: str, **options: Any) -> int:
    with torch.device("meta"):
        network = DeviationUNet(4, 15, SIZES[size], dropout=0.4, **options)
    return sum(parameter.numel() for parameter in network.parameters())


@pytest.mark.parametrize("size", COUNTS)
def test_the_sizes_have_the_authors_numbers_of_parameters(size: str) -> None:
    assert count(size) == COUNTS[size]


def test_gates_cost_3_160_068_parameters_of_size_l() -> None:
    assert count("L", gates="paper") - COUNTS["L"] == 3_160_068
    assert SIZES["L"].level_heads == (8, 16, 32)
    assert SIZES["XL"].level_heads == (12, 24, 49)


def test_the_forward_pass_without_gates_is_diffusers_own() -> None:
    torch.manual_seed(0)
    network = DeviationUNet(4, 3, Size(32, 2, 16)).eval()
    latents, classes, timesteps = torch.randn(2, 4, 8, 8), torch.tensor([0, 2]), torch.tensor([3, 7])
    with torch.no_grad():
        assert network(latents, timesteps, classes).values.abs().max() == 0, "it starts from no deviation"
        for parameter in network.parameters():
            torch.nn.init.normal_(parameter, std=0.1)
        wanted = network.net(latents, timesteps, network.classes(classes)[:, None]).sample
        assert torch.equal(network(latents, timesteps, classes).values, wanted)


def test_open_gates_are_open_and_the_authors_are_half_open() -> None:
    torch.manual_seed(0)
    latents, zero = torch.randn(1, 4, 8, 8), torch.zeros(1, dtype=torch.int64)
    for gates, low, high in (("identity", 0.99, 1.0), ("paper", 0.2, 0.8)):
        network = DeviationUNet(4, 1, Size(32, 2, 16), gates=gates).eval()  # type: ignore[arg-type]
        gate = network(latents, zero, zero).gate_logits.sigmoid()
        assert low < gate.min() <= gate.max() < high


def test_ten_squared_cosine_levels_and_their_timesteps() -> None:
    from diffusers import DDIMScheduler

    published = DDIMScheduler(num_train_timesteps=10, beta_schedule="squaredcos_cap_v2").betas
    torch.testing.assert_close(betas().float(), published)
    assert betas()[-1] == 0.999
    assert [reverse_timesteps(steps) for steps in (2, 3, 4, 5)] == [
        [5, 0],
        [8, 4, 0],
        [9, 6, 3, 0],
        [8, 6, 4, 2, 0],
    ]
    assert reverse_timesteps(10) == list(range(10))[::-1]
    scales = [round(float(noise_scale()[step]), 3) for step in (8, 6, 4, 2, 0)]
    assert scales == [0.988, 0.893, 0.711, 0.462, 0.167]
    with pytest.raises(ValueError, match="expected 2, 3, 4, 5 or 10, got 7"):
        reverse_timesteps(7)


def test_corruption_is_diffusion_inside_the_mask_and_nothing_outside() -> None:
    """x_t = sqrt(a) x_0 + sqrt(1 - a) n where the mask is 1, as in DDPM; the target is what takes it back."""
    generator = torch.Generator().manual_seed(0)
    latents, timesteps = torch.randn(6, 3, 8, 8), torch.arange(6)
    given = corrupt(latents, timesteps, 2, generator, corrupted=0.7, shuffled=0)
    inside = (given.mask > 0).expand_as(latents)
    assert torch.equal(given.latents[~inside], latents[~inside])
    assert given.deviation[~inside].abs().max() == 0
    signal = torch.cumprod(1 - betas(), dim=0).float()[timesteps].view(-1, 1, 1, 1)
    noise = given.deviation + latent_scale()[timesteps].view(-1, 1, 1, 1) * latents
    wanted = signal.sqrt() * latents + (1 - signal).sqrt() * noise
    torch.testing.assert_close(given.latents[inside], wanted[inside], rtol=1e-4, atol=1e-5)
    spread = noise_scale()[timesteps].view(-1, 1, 1, 1)
    torch.testing.assert_close(given.latents - spread * given.deviation, latents, rtol=1e-4, atol=1e-5)


def test_noise_comes_from_patches_of_the_whole_batch() -> None:
    latents = torch.arange(2 * 3 * 4 * 4).float().view(2, 3, 4, 4)
    moved = shuffled_patches(latents, 2, torch.Generator().manual_seed(0))

    def patches(values: Tensor) -> list[list[float]]:
        cut = values.unfold(2, 2, 2).unfold(3, 2, 2).permute(0, 2, 3, 1, 4, 5).reshape(-1, 12)
        return sorted(cut.tolist())

    assert not torch.equal(moved, latents)
    assert patches(moved) == patches(latents)
    given = corrupt(
        torch.randn(64, 1, 4, 4),
        torch.full((64,), 9),
        1,
        torch.Generator().manual_seed(0),
        corrupted=1.0,
        shuffled=1.0,
    )
    assert 0.4 < given.mask.mean() < 0.6


def test_shares_of_patches_are_uniform_up_to_the_most() -> None:
    generator = torch.Generator().manual_seed(0)
    shares = random_patches(4000, (8, 8), 2, 0.7, generator).mean(dim=(1, 2, 3)) * 16
    # the patches that stay are rounded down, so that one more is chosen
    assert shares.min() == 0 or shares.min() == 1
    assert shares.max() == 12
    assert float(shares.mean()) == pytest.approx(16 * 0.35 + 0.5, abs=0.1)


@pytest.mark.parametrize("steps", [2, 3, 4, 5, 10])
def test_a_perfect_prediction_is_taken_off(steps: int) -> None:
    latents, deviation = torch.randn(2, 4, 4, 4), torch.randn(2, 4, 4, 4)
    first = float(noise_scale()[reverse_timesteps(steps)[0]])
    seen: list[int] = []

    def predict(given: Tensor, timestep: int) -> Tensor:
        seen.append(timestep)
        return deviation

    corrected = correct(latents + first * deviation, steps, predict)
    assert seen == reverse_timesteps(steps)
    torch.testing.assert_close(corrected, latents, rtol=1e-4, atol=1e-5)


def test_maps_are_those_of_the_definition() -> None:
    torch.manual_seed(0)
    draw, size, grid = DifferenceMaps(4, 32), 32, 4
    images, corrected = torch.rand(2, 3, size, size), torch.rand(2, 3, size, size) * 0.6
    latents, fixed = torch.randn(2, 5, grid, grid) * 0.2, torch.randn(2, 5, grid, grid) * 0.2

    def enlarged(values: Any) -> Any:
        return ndimage.zoom(values, size / grid, order=1, mode="mirror", grid_mode=True)

    for one in range(2):
        gap = np.abs(2 * (corrected[one] - images[one]).numpy()).max(axis=0)
        wanted = ndimage.gaussian_filter(gap.clip(0, 0.4) * 2.5, 3)
        torch.testing.assert_close(
            draw.of_images(images, corrected)[one].numpy(), wanted, rtol=1e-4, atol=1e-5
        )
        gap = (fixed[one] - latents[one]).abs().mean(dim=0).numpy()
        smooth = ndimage.gaussian_filter(gap.clip(0, 0.2) * 5, 1)
        torch.testing.assert_close(
            draw.of_latents(latents, fixed)[one].numpy(), enlarged(smooth), rtol=1e-4, atol=1e-5
        )
        gate = ndimage.gaussian_filter(enlarged(latents[one].mean(dim=0).numpy()), 2)
        torch.testing.assert_close(draw.of_gate(latents)[one].numpy(), gate, rtol=1e-4, atol=1e-5)
    assert float(fuse(torch.tensor(1.0), torch.tensor(0.5))) == pytest.approx(0.8)
    assert enlarging(4, 32).sum(dim=1).allclose(torch.ones(32))


def features(channels: int = 4, side: int = 4, logvar: bool = True, axes: str = "cyx") -> FeatureSpec:
    names = ("mu", "logvar") if logvar else ("mu",)
    arrays = tuple(feature_map(name, channels, side, "vae", signed=True) for name in names)
    encoder = EncoderSpec("vae", "untrained", "0", "image", {}, arrays)
    return FeatureSpec((encoder,), 8 * side, "float32")


def built(spec: FeatureSpec, categories: tuple[str, ...] = ("bolt", "cup"), **settings: Any) -> Any:
    section = {"name": "deco-diff", "size": "XS", "width": 32, "patch_sizes": [1], "patch_probabilities": [1]}
    config = resolve({"method": section | settings}, source="test")[0]
    torch.manual_seed(0)
    return METHODS["deco-diff"].build(config.method, MethodContext(spec, (1,), categories))


def batch(spec: FeatureSpec, categories: tuple[str, ...]) -> Batch:
    torch.manual_seed(1)
    size = len(categories)
    shape = (size, 1, *spec.arrays["mu"].shape)
    arrays = {name: torch.randn(shape) for name in spec.features}
    present = torch.ones(size, 1, dtype=torch.bool)
    return Batch(torch.arange(size), arrays, present, ~present, ~present[:, 0], categories)


def test_names_of_the_maps_tell_what_they_are_made_of() -> None:
    plain = built(features())
    assert plain.other_maps == ()
    assert "latent-only: no decoder was at hand" in plain.describe()["map"]
    gated = built(features(), gating={"used": True})
    assert gated.other_maps == ("gate", "fused")
    scores = gated.eval().score(batch(features(), ("cup", "bolt")))
    assert {*scores.maps} == {"map", "gate", "fused"}
    fused = 0.6 * scores.maps["map"] + 0.4 * scores.maps["gate"]
    torch.testing.assert_close(scores.maps["fused"], fused)


def test_gates_can_be_left_out_of_a_finished_model() -> None:
    gated = built(features(), gating={"used": True})
    for parameter in gated.unet.net.conv_out.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    without = built(features(), gating={"used": True, "at_inference": False})
    without.load_state_dict(gated.state_dict())
    plain = built(features())
    plain.load_state_dict({k: v for k, v in gated.state_dict().items() if "gate" not in k})
    given = batch(features(), ("cup", "bolt"))
    maps, wanted = (method.eval().score(given).maps for method in (without, plain))
    assert {*maps} == {*wanted} == {"map"}
    torch.testing.assert_close(maps["map"], wanted["map"])
    corrected = gated.eval().reconstruct(given)["mu"]
    assert not torch.allclose(corrected, without.reconstruct(given)["mu"])
    assert "gates left out" in without.describe()["head"]
    assert without.rebuilt == tuple(without.reconstruct(given)) == ("mu",)
    options = [(option.key, option.kind, option.choices) for option in gated.config.inference_options]
    assert options == [("reverse_steps", "choice", (2, 3, 4, 5, 10)), ("gating.at_inference", "toggle", ())]
    assert [option.key for option in plain.config.inference_options] == ["reverse_steps"]


def test_the_decoder_adds_the_maps_of_images(monkeypatch: pytest.MonkeyPatch) -> None:
    method = built(features())
    decoder = FrozenEncoder("vae", "file", "0", torch.nn.Identity())
    grow: Callable[..., Tensor] = lambda _, x: x[:, :3].repeat_interleave(8, 2).repeat_interleave(8, 3)  # noqa: E731
    monkeypatch.setattr(FrozenEncoder, "decode", grow)
    config = method.config.model_copy(update={"map": "arithmetic"})
    other = type(method)(
        config, Size(32, 2, 64), (4, 4, 4), 32, ("cup",), posterior=False, decoder=decoder
    ).eval()
    for parameter in other.unet.net.conv_out.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    assert other.other_maps == ("geometric", "image", "latent")
    with torch.no_grad():
        maps = other.score(batch(features(), ("cup",))).maps
    torch.testing.assert_close(maps["map"], (maps["image"] + maps["latent"]) / 2)
    torch.testing.assert_close(maps["geometric"], (maps["image"] * maps["latent"]).sqrt())
    assert maps["map"].max() > 0


def test_latents_are_drawn_from_the_posterior_and_otherwise_are_its_mean() -> None:
    spec = features()
    given, mask = batch(spec, ("cup",) * 2), torch.ones(2, 1, dtype=torch.bool)
    generator = torch.Generator().manual_seed(0)
    method = built(spec)
    assert method.needs.training == ("mu", "logvar")
    assert method.needs.scoring == ("mu",)
    noise = torch.randn(2, 4, 4, 4, generator=torch.Generator().manual_seed(0))
    wanted = given.arrays["mu"][:, 0] + (given.arrays["logvar"][:, 0] / 2).exp() * noise
    torch.testing.assert_close(method._sampled(given, mask, generator), wanted)
    for mean in (built(spec, sample_posterior=False), built(features(logvar=False))):
        assert mean.needs.training == ("mu",)
        assert torch.equal(mean._sampled(given, mask, generator), given.arrays["mu"][:, 0])


def test_a_class_out_of_range_is_named() -> None:
    method, given = built(features()), batch(features(), ("cup", "screw"))
    with pytest.raises(ConfigError, match="classes bolt, cup, and 'screw' is none of them"):
        method.eval().score(given)
    draws = Draws(0, 0, 0, 0, ("a", "b"), (1,), torch.device("cpu"))
    with pytest.raises(ConfigError, match="'screw' is none of them"):
        method.training_step(given, draws)
    with pytest.raises(ConfigError, match="this model has 2, and only one of a single category"):
        method.export_module()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"reverse_steps": 7}, "2, 3, 4, 5 or 10"),
        ({"map": "fused"}, "fused needs gates"),
        ({"gating": {"init": "identity"}}, "init and loss need gates"),
        ({"patch_probabilities": [0.5]}, "expected a sum of 1"),
        ({"patch_sizes": [1, 2]}, "expected one for each of the 2 patch_sizes"),
        ({"patch_sizes": [3]}, "method.patch_sizes: 3 does not divide the 4x4 latents"),
    ],
)
def test_settings_that_do_not_fit_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        built(features(), **settings)


def test_latents_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ConfigError, match="sides are multiples of 4, got 6x6"):
        built(features(side=6))
    other = EncoderSpec("r", "untrained", "0", "image", {}, (feature_map("layer1", 4, 4, "r"),))
    with pytest.raises(StoreMismatch, match="the method reads mu, but there are layer1"):
        built(FeatureSpec((other,), 32, "float32"))


def test_the_defaults_are_the_authors() -> None:
    (config,) = resolve({"method": {"name": "deco-diff"}}, source="test")
    assert config.cache.variants == ("plain", "shifted")
    assert (config.teacher.encoder, config.teacher.image_size, config.teacher.crop_from) == (
        "sd_vae",
        256,
        288,
    )
    train = config.train
    assert train.mode == "unified"
    assert train.batch_size * train.accumulate == 256
    assert (train.epochs, train.schedule.horizon, train.clip_norm) == (800, 1200, None)
    assert math.isclose(sum(config.method.model_dump()["patch_probabilities"]), 1)
