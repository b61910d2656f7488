"""Loss and maps of MSFlow against their definitions written out in NumPy."""

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor

from idif.methods.msflow.likelihood import energy, likelihood_maps, log_likelihood, top_mean
from idif.methods.msflow.model import MSFlow
from tests.idif.methods.msflow.pooled_features import PooledFeatures, draws_of, make_model

Array = npt.NDArray[np.float64]


def upsampled(x: Array, size: int) -> Array:
    """[h,w] -> [size,size], bilinear, the corner positions of both grids at the same places."""
    result = np.empty((size, size))
    for row in range(size):
        for column in range(size):
            y, x_at = row * (x.shape[0] - 1) / (size - 1), column * (x.shape[1] - 1) / (size - 1)
            top, left = min(int(y), x.shape[0] - 2), min(int(x_at), x.shape[1] - 2)
            down, right = y - top, x_at - left
            result[row, column] = (
                (1 - down) * (1 - right) * x[top, left]
                + (1 - down) * right * x[top, left + 1]
                + down * (1 - right) * x[top + 1, left]
                + down * right * x[top + 1, left + 1]
            )
    return result


def maps_by_definition(latents: list[Array], size: int) -> tuple[Array, Array]:
    """map_add and map_mul of one image's latents [C,h,w]."""
    logs = [-0.5 * (z**2).mean(axis=0) for z in latents]
    total = np.stack([upsampled(x, size) for x in logs]).sum(axis=0)
    product: Array = np.exp(total - total.max())
    relative = [np.exp(x - x.max()) for x in logs]
    added: Array = np.stack([upsampled(x, size) for x in relative]).sum(axis=0)
    return added.max() - added, product.max() - product


def latents(scale: float = 1.0) -> list[Tensor]:
    generator = torch.Generator().manual_seed(3)
    shapes = ((2, 4, 6, 6), (2, 6, 3, 3))
    return [scale * torch.randn(shape, generator=generator, dtype=torch.float64) for shape in shapes]


def test_maps_are_those_of_the_definition_for_each_image_alone() -> None:
    given, size = latents(), 9
    maps = likelihood_maps([log_likelihood(z) for z in given], (size, size))
    for row in range(2):
        added, product = maps_by_definition([z[row].numpy() for z in given], size)
        np.testing.assert_allclose(maps.sum[row].numpy(), added, atol=1e-12)
        np.testing.assert_allclose(maps.product[row].numpy() + 1, product, atol=1e-12)


def test_the_view_score_is_the_mean_of_the_top_pixels() -> None:
    maps = torch.arange(100.0).flip(0).view(1, 10, 10)
    assert top_mean(maps, 0.03).tolist() == [98.0]
    assert top_mean(maps, 0.001).tolist() == [99.0]
    marked = torch.zeros(512 * 512)
    marked[:7864] = 1
    assert top_mean(marked.view(1, 512, 512), 0.03).tolist() == [1.0]


def test_unlikely_latents_overflow_nothing_and_are_told_apart_in_float16() -> None:
    logs = [log_likelihood(z.float()) for z in latents(60.0)]
    maps = likelihood_maps(logs, (9, 9))
    assert all(torch.isfinite(x).all() for x in maps)
    # likelihoods of 1e-7 and 2e-7 would be equal as 1 - P
    pair = likelihood_maps([torch.tensor([[[0.0, -15.4], [-16.1, 0.0]]])], (2, 2)).product.half()
    assert pair[0, 0, 1] < pair[0, 1, 0]


def test_the_energy_is_half_the_squared_norm() -> None:
    z = latents()[0]
    np.testing.assert_allclose(energy(z).numpy(), 0.5 * (z.numpy() ** 2).sum(axis=(1, 2, 3)))


def test_the_loss_is_the_mean_negative_log_likelihood_of_present_views() -> None:
    source, method = PooledFeatures(), make_model()
    (batch,) = source.batches([0, 1, 2], 3)
    losses = method.training_step(batch, draws_of(source, batch))
    features = [batch.arrays[name][batch.view_mask].double() for name in ("p1", "p2")]
    assert len(features[0]) == 5, "a view of the three samples is absent"
    z, log_dets, fusion = method.double()(features)
    wanted = sum(0.5 * x.square().sum(dim=(1, 2, 3)) for x in z) - fusion - sum(log_dets)
    torch.testing.assert_close(losses["loss"].double(), wanted.mean(), rtol=1e-5, atol=1e-4)
    assert list(losses) == [
        "energy_p1", "energy_p2", "log_det_p1", "log_det_p2", "log_det_fusion", "loss"
    ]  # fmt: skip


def test_scores_are_reduced_from_the_product_map_and_zero_where_absent() -> None:
    source, method = PooledFeatures(), make_model().eval()
    (batch,) = source.batches([0, 1, 2], 3)
    with torch.inference_mode():
        scores = method.score(batch)
        z, _, _ = method([batch.arrays[name][batch.view_mask].float() for name in ("p1", "p2")])
    assert scores.views is not None
    kept = batch.view_mask
    for place, (view, maps, product) in enumerate(
        zip(scores.views[kept], scores.maps["map"][kept], scores.maps["product"][kept], strict=True)
    ):
        wanted = maps_by_definition([x[place].double().numpy() for x in z], 32)
        np.testing.assert_allclose(maps.numpy(), wanted[0], atol=1e-5)
        np.testing.assert_allclose(product.numpy(), wanted[1] - 1, atol=1e-5)
        top = np.sort(wanted[1].ravel())[-int(0.03 * 32 * 32) :]
        assert float(view) == pytest.approx(top.mean() - 1, abs=1e-5)
    assert not scores.maps["map"][~kept].any()
    assert not scores.maps["product"][~kept].any()


def test_likelihoods_stay_in_float32_under_mixed_precision() -> None:
    source, method = PooledFeatures(), make_model()
    (batch,) = source.batches([0, 1], 2)
    seen: list[torch.dtype] = []

    def watch(module: torch.nn.Module, args: Any, output: Tensor) -> None:
        seen.append(output.dtype)

    for module in method.modules():
        if isinstance(module, torch.nn.Conv2d):
            module.register_forward_hook(watch)
    full = method.training_step(batch, draws_of(source, batch))
    assert set(seen) == {torch.float32}
    seen.clear()
    with torch.autocast("cpu", torch.bfloat16):
        mixed = method.training_step(batch, draws_of(source, batch))
        features = [batch.arrays[name][batch.view_mask].float() for name in ("p1", "p2")]
        z, log_dets, fusion = method(features)
    assert set(seen) == {torch.bfloat16}
    assert {x.dtype for x in (*z, *log_dets, fusion, *mixed.values())} == {torch.float32}
    torch.testing.assert_close(mixed["loss"], full["loss"], rtol=2e-2, atol=1.0)


def test_a_loss_that_is_not_finite_names_the_scale_first() -> None:
    source, method = PooledFeatures(), make_model()
    (batch,) = source.batches([0], 1)
    arrays = dict(batch.arrays)
    arrays["p2"] = arrays["p2"] * torch.nan
    assert isinstance(method, MSFlow)
    with torch.no_grad():
        for head in (method.fusion.from_first, method.fusion.from_second):
            for parameter in head.parameters():
                parameter.zero_()
        losses = method.training_step(batch.with_arrays(arrays), draws_of(source, batch))
    broken = [name for name, value in losses.items() if not torch.isfinite(value)]
    assert broken[-1] == "loss"
    assert "energy_p2" in broken
