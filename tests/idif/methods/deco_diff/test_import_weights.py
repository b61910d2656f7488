"""Checkpoints of DeCo-Diff's authors: equal latents, classes by name, gates, and files that do not fit."""

from argparse import Namespace
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from idif.data.arrays import feature_map
from idif.data.features import EncoderSpec, FeatureSpec
from idif.errors import ConfigError, WeightsError
from idif.methods.catalog import METHODS
from idif.methods.deco_diff.config import DeCoDiffConfig, GatingConfig
from idif.methods.deco_diff.diffusion import reverse_timesteps
from idif.methods.deco_diff.model import DeCoDiff
from idif.methods.protocol import MethodContext
from idif.runs.import_weights import load_imported
from tests.idif.methods.deco_diff.latent_unet import AuthorsUNet, authors_sampler

WIDTH, HEADS, CONTEXT = 32, 4, 64
CONFIG = DeCoDiffConfig(size="XS", width=WIDTH, patch_sizes=(1,), patch_probabilities=(1,))
SPEC = METHODS["deco-diff"]
LATENTS = FeatureSpec(
    encoders=(
        EncoderSpec("vae", "untrained", "0", "image", {}, (feature_map("mu", 4, 8, "vae", signed=True),)),
    ),
    image_size=64,
    storage="float32",
)
CATEGORIES = ("bottle", "screw", "zipper")
IDS = (1, 12, 7)


def context(categories: tuple[str, ...] = CATEGORIES) -> MethodContext:
    return MethodContext(LATENTS, (1,), categories)


def checkpoint(folder: Path, *, gated: bool = False, classes: int = 15) -> tuple[Path, AuthorsUNet]:
    torch.manual_seed(0)
    net = AuthorsUNet(4, WIDTH, HEADS, CONTEXT, classes, gated=gated).eval()
    path = folder / "last.pt"
    torch.save({"model": net.state_dict(), "args": Namespace(model_size="UNet_XS")}, path)
    return path, net


def imported(path: Path, config: DeCoDiffConfig = CONFIG) -> DeCoDiff:
    assert SPEC.import_weights is not None
    weights = SPEC.import_weights(config, context(), path)
    assert weights.encoder is None
    method = SPEC.build(config, context())
    load_imported(method, weights.method, path)
    assert isinstance(method, DeCoDiff)
    return method.eval()


@pytest.mark.parametrize("gated", [False, True], ids=["plain", "gated"])
@torch.no_grad()
def test_latents_are_those_of_the_authors_sampler(tmp_path: Path, gated: bool) -> None:
    path, net = checkpoint(tmp_path, gated=gated)
    config = CONFIG.model_copy(update={"gating": GatingConfig(used=gated)})
    method = imported(path, config)
    latents = torch.randn(3, 4, 8, 8)
    ours, theirs = torch.tensor([0, 1, 2]), torch.tensor(IDS)
    for timestep in (0, 8):
        timesteps = torch.full((3,), timestep)
        predicted = method.unet(latents, timesteps, ours)
        values, gate = net(latents, timesteps, theirs)
        torch.testing.assert_close(predicted.values, values, rtol=1e-4, atol=1e-5)
        if gate is not None:
            torch.testing.assert_close(predicted.gate_logits.sigmoid(), gate, rtol=1e-4, atol=1e-5)
    for steps in (2, 5):
        method.config = config.model_copy(update={"reverse_steps": steps})
        found = method.correct_views(latents, ours)
        wanted = authors_sampler(net, latents, theirs, reverse_timesteps(steps))
        torch.testing.assert_close(found, wanted, rtol=0, atol=1e-3)
        assert (found - latents).abs().max() > 0.01


def test_open_gates_leave_an_ungated_checkpoint_almost_as_it_is(tmp_path: Path) -> None:
    path, _ = checkpoint(tmp_path)
    plain = imported(path)
    gated = imported(path, CONFIG.model_copy(update={"gating": GatingConfig(used=True, init="identity")}))
    latents, zero = torch.randn(2, 4, 8, 8), torch.zeros(2, dtype=torch.int64)
    with torch.no_grad():
        one, other = plain.unet(latents, zero, zero).values, gated.unet(latents, zero, zero).values
    torch.testing.assert_close(other, one, rtol=0.1, atol=0.02)
    with pytest.raises(WeightsError, match=r"has no gates; set method\.gating\.init=identity"):
        imported(path, CONFIG.model_copy(update={"gating": GatingConfig(used=True)}))


def test_files_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    assert SPEC.import_weights is not None
    path, _ = checkpoint(tmp_path, gated=True)
    with pytest.raises(WeightsError, match=r"does not fit the config: there is no place for 'unet\.\w*gate"):
        imported(path)
    with pytest.raises(WeightsError, match=r"network of 32 channels; the config's method\.size gives 256"):
        SPEC.import_weights(DeCoDiffConfig(patch_sizes=(1,), patch_probabilities=(1,)), context(), path)
    with pytest.raises(ConfigError, match="expected classes of one of the authors' data sets, got bolt"):
        SPEC.import_weights(CONFIG, context(("bolt",)), path)
    few, _ = checkpoint(tmp_path, classes=5)
    with pytest.raises(WeightsError, match="has 5 classes, but screw has the number 12"):
        SPEC.import_weights(CONFIG, context(), few)
    other = tmp_path / "other.pt"
    torch.save({"model": {"a": torch.ones(1)}}, other)
    with pytest.raises(WeightsError, match=r"expected a checkpoint of DeCo-Diff with input_blocks\.0\.0"):
        SPEC.import_weights(CONFIG, replace(context(), categories=("candle",)), other)
