"""Pixel metrics: AUPRO against an oracle from the definition, streaming against one pass, and the bounds."""

import itertools
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import scipy.ndimage as ndi
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from sklearn.metrics import average_precision_score, roc_auc_score

from idif.metrics import PixelMetrics, aupro, auroc, average_precision, f1_max

LIMITS = (0.3, 0.1, 0.05, 0.01, 1.0)


def oracle_aupro(maps: np.ndarray, masks: np.ndarray, limit: float, connectivity: int) -> float:
    """From the definition, slowly: at each distinct score the mean overlap of regions and the rate."""
    structure = np.ones((3, 3)) if connectivity == 8 else None
    regions = []
    for scores, mask in zip(maps, masks, strict=True):
        labels, count = ndi.label(mask, structure)
        regions += [scores[labels == i] for i in range(1, count + 1)]
    normal = maps[~masks]
    points = [(0.0, 0.0)]
    for threshold in np.unique(maps)[::-1]:
        overlap = float(np.mean([np.mean(region >= threshold) for region in regions]))
        points.append((float(np.mean(normal >= threshold)), overlap))
    area = 0.0
    for (x0, y0), (x1, y1) in itertools.pairwise(points):
        if x1 <= limit:
            area += (x1 - x0) * (y0 + y1) / 2
        elif x0 < limit:
            at = y0 + (y1 - y0) * (limit - x0) / (x1 - x0)
            area += (limit - x0) * (y0 + at) / 2
    return area / limit


@st.composite
def mapped(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    """A few small maps and masks: blobs, single pixels, touching corners, whole images, ties."""
    shape = draw(st.integers(1, 4)), draw(st.integers(1, 7)), draw(st.integers(1, 7))
    levels = st.sampled_from([-2.0, 0.0, -0.0, 0.25, 0.5, 1.0, 3.0])
    maps = draw(hnp.arrays(np.float16, shape, elements=levels | st.floats(-100, 100, width=16)))
    return maps, draw(hnp.arrays(bool, shape))


def both_classes(masks: np.ndarray) -> bool:
    return bool(masks.any() and not masks.all())


def noise(images: int, side: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """float32 maps with all scores distinct, anomalous squares scored a little higher."""
    rng = np.random.default_rng(seed)
    masks = np.zeros((images, side, side), bool)
    for i in range(0, images, 2):
        y, x = rng.integers(0, side - 6, 2)
        masks[i, y : y + 6, x : x + rng.integers(1, 6)] = True
    maps = np.exp(rng.standard_normal(masks.shape) + 1.5 * masks)
    return maps.astype(np.float32), masks


@settings(max_examples=200, deadline=None, derandomize=True)
@given(mapped(), st.sampled_from(LIMITS), st.sampled_from([4, 8]))
def test_aupro_is_the_definition(data, limit, connectivity) -> None:  # type: ignore[no-untyped-def]
    maps, masks = data
    found = aupro(maps, masks, limit, connectivity)
    if not both_classes(masks):
        assert found is None
        return
    assert found == pytest.approx(oracle_aupro(maps, masks, limit, connectivity), abs=1e-9)
    pixel = PixelMetrics((limit,), connectivity)
    pixel.update(maps, masks)
    values = pixel.compute()
    assert values["aupro" if limit == 0.3 else f"aupro@{limit:g}"] == found
    assert values["p_auroc"] == auroc(maps, masks)
    assert values["p_ap"] == average_precision(maps, masks)
    assert values["p_f1_max"] == f1_max(maps, masks)
    assert values["error_bound"] == 0


def published_aupro(maps: np.ndarray, masks: np.ndarray, limit: float) -> float | None:
    """The loop that many repositories share: 200 thresholds, drop the rates from the limit on, rescale."""
    low, high = float(maps.min()), float(maps.max())
    points = []
    for step in range(200):
        found = maps.astype(np.float64) > low + (high - low) / 200 * step
        overlaps = []
        for hit, mask in zip(found, masks, strict=True):
            labels, count = ndi.label(mask, np.ones((3, 3)))
            overlaps += [hit[labels == i].mean() for i in range(1, count + 1)]
        points.append((float(found[~masks].mean()), float(np.mean(overlaps))))
    kept = sorted(p for p in points if p[0] < limit)
    if len(kept) < 2 or kept[-1][0] == 0:
        return None
    rate, overlap = np.array(kept).T
    return float(np.trapezoid(overlap, rate / rate[-1]))


def test_the_published_aupro_can_be_had_for_comparison() -> None:
    maps, masks = noise(6, 24)
    maps = maps.astype(np.float16)
    for limit in (0.3, 0.05):
        expected = published_aupro(maps, masks, limit)
        assert aupro(maps, masks, limit, rule="rescaled") == pytest.approx(expected, abs=1e-9)
        assert aupro(maps, masks, limit) != pytest.approx(expected, abs=1e-4), "it is another quantity"
    whole = np.clip(np.round(maps * 40) - 5, 0, 200).astype(np.float16)
    assert (whole.min(), whole.max()) == (0, 200)
    expected = published_aupro(whole, masks, 0.3)
    assert aupro(whole, masks, rule="rescaled") == pytest.approx(expected, abs=1e-9), "scores at thresholds"
    assert published_aupro(maps, masks, 1e-9) is None
    pixel = PixelMetrics((0.3, 1e-9), aupro_rule="rescaled")
    pixel.update(maps, masks)
    values = pixel.compute()
    assert values["aupro"] is not None
    assert values["aupro@1e-09"] is None
    assert pixel.reasons == {"aupro@1e-09": "no two thresholds have rates below the limit"}
    rough = PixelMetrics((0.3,), exact_pixels=0, cells=64, aupro_rule="rescaled")
    rough.update(maps.astype(np.float32), masks)
    assert rough.compute()["aupro"] is None
    assert rough.compute()["p_auroc"] is not None
    assert "float16" in rough.reasons["aupro"]


def test_aupro_by_hand() -> None:
    # Regions of 1 and 3 pixels, 4 normal pixels. Above 5: the single pixel (overlap 1/2). Above 4: one
    # normal pixel (rate 1/4). Above 3: the three (overlap 1). The rest normal.
    maps = np.array([[[5, 4, 0, 0], [0, 3, 3, 3]]], np.float32)
    masks = np.array([[[1, 0, 0, 0], [0, 1, 1, 1]]], bool)
    masks[0, 1, 0] = False
    assert aupro(maps, masks, 0.25, 4) == pytest.approx(0.5)
    assert aupro(maps, masks, 0.5, 4) == pytest.approx((0.25 * 0.5 + 0.25 * 1) / 0.5)


def test_float64_maps_closer_than_float32_can_tell_are_not_ties() -> None:
    maps, masks = np.array([[[1.0, 1.0 + 1e-12]]]), np.array([[[False, True]]])
    assert aupro(maps, masks) == 1.0
    assert aupro(maps, ~masks) == 0.0


def test_corners_join_regions_only_when_asked() -> None:
    masks = np.zeros((1, 4, 4), bool)
    masks[0, 0, 0] = masks[0, 1, 1] = masks[0, 1, 2] = True
    for connectivity, regions in ((8, 1), (4, 2)):
        pixel = PixelMetrics(connectivity=connectivity)  # type: ignore[arg-type]
        pixel.update(np.zeros((1, 4, 4), np.float16), masks)
        assert pixel.regions == regions


def test_every_region_counts_the_same_whatever_its_size() -> None:
    maps, masks = np.zeros((2, 64, 64), np.float32), np.zeros((2, 64, 64), bool)
    masks[0, 3, 3] = True
    masks[1, 10:60, 10:60] = True
    maps[0, 3, 3] = 1.0
    # The one-pixel region is found before any normal pixel, the large one ties with all of them.
    assert aupro(maps, masks, 1.0) == pytest.approx((0.5 + 1) / 2, abs=1e-9)


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_updates_order_and_merging_leave_no_trace(dtype: type) -> None:
    maps, masks = noise(12, 16)
    maps = maps.astype(dtype)
    whole = PixelMetrics(LIMITS)
    whole.update(maps, masks)
    expected = whole.compute()
    assert expected["error_bound"] == 0
    rng = np.random.default_rng(1)
    for _ in range(5):
        order = rng.permutation(12)
        cuts = np.sort(rng.choice(np.arange(1, 12), 3, replace=False))
        parts = [PixelMetrics(LIMITS) for _ in range(2)]
        for i, rows in enumerate(np.split(order, cuts)):
            parts[i % 2].update(torch.from_numpy(maps[rows]), torch.from_numpy(masks[rows]))
        other = parts[1].compute()
        parts[0].merge(parts[1])
        assert parts[0].compute() == expected, "bit for bit"
        assert parts[1].compute() == other, "merging leaves the other as it was"
        assert (parts[0].regions, parts[0].normal_pixels) == (whole.regions, whole.normal_pixels)


def test_float16_and_float32_updates_may_be_mixed() -> None:
    maps, masks = noise(6, 16)
    maps = maps.astype(np.float16)
    whole, mixed = PixelMetrics(), PixelMetrics()
    whole.update(maps, masks)
    mixed.update(maps[:3], masks[:3])
    mixed.update(maps[3:].astype(np.float32), masks[3:])
    assert mixed.compute() == whole.compute()


def test_minus_zero_is_zero() -> None:
    masks = np.array([[[True, False]]])
    for dtype in (np.float16, np.float32):
        pixel = PixelMetrics()
        pixel.update(np.array([[[-0.0, 0.0]]], dtype), masks)
        assert pixel.compute()["p_auroc"] == 0.5


def deviations(pixel: PixelMetrics, maps: np.ndarray, masks: np.ndarray) -> dict[str, tuple[float, float]]:
    """Per metric: the deviation from the exact value, and the bound."""
    exact = PixelMetrics(pixel.fpr_limits, exact_pixels=maps.size)
    exact.update(maps, masks)
    true = exact.estimates()
    assert exact.exact
    return {n: (abs(e.value - true[n].value), e.error) for n, e in pixel.estimates().items()}


def test_wide_range_against_scikit_learn() -> None:
    maps, masks = noise(6, 32)
    maps = np.concatenate([maps[:3] * 1e-30, -maps[3:] * 1e30]).astype(np.float32)
    pixel = PixelMetrics()
    pixel.update(maps, masks)
    values = pixel.compute()
    assert values["p_auroc"] == pytest.approx(roc_auc_score(masks.ravel(), maps.ravel()), abs=1e-12)
    assert values["p_ap"] == pytest.approx(average_precision_score(masks.ravel(), maps.ravel()), abs=1e-12)


def test_undefined_is_none_with_its_reason() -> None:
    pixel = PixelMetrics((0.3, 0.1))
    assert pixel.reasons["p_auroc"] == "there are no pixels"
    pixel.update(np.zeros((2, 4, 4), np.float16), np.zeros((2, 4, 4), bool))
    assert pixel.compute() == dict.fromkeys(
        ["p_auroc", "p_ap", "p_f1_max", "aupro", "aupro@0.1", "error_bound"]
    )
    assert pixel.reasons["aupro@0.1"] == "one class only: all 32 pixels are normal"
    pixel.update(np.zeros((1, 4, 4), np.float16), np.eye(4, dtype=bool)[None])
    assert pixel.reasons == {}
    other = PixelMetrics((0.3, 0.1))
    other.declare_undefined("an anomalous view has no mask")
    pixel.merge(other)
    assert pixel.compute()["p_auroc"] is None
    assert pixel.reasons["p_ap"] == "an anomalous view has no mask"


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_a_refused_update_counts_nothing(dtype: type) -> None:
    maps, masks = noise(2, 8)
    pixel = PixelMetrics()
    pixel.update(maps, masks)
    expected = pixel.compute()
    for bad in (np.nan, np.inf, -np.inf, *([1e300] if dtype == np.float64 else [])):
        broken: npt.NDArray[Any] = maps.astype(dtype)
        broken[1, 2, 3] = bad
        with pytest.raises(ValueError, match="finite; 1 of 128"):
            pixel.update(broken, masks)
        assert pixel.compute() == expected


def test_mistakes_are_named() -> None:
    maps, masks = noise(2, 8)
    for wrong in (masks[0], masks[:, :4]):
        with pytest.raises(ValueError, match=r"\[N,H,W\]"):
            PixelMetrics().update(maps, wrong)
        with pytest.raises(ValueError, match=r"\[N,H,W\]"):
            aupro(maps, wrong)
    with pytest.raises(ValueError, match="threshold"):
        aupro(maps, masks * np.uint8(255))
    with pytest.raises(ValueError, match="fpr_limit"):
        aupro(maps, masks, 0.0)
    with pytest.raises(ValueError, match="connectivity"):
        PixelMetrics(connectivity=6)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="cannot merge"):
        PixelMetrics(connectivity=4).merge(PixelMetrics())


def test_the_recorded_curve_has_the_area_that_is_reported() -> None:
    rng = np.random.default_rng(5)
    masks = np.zeros((6, 24, 24), bool)
    masks[:, 3:9, 4:12] = True
    masks[2:, 15:18, 15:22] = True
    maps = (rng.random(masks.shape) + 0.6 * masks).astype(np.float16)
    pixel = PixelMetrics((0.1, 0.3))
    pixel.update(maps, masks)
    area = pixel.compute()["aupro"]
    assert area is not None
    for points, tolerance in ((100_000, 1e-9), (100, 5e-3)):
        x, y = np.array(pixel.pro_curve(points)).T
        assert (x[0], y[0], x[-1]) == (0, 0, 0.3)
        assert len(x) <= points
        assert (np.diff(x) >= 0).all()
        assert (np.diff(y) >= 0).all()
        assert np.trapezoid(y, x) / 0.3 == pytest.approx(area, abs=tolerance)
