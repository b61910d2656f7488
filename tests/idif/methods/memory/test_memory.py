"""PatchCore and PaDiM against their definitions, written as loops over positions in float64."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from idif.config.sections import EvalConfig
from idif.data.arrays import feature_map
from idif.data.batch import Batch
from idif.data.features import EncoderSpec, FeatureSpec
from idif.errors import CannotFinish, ConfigError
from idif.methods.memory import nearest as search
from idif.methods.memory.config import PaDiMConfig, PatchCoreConfig
from idif.methods.memory.coreset import greedy_coreset
from idif.methods.memory.nearest import nearest, nearest_in_window, nearest_with_faiss
from idif.methods.memory.padim import PaDiM
from idif.methods.memory.patchcore import PatchCore
from idif.methods.memory.stacking import Stacking
from idif.methods.protocol import MethodContext
from tests.helpers.stubs import scorer

Doubles = npt.NDArray[np.float64]
SIZE, VIEWS = 32, 2
MAPS = (feature_map("fine", 3, 8, "e"), feature_map("coarse", 5, 4, "e"))
PLAIN: dict[str, Any] = {"pooling": 1, "unit_length": False, "smoothing": 0}


def features(**changes: Any) -> FeatureSpec:
    encoder = EncoderSpec("e", "untrained", "0", "image", {}, MAPS)
    return replace(FeatureSpec((encoder,), SIZE, "float32"), **changes)


def batch(count: int, seed: int = 0, mask: Tensor | None = None) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    arrays = {m.name: torch.randn(count, VIEWS, *m.shape, generator=generator) for m in MAPS}
    shown = torch.ones(count, VIEWS, dtype=torch.bool) if mask is None else mask
    return Batch(
        rows=torch.arange(count),
        arrays=arrays,
        view_mask=shown,
        labels=torch.zeros_like(shown),
        sample_labels=torch.zeros(count, dtype=torch.bool),
        categories=("cup",) * count,
    )


def context() -> MethodContext:
    return MethodContext(features(), tuple(range(1, VIEWS + 1)))


def patchcore(train: Batch, **keys: Any) -> PatchCore:
    config = {"storage": "float32", "coreset": None if "window" in keys else 1, **PLAIN, **keys}
    method = PatchCore(PatchCoreConfig(**config), context())
    method.fit([train], seed=0)
    return method.eval()


def padim(train: Batch, **keys: Any) -> PaDiM:
    method = PaDiM(PaDiMConfig(**{"dimensions": None, "smoothing": 0, **keys}), context())
    method.fit([train], seed=0)
    return method.eval()


def stacked(given: Batch, side: int) -> Doubles:
    """[B,V,side,side,8]: both maps on one grid, by repeating or averaging values."""
    grids = []
    for array in given.arrays.values():
        values = array.double().numpy()
        have = values.shape[-1]
        if have < side:
            # bilinear, positions at the centers of cells
            at = (np.arange(side) + 0.5) * have / side - 0.5
            low = np.clip(np.floor(at).astype(int), 0, have - 1)
            high, part = np.minimum(low + 1, have - 1), np.clip(at, 0, None) - low
            rows = values[..., low, :] * (1 - part)[:, None] + values[..., high, :] * part[:, None]
            values = rows[..., low] * (1 - part) + rows[..., high] * part
        elif have > side:
            step = have // side
            values = values.reshape(*values.shape[:3], side, step, side, step).mean(axis=(4, 6))
        grids.append(values)
    return np.moveaxis(np.concatenate(grids, axis=2), 2, -1)


def at_image_size(maps: Doubles) -> Tensor:
    grid = torch.from_numpy(maps).flatten(0, 1)[:, None]
    full = torch.nn.functional.interpolate(grid, (SIZE, SIZE), mode="bilinear", align_corners=False)
    return full.view(*maps.shape[:2], SIZE, SIZE).float()


@pytest.mark.parametrize("window", [None, 0, 1])
@pytest.mark.parametrize("grid", [4, 8])
def test_patchcore_is_the_distance_to_the_nearest_training_feature(window: int | None, grid: int) -> None:
    train, test = batch(4), batch(2, seed=1)
    keys = {} if window is None else {"window": window}
    method = patchcore(train, grid=grid, **keys)
    memory, asked = stacked(train, grid), stacked(test, grid)
    wanted = np.zeros((2, VIEWS, grid, grid))
    for b, v, y, x in np.ndindex(wanted.shape):
        reach = grid if window is None else window
        near = memory[:, v, max(0, y - reach) : y + reach + 1, max(0, x - reach) : x + reach + 1]
        wanted[b, v, y, x] = np.linalg.norm(near - asked[b, v, y, x], axis=-1).min()
    torch.testing.assert_close(method.score(test).maps["map"], at_image_size(wanted), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("window", [None, 1])
def test_the_methods_own_score_weights_the_largest_distance_by_the_memorys_neighbors(
    window: int | None,
) -> None:
    train, test, grid = batch(4), batch(3, seed=1), 4
    keys = {} if window is None else {"window": window}
    method = patchcore(train, grid=grid, neighbours=3, **keys)
    memory, asked = stacked(train, grid), stacked(test, grid)
    found = scorer(EvalConfig(score="method"), method).score(test).views
    for b, v in np.ndindex(3, VIEWS):
        best = (-1.0, 0.0)
        for y, x in np.ndindex(grid, grid):
            reach = grid if window is None else window
            near = memory[:, v, max(0, y - reach) : y + reach + 1, max(0, x - reach) : x + reach + 1]
            near = near.reshape(-1, near.shape[-1])
            apart = np.linalg.norm(near - asked[b, v, y, x], axis=-1)
            around = np.linalg.norm(near - near[apart.argmin()], axis=-1).argsort()[:3]
            weight = 1 - np.exp(apart.min()) / np.exp(apart[around]).sum()
            best = max(best, (apart.min(), weight * apart.min()))
        assert float(found[b, v]) == pytest.approx(best[1], rel=1e-4)


@pytest.mark.parametrize("covariance", ["full", "diagonal"])
@pytest.mark.parametrize("shrinkage", [0.0, 0.3])
def test_padim_is_the_mahalanobis_distance_to_the_positions_distribution(
    covariance: str, shrinkage: float
) -> None:
    train, test, grid = batch(6), batch(2, seed=1), 4
    method = padim(train, covariance=covariance, shrinkage=shrinkage, ridge=0.05)
    memory, asked = stacked(train, grid), stacked(test, grid)
    wanted = np.zeros((2, VIEWS, grid, grid))
    for b, v, y, x in np.ndindex(wanted.shape):
        seen = memory[:, v, y, x]
        spread = np.cov(seen.T)
        if covariance == "diagonal":
            spread = np.diag(np.diag(spread))
        spread = (1 - shrinkage) * spread + shrinkage * np.diag(spread).mean() * np.eye(8) + 0.05 * np.eye(8)
        off = asked[b, v, y, x] - seen.mean(axis=0)
        wanted[b, v, y, x] = np.sqrt(off @ np.linalg.inv(spread) @ off)
    torch.testing.assert_close(method.score(test).maps["map"], at_image_size(wanted), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("border", ["inside", "zeros"])
def test_stacking_scales_then_averages_over_3_x_3_positions(border: str) -> None:
    given, grid = batch(1), 8
    config = PatchCoreConfig.model_validate(
        {"layers": ("fine",), "grid": grid, "smoothing": 0, "border": border}
    )
    found = Stacking(config, features())({"fine": given.arrays["fine"][0]})
    values = given.arrays["fine"][0].double().numpy()
    values /= np.linalg.norm(values, axis=1, keepdims=True)
    for y, x in np.ndindex(grid, grid):
        near = values[:, :, max(0, y - 1) : y + 2, max(0, x - 1) : x + 2]
        count = near.shape[2] * near.shape[3] if border == "inside" else 9
        np.testing.assert_allclose(found[:, :, y, x], near.sum(axis=(2, 3)) / count, rtol=1e-5, atol=1e-6)


def test_the_map_is_a_bilinear_image_smoothed_by_a_gaussian() -> None:
    from scipy.ndimage import gaussian_filter

    maps = batch(2).arrays["coarse"][:, 0, :1].double().numpy()
    stacking = Stacking(PatchCoreConfig(smoothing=2.0, grid=4), features())
    wanted = [gaussian_filter(one, 2.0, mode="mirror") for one in at_image_size(maps)[:, 0].double().numpy()]
    found = stacking.to_image(torch.from_numpy(maps[:, 0]).float())
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)


def test_the_default_grid_has_positions_of_at_least_8_pixels() -> None:
    assert Stacking(PatchCoreConfig(), features()).grid == 4
    assert Stacking(PatchCoreConfig(), features(image_size=64)).grid == 8
    assert Stacking(PatchCoreConfig(layers=("fine",)), features()).grid == 8


@settings(max_examples=30, deadline=None)
@given(
    st.integers(1, 40), st.integers(1, 40), st.integers(1, 6), st.integers(0, 99), st.sampled_from([7, 64])
)
def test_the_search_is_exact_whatever_the_block(
    queries: int, bank: int, dimensions: int, seed: int, block: int
) -> None:
    rng = np.random.default_rng(seed)
    asked, known = rng.normal(size=(queries, dimensions)), rng.normal(size=(bank, dimensions))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(search, "BLOCK", block)
        distances, rows = nearest(torch.from_numpy(asked).float(), torch.from_numpy(known).float())
    apart = np.linalg.norm(asked[:, None] - known[None], axis=-1)
    np.testing.assert_allclose(distances, apart.min(axis=1), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(apart[np.arange(queries), rows], apart.min(axis=1), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("find", [nearest, nearest_with_faiss])
def test_a_feature_of_the_memory_is_at_distance_zero(find: Callable[..., tuple[Tensor, Tensor]]) -> None:
    """Also where squares cancel: the product of long vectors rounds by more than 1."""
    bank = torch.randn(50, 8, generator=torch.Generator().manual_seed(0)) + 1000
    distances, rows = find(bank.flip(0), bank)
    assert (distances == 0).all()
    assert rows.tolist() == list(range(49, -1, -1))


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 5), st.integers(1, 5), st.integers(1, 3), st.integers(0, 99))
def test_a_window_over_everything_is_the_search_in_all_of_the_memory(
    height: int, width: int, each: int, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    queries = torch.randn(2, 3, height, width, generator=generator)
    bank = torch.randn(height, width, each, 3, generator=generator)
    within = nearest_in_window(queries, bank, max(height, width))
    anywhere = nearest(queries.permute(0, 2, 3, 1).reshape(-1, 3), bank.view(-1, 3))
    torch.testing.assert_close(within[0].flatten(), anywhere[0])
    assert torch.equal(within[1].flatten(), anywhere[1])


def test_faiss_gives_the_same_maps_and_scores() -> None:
    train, test = batch(6, 0), batch(3, 1)
    ours, of_faiss = (patchcore(train, coreset=1, search=which).score(test) for which in ("torch", "faiss"))
    torch.testing.assert_close(of_faiss.maps["map"], ours.maps["map"], rtol=1e-6, atol=0)
    torch.testing.assert_close(of_faiss.views, ours.views, rtol=1e-6, atol=0)


def test_without_faiss_a_config_that_names_it_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("idif.methods.memory.patchcore.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"method.search: faiss is not installed.*idif\[faiss\]"):
        PatchCore(PatchCoreConfig(search="faiss"), context())


def test_a_coreset_covers_the_vectors_as_the_greedy_choice_does() -> None:
    points = np.random.default_rng(1).normal(size=(30, 3))
    rows = greedy_coreset(torch.from_numpy(points).float(), 6, projection=3, seed=4).tolist()
    apart = np.linalg.norm(points[:, None] - points[None], axis=-1)
    # one of the chosen came first; from it, each next one is the farthest from those before
    orders = []
    for first in rows:
        order = [first]
        while len(order) < 6:
            order.append(int(apart[order].min(axis=0).argmax()))
        orders.append(sorted(order))
    assert rows in orders
    again = greedy_coreset(torch.from_numpy(points).float(), 6, projection=3, seed=4)
    assert rows == again.tolist()
    others = greedy_coreset(torch.from_numpy(points).float(), 6, projection=3, seed=5).tolist()
    assert others != rows


def test_a_coreset_goes_on_from_the_vectors_chosen_before() -> None:
    points = torch.arange(10.0)[:, None]
    rows = greedy_coreset(points, 2, projection=1, seed=0, known=torch.tensor([[0.0]]))
    assert rows.tolist() in ([4, 9], [5, 9])


def test_no_vector_is_chosen_twice_even_if_all_are_equal() -> None:
    rows = greedy_coreset(torch.full((9, 3), 0.1), 5, projection=3, seed=0).tolist()
    assert len(set(rows)) == 5


def test_a_full_coreset_is_no_coreset() -> None:
    train, test = batch(4), batch(2, seed=1)
    whole = patchcore(train, grid=4)
    assert len(whole.vectors) == 4 * VIEWS * 16
    assert greedy_coreset(whole.vectors, len(whole.vectors), projection=2, seed=0).tolist() == list(
        range(len(whole.vectors))
    )
    less = patchcore(train, grid=4, coreset=0.25)
    assert less.counts.tolist() == [16, 16]
    assert (less.score(test).maps["map"] >= whole.score(test).maps["map"] - 1e-5).all()


def test_one_memory_for_all_views_or_one_for_each_camera() -> None:
    train, grid = batch(4), 4
    turned = replace(train, arrays={name: array.flip(1) for name, array in train.arrays.items()})
    alone, shared = patchcore(train, grid=grid), patchcore(train, grid=grid, bank="shared")
    assert float(shared.score(turned).maps["map"].abs().max()) == 0
    assert float(alone.score(turned).maps["map"].min()) > 0


def test_a_camera_that_training_never_saw_is_named() -> None:
    mask = torch.tensor([[True, False]] * 4)
    for method in (patchcore(batch(4, mask=mask)), padim(batch(4, mask=mask))):
        assert torch.isfinite(method.score(batch(2, mask=mask[:2])).maps["map"]).all()
        with pytest.raises(CannotFinish, match=r"camera 2: no training sample"):
            method.score(batch(2))


def test_what_cannot_be_computed_is_refused() -> None:
    with pytest.raises(CannotFinish, match=r"method.ridge: 4 training views"):
        padim(batch(4), ridge=0)
    with pytest.raises(ConfigError, match=r"method.layers: 'layer9' is not among .* fine, coarse"):
        patchcore(batch(2), layers=("layer9",))
    with pytest.raises(ConfigError, match=r"needs images"):
        Stacking(PatchCoreConfig(), features(image_size=None))
    large = batch(2)
    large.arrays["fine"][0, 0] = 1e6
    with pytest.raises(CannotFinish, match=r"not finite as float16"):
        patchcore(large, storage="float16")
    window = patchcore(batch(2), window=1)
    with pytest.raises(ConfigError, match=r"method.window: .* cannot be exported"):
        window.export_module()


def test_moments_do_not_depend_on_how_far_the_mean_is() -> None:
    train, test = batch(6), batch(2, seed=1)
    far = [replace(b, arrays={n: a + 1000 for n, a in b.arrays.items()}) for b in (train, test)]
    near, shifted = padim(train).score(test).maps["map"], padim(far[0]).score(far[1]).maps["map"]
    torch.testing.assert_close(shifted, near, rtol=2e-2, atol=1e-2)
