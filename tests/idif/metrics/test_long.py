"""Thousands of random and adversarial cases against scikit-learn; minutes, so not in the ordinary run."""

import numpy as np
import pytest
import scipy.ndimage as ndi
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from sklearn.metrics import average_precision_score, roc_auc_score, roc_curve

from idif.metrics import PixelMetrics
from tests.idif.metrics.test_curves import sklearn_f1_max

pytestmark = pytest.mark.long

SCORES = (
    st.sampled_from([-7.0, -1e-38, -0.0, 0.0, 1e-38, 0.1, 0.5, 1.0, 1e30]),
    st.integers(-3, 3).map(float),
    st.floats(-1000, 1000, width=16),
    st.floats(-(2.0**127), 2.0**127, width=32),
    st.floats(1, 1 + 2**-18, width=32),
)


@st.composite
def cases(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    """Maps and masks with both classes: ties, tiny regions, one pixel, almost everything anomalous."""
    shape = draw(st.integers(1, 5)), draw(st.integers(1, 9)), draw(st.integers(2, 9))
    dtype = draw(st.sampled_from([np.float16, np.float32, np.float64, np.int64]))
    elements = draw(st.sampled_from(SCORES[:3] if dtype == np.float16 else SCORES))
    maps = draw(hnp.arrays(np.float32, shape, elements=elements))
    if dtype == np.int64:
        maps = np.clip(maps, -1000, 1000)
    elif dtype == np.float16:
        maps = np.clip(maps, -60000, 60000)
    masks = draw(hnp.arrays(bool, shape, elements=st.booleans() | st.sampled_from([True, False])))
    flat = masks.reshape(-1)
    flat[draw(st.integers(0, flat.size - 1))] ^= flat.all() or not flat.any()
    return maps.astype(dtype), masks


def sklearn_aupro(maps: np.ndarray, masks: np.ndarray, limit: float) -> float:
    """scikit-learn's ROC curve, anomalous pixels weighing one over their region's size, cut at the limit."""
    weights = np.ones(masks.shape)
    for weight, mask in zip(weights, masks, strict=True):
        labels, count = ndi.label(mask, np.ones((3, 3)))
        for region in range(1, count + 1):
            weight[labels == region] = 1 / (labels == region).sum()
    fpr, tpr, _ = roc_curve(
        masks.ravel(), maps.ravel(), sample_weight=weights.ravel(), drop_intermediate=False
    )
    kept = fpr < limit
    # the segment that crosses the limit
    i = int(kept.sum())
    end = tpr[i - 1] + (tpr[i] - tpr[i - 1]) * (limit - fpr[i - 1]) / (fpr[i] - fpr[i - 1])
    return float(np.trapezoid([*tpr[kept], end], [*fpr[kept], limit]) / limit)


@settings(max_examples=4000, deadline=None, derandomize=True)
@given(cases(), st.sampled_from([0.3, 0.1, 0.05, 0.01]), st.integers(1, 4), st.sampled_from([4, 1 << 20]))
def test_everything_is_scikit_learns(data, limit, step, cells) -> None:  # type: ignore[no-untyped-def]
    maps, masks = data
    whole = PixelMetrics((limit,), cells=cells)
    for i in range(0, len(maps), step):
        part = PixelMetrics((limit,), cells=cells)
        part.update(maps[i : i + step], masks[i : i + step])
        whole.merge(part)
    found = whole.compute()
    labels, scores = masks.ravel(), maps.astype(np.float32).ravel()
    assert found["error_bound"] == 0
    assert found["p_auroc"] == pytest.approx(roc_auc_score(labels, scores), abs=1e-9)
    assert found["p_ap"] == pytest.approx(average_precision_score(labels, scores), abs=1e-9)
    assert found["p_f1_max"] == pytest.approx(sklearn_f1_max(labels, scores), abs=1e-9)
    name = "aupro" if limit == 0.3 else f"aupro@{limit:g}"
    assert found[name] == pytest.approx(sklearn_aupro(scores.reshape(maps.shape), masks, limit), abs=1e-5)


@settings(max_examples=1000, deadline=None, derandomize=True)
@given(st.integers(0, 2**32 - 1), st.floats(-30, 30), st.floats(0.01, 10), st.integers(2, 12))
def test_bounds_hold_for_any_spread_and_memory(seed: int, centre: float, spread: float, bits: int) -> None:
    rng = np.random.default_rng(seed)
    masks = np.zeros((6, 32, 32), bool)
    masks[::2, 3:9, 4:20] = True
    sign = rng.choice([-1, 1])
    maps = (sign * np.exp(centre + spread * rng.standard_normal(masks.shape) + masks)).astype(np.float32)
    pixel = PixelMetrics((0.3, 0.01), exact_pixels=0, cells=1 << bits)
    exact = PixelMetrics((0.3, 0.01), exact_pixels=maps.size)
    for i in range(6):
        pixel.update(maps[i : i + 1], masks[i : i + 1])
        exact.update(maps[i : i + 1], masks[i : i + 1])
    assert len(pixel.counts()) <= 1 << bits
    true = exact.estimates()
    for name, estimate in pixel.estimates().items():
        assert abs(estimate.value - true[name].value) <= estimate.error + 1e-12, name
