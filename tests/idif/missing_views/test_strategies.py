"""What to do about missing views: nothing hidden leaks, the nearest is the nearest, painters learn."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor

from idif.config.sections import EvalConfig, InpainterConfig
from idif.data.arrays import feature_map
from idif.data.batch import Batch
from idif.data.features import IMAGES, EncoderSpec, FeatureSpec
from idif.errors import ConfigError, RunError
from idif.methods.protocol import Method, Needs, Scores
from idif.missing_views.imputation import ImputedSource, ImputedViews, Imputer
from idif.missing_views.inpainting import Reconstructor, ViewInpainter, load_inpainter, train_inpainter
from idif.missing_views.retrieval import Retriever
from idif.missing_views.strategies import Strategy, mean_curve, score_strategy
from idif.missing_views.sweep import random_masks, sweep_paper
from tests.helpers.stubs import CPU, SIZE, InMemory, scorer

CONFIG = EvalConfig(batch_size=5)
LAYER = "layer3"
LAYERS = ("layer1", "layer2", LAYER)


class WithFeatures(InMemory):
    """`InMemory` with a view's mean colour and contrast as features, in four channels, and multiples."""

    @property
    def spec(self) -> FeatureSpec:
        arrays = tuple(feature_map(name, 4, 2, "colours") for name in LAYERS)
        return FeatureSpec((EncoderSpec("colours", "file", "0", "image", {}, arrays),), SIZE, "float32")

    def batches(
        self, order: Sequence[int], batch_size: int, variants: Sequence[int] | None = None
    ) -> Iterator[Batch]:
        for batch in super().batches(order, batch_size, variants):
            pixels = batch.images.float() / 255
            colour = torch.cat([pixels.mean(dim=(3, 4)), pixels.std(dim=(2, 3, 4))[..., None]], dim=2)
            layer = colour[..., None, None].expand(-1, -1, -1, 2, 2)
            features = {name: layer * factor for name, factor in zip(LAYERS, (4, 2, 1), strict=True)}
            yield batch.with_arrays(batch.arrays | features)


def samples(count: int, views: int = 4, seed: int = 0, absent: float = 0.0) -> WithFeatures:
    generator = torch.Generator().manual_seed(seed)
    present = torch.rand(count, views, generator=generator) >= absent
    present[:, 0] |= ~present.any(dim=1)
    labels = (torch.arange(count) % 2 == 0)[:, None].expand(count, views)
    return WithFeatures(present, labels, seed)


@dataclass(frozen=True)
class Grey:
    """Fills every view with one grey; knows none of the last camera."""

    def fill(self, batch: Batch, missing: Tensor) -> ImputedViews:
        assert not (missing & batch.view_mask).any()
        assert not batch.images[~batch.view_mask].any(), "a hidden view is looked at"
        count = int(missing.sum())
        known = missing.nonzero()[:, 1] < missing.shape[1] - 1
        features = {
            name: torch.full((count, *f.shape[2:]), 7.0) for name, f in batch.features(LAYERS).items()
        }
        images = torch.full((count, *batch.images.shape[2:]), 99, dtype=torch.uint8)
        return ImputedViews({IMAGES: images, **features}, known)


def test_a_filled_source_keeps_what_is_seen_and_fills_the_rest() -> None:
    data = samples(6, absent=0.3)
    visible = data.present.numpy() & (np.arange(4) != 1)
    visible[5] = False
    (real,) = data.batches(range(6), 6)
    (batch,) = ImputedSource(data, visible, Grey()).batches(range(6), 6)
    seen = torch.from_numpy(visible)
    assert torch.equal(batch.images[seen], real.images[seen])
    filled = ~seen & (torch.arange(4) < 3) & (torch.arange(6) < 5)[:, None] & seen.any(dim=1, keepdim=True)
    assert torch.equal(batch.view_mask, seen | filled)
    assert (batch.images[filled] == 99).all()
    for layer in batch.features(LAYERS).values():
        assert (layer[filled] == 7).all()
        assert not layer[~(seen | filled)].any()
    assert not batch.images[~(seen | filled)].any()
    assert torch.equal(batch.labels, real.labels), "a sample stays what it is"


def test_the_lender_is_the_nearest_in_the_views_that_remain() -> None:
    normals, data = samples(9, seed=1, absent=0.2), samples(5, seed=2)
    retriever = Retriever.build(normals, LAYER, 1)
    visible = np.ones((5, 4), np.bool_)
    visible[0, 2] = visible[1, [0, 1]] = visible[3, 3] = False
    (lenders,) = normals.batches(range(9), 9)
    (real,) = data.batches(range(5), 5)
    (batch,) = ImputedSource(data, visible, retriever).batches(range(5), 5)
    assert batch.view_mask.all()

    def pooled(batch: Batch, row: int, view: int) -> npt.NDArray[np.float64]:
        vector: npt.NDArray[np.float64] = batch.arrays[LAYER][row, view].mean(dim=(1, 2)).double().numpy()
        unit: npt.NDArray[np.float64] = vector / np.linalg.norm(vector)
        return unit

    for row, view in np.argwhere(~visible):
        distances = []
        for lender in range(9):
            if not lenders.view_mask[lender, view]:
                distances.append(np.inf)
                continue
            shared = [v for v in range(4) if visible[row, v] and lenders.view_mask[lender, v]]
            apart = [1 - pooled(real, row, v) @ pooled(lenders, lender, v) for v in shared]
            distances.append(float(np.mean(apart)) if shared else np.inf)
        nearest = int(np.argmin(distances))
        assert torch.equal(batch.images[row, view], lenders.images[nearest, view])
        for name in LAYERS:
            assert torch.equal(batch.arrays[name][row, view], lenders.arrays[name][nearest, view])


def test_several_lenders_are_averaged_and_mistakes_are_told() -> None:
    normals, data = samples(9, seed=1), samples(3, seed=2)
    visible = np.ones((3, 4), np.bool_)
    visible[:, 0] = False
    (all_of_them,) = ImputedSource(data, visible, Retriever.build(normals, LAYER, 9)).batches(range(3), 3)
    mean = normals.images[:, 0].float().mean(dim=0).round().byte()
    assert torch.equal(all_of_them.images[1, 0], mean)
    (lenders,) = normals.batches(range(9), 9)
    for name in LAYERS:
        torch.testing.assert_close(all_of_them.arrays[name][1, 0], lenders.arrays[name][:, 0].mean(dim=0))
    with pytest.raises(ConfigError, match=r"strategies\.layer: expected one of layer1, layer2, layer3"):
        Retriever.build(normals, "layer4", 1)
    with pytest.raises(ConfigError, match=r"strategies\.neighbours: 10, but there are 9"):
        Retriever.build(normals, LAYER, 10)


def test_without_a_layer_the_last_feature_map_tells_the_similarity() -> None:
    assert Retriever.build(samples(9), None, 1).layer == LAYERS[-1]
    with pytest.raises(ConfigError, match=r"strategies\.layer: expected one of .*, got ''"):
        Retriever.build(samples(9), "", 1)
    everything = torch.ones(9, 4, dtype=torch.bool)
    with pytest.raises(ConfigError, match=r"strategies\.layer: the store holds no feature map"):
        Retriever.build(InMemory(everything, ~everything), None, 1)


def test_leaving_views_out_is_the_papers_sweep() -> None:
    data = samples(24, absent=0.2)
    curve = score_strategy(scorer(CONFIG), data, Strategy(None), seed=3)
    sweep = sweep_paper(scorer(CONFIG), data, seed=3)["by_missing"]
    assert list(curve) == list(sweep)
    for missing, values in curve.items():
        for key in ("s_auroc", "p_auroc", "samples", "unscorable"):
            assert values[key] == pytest.approx(sweep[missing][key], abs=1e-9)
        assert values["s_auroc_ci"] == pytest.approx(sweep[missing]["s_auroc_ci"], abs=1e-9)
    assert mean_curve({"cup": curve}) == curve


class Loud(Method):
    """Scores a view by its brightness alone, so that what is scored can be told."""

    needs = Needs(training=(), scoring=(IMAGES,))

    def score(self, batch: Batch) -> Scores:
        brightness = (batch.images.float() / 255).mean(dim=2)
        return Scores(maps={"map": brightness * batch.view_mask[:, :, None, None]})

    def describe(self) -> dict[str, str]:
        raise NotImplementedError


@dataclass(frozen=True)
class Oracle:
    """White where the sample is anomalous: scores of views filled with it are always right."""

    def fill(self, batch: Batch, missing: Tensor) -> ImputedViews:
        bad = batch.labels.any(dim=1)[missing.nonzero()[:, 0]]
        images = torch.zeros(len(bad), *batch.images.shape[2:], dtype=torch.uint8)
        images[bad] = 255
        features = {name: f.new_zeros(len(bad), *f.shape[2:]) for name, f in batch.features(LAYERS).items()}
        return ImputedViews({IMAGES: images, **features}, torch.ones(len(bad), dtype=torch.bool))


def test_filled_views_are_scored_only_where_asked_for() -> None:
    data = samples(24)

    def curve(imputer: Imputer | None, *, score_imputed: bool) -> dict[str, float]:
        found = score_strategy(scorer(CONFIG, Loud()), data, Strategy(imputer, score_imputed), seed=0)
        return {missing: values["s_auroc"] for missing, values in found.items()}

    alone, present = curve(None, score_imputed=False), curve(Oracle(), score_imputed=False)
    assert alone == present
    filled = curve(Oracle(), score_imputed=True)
    assert filled["0"] == alone["0"]
    assert all(filled[missing] == 1.0 for missing in "123")
    assert alone["3"] < 1.0


def test_the_painter_learns_what_one_view_tells_of_another(tmp_path: Path) -> None:
    """Each camera has a pattern of its own, which every sample shows in its own colour."""
    data = samples(32, views=3, seed=5)
    ramp = torch.linspace(0.2, 1, SIZE)
    patterns = torch.stack(
        [ramp.expand(SIZE, SIZE), ramp.flip(0)[:, None].expand(SIZE, SIZE), ramp * ramp[:, None]]
    )
    colours = torch.randint(40, 200, (32, 1, 3, 1, 1), generator=torch.Generator().manual_seed(0))
    data.images = (colours * patterns[:, None]).clamp(0, 255).byte()
    config = InpainterConfig(epochs=60, batch_size=8, width=8, lr=5e-3)
    assert load_inpainter(tmp_path / "reconstruct", config, data) is None
    painter = train_inpainter(tmp_path / "reconstruct", config, data, range(24), CPU)
    visible = random_masks(data.index, 0)[2]
    assert (visible.sum(axis=1) == 1).all()
    source = ImputedSource(data, visible, Reconstructor(painter, (), CPU))
    (batch,) = source.batches(range(24, 32), 8)
    hidden, real = ~torch.from_numpy(visible[24:]), data.images[24:].float()

    def error(guess: Tensor) -> Tensor:
        return (guess - real)[hidden].abs().mean()

    average = data.images[:24].float().mean(dim=0).expand_as(real)
    other = real.roll(1, dims=1).where(~hidden.roll(1, dims=1)[:, :, None, None, None], real.roll(2, dims=1))
    assert error(batch.images.float()) < 0.8 * error(average)
    assert error(batch.images.float()) < 0.8 * error(other)
    again = load_inpainter(tmp_path / "reconstruct", config, data)
    assert again is not None
    for name, value in painter.state_dict().items():
        assert torch.equal(value, again.state_dict()[name])
    with pytest.raises(RunError, match="delete the folder to train it again"):
        load_inpainter(tmp_path / "reconstruct", InpainterConfig(epochs=26, width=8), data)
    short = InpainterConfig(epochs=2, width=8)
    twice = [train_inpainter(tmp_path / name, short, data, range(24), CPU).state_dict() for name in "ab"]
    assert all(torch.equal(twice[0][name], twice[1][name]) for name in twice[0])


def test_scored_views_are_encoded_by_every_encoder_of_images() -> None:
    data = samples(2, views=3)
    encoders: Any = tuple(lambda pixels, n=n: {n: pixels.float().mean((1, 2, 3))} for n in ("a", "b"))
    (batch,) = data.batches(range(2), 2)
    missing = torch.tensor([[True, False, False], [False, False, True]])
    imputed = Reconstructor(ViewInpainter(3, 8).eval(), encoders, CPU).fill(batch, missing)
    assert imputed.arrays.keys() == {"images", "a", "b"}
    assert imputed.arrays["b"].shape == (2,)


def test_the_painter_sees_only_visible_views_at_any_size() -> None:
    torch.manual_seed(0)
    painter = ViewInpainter(4, 8).eval()
    images = torch.rand(2, 4, 3, 48, 48)
    visible = torch.tensor([[True, False, True, False], [False, True, True, True]])
    other = torch.where(visible[:, :, None, None, None], images, torch.rand_like(images))
    painted = painter(images, visible)
    assert painted.shape == images.shape
    assert torch.equal(painted, painter(other, visible))
    assert not torch.equal(painted, painter(images, visible.flip(0)))


def test_single_views_teach_a_painter_nothing(tmp_path: Path) -> None:
    present = torch.tensor([[True, False]]).expand(4, 2)
    data = WithFeatures(present, torch.zeros(4, 2, dtype=torch.bool))
    with pytest.raises(RunError, match="two views or more"):
        train_inpainter(tmp_path / "reconstruct", InpainterConfig(epochs=1, width=8), data, range(4), CPU)
    assert not (tmp_path / "reconstruct").exists()
