"""Camera values: Shapley values, exact and sampled, and bootstrap intervals."""

from itertools import permutations

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from idif.metrics.bootstrap import bootstrap_auroc, percentile_interval
from idif.missing_views.camera_value import (
    PERMUTATIONS,
    SubsetAuroc,
    best_subsets,
    camera_orders,
    camera_subsets,
    leave_one_out,
    missing_intervals,
    shapley,
    shapley_sampled,
)

CAMERAS = (1, 3, 4, 7)


def random_worth(cameras: tuple[int, ...] = CAMERAS) -> dict[frozenset[int], float | None]:
    rng = np.random.default_rng(0)
    return {frozenset(subset): float(rng.uniform(0.5, 1)) for subset in camera_subsets(cameras)}


def additive(cameras: tuple[int, ...]) -> SubsetAuroc:
    """Camera n adds n/1000, together with camera 1 a little more."""
    return {
        frozenset(s): 0.5 + sum(s) / 1000 + (0.01 if {1, 2} <= set(s) else 0) for s in camera_subsets(cameras)
    }


def test_five_cameras_have_31_subsets_each_once_the_largest_first() -> None:
    subsets = camera_subsets((1, 2, 3, 4, 5))
    assert len(subsets) == len(set(subsets)) == 31
    assert sum(map(len, subsets)) == 80
    assert [len(s) for s in subsets] == sorted((len(s) for s in subsets), reverse=True)
    assert len(camera_subsets(tuple(range(1, 11)))) == 1023


def test_many_cameras_are_sampled_alike_every_time() -> None:
    cameras = tuple(range(1, 13))
    subsets = camera_subsets(cameras)
    assert subsets == camera_subsets(cameras)
    assert len(subsets) == len(set(subsets)) <= 12 * (PERMUTATIONS + 1)
    assert cameras in subsets
    for camera in cameras:
        assert tuple(n for n in cameras if n != camera) in subsets
    for order in camera_orders(cameras):
        assert sorted(order) == list(cameras)
        assert all(tuple(sorted(order[:size])) in subsets for size in range(1, 13))


def test_shapley_is_the_mean_gain_over_all_orders() -> None:
    worth = random_worth()
    gains: dict[int, list[float]] = {camera: [] for camera in CAMERAS}
    for order in permutations(CAMERAS):
        before = 0.5
        for size, camera in enumerate(order, start=1):
            after = worth[frozenset(order[:size])]
            assert after is not None
            gains[camera].append(after - before)
            before = after
    values = shapley(worth, CAMERAS)
    assert values is not None
    assert values == pytest.approx({str(c): np.mean(g) for c, g in gains.items()})
    whole = worth[frozenset(CAMERAS)]
    assert whole is not None
    assert sum(values.values()) == pytest.approx(whole - 0.5)
    worth[frozenset((1,))] = None
    assert shapley(worth, CAMERAS) is None


def test_sampled_shapley_values_are_those_of_all_orders_within_their_error() -> None:
    worth = random_worth()
    everything = shapley_sampled(worth, list(permutations(CAMERAS)))
    assert everything is not None
    assert everything[0] == {c: pytest.approx(v) for c, v in (shapley(worth, CAMERAS) or {}).items()}
    cameras = tuple(range(1, 13))
    found = shapley_sampled(additive(cameras), camera_orders(cameras))
    assert found is not None
    values, errors = found
    for camera in cameras:
        exact = camera / 1000 + (0.005 if camera in (1, 2) else 0)
        assert abs(values[str(camera)] - exact) <= 3 * errors[str(camera)] + 1e-12
    assert errors["1"] > 0
    assert errors["7"] == pytest.approx(0, abs=1e-12)


def test_leave_one_out_and_the_best_of_each_size() -> None:
    worth = random_worth()
    whole = worth[frozenset(CAMERAS)]
    assert whole is not None
    lost = leave_one_out(worth, CAMERAS)
    assert lost["4"] == pytest.approx(whole - (worth[frozenset((1, 3, 7))] or 0))
    assert leave_one_out({frozenset((2,)): 0.8}, (2,)) == {"2": pytest.approx(0.3)}
    best = best_subsets(worth)
    assert list(best) == ["1", "2", "3", "4"]
    for size, found in best.items():
        assert found["s_auroc"] == max(v or 0 for s, v in worth.items() if len(s) == int(size))
        assert worth[frozenset(found["views"])] == found["s_auroc"]
    worth[frozenset(CAMERAS)] = None
    assert "4" not in best_subsets(worth)
    assert leave_one_out(worth, CAMERAS)["1"] is None


def test_the_interval_is_that_of_resampled_samples() -> None:
    """Against the definition: the same draws, each scored by scikit-learn with weights."""
    rng = np.random.default_rng(3)
    labels = rng.uniform(size=30) < 0.6
    scores = [(rng.normal(size=30).round(1) + shift * labels).astype(np.float32) for shift in (1, 2, 3)]
    scores[1][[0, 5, 17]] = np.nan
    drawn = np.random.default_rng(7)
    counts = np.zeros((50, 30))
    for items in (np.flatnonzero(~labels), np.flatnonzero(labels)):
        counts[:, items] = drawn.multinomial(len(items), np.full(len(items), 1 / len(items)), 50)
    means = []
    for weight in counts:
        seen = [~np.isnan(one) for one in scores]
        areas = [
            roc_auc_score(labels[s], one[s], sample_weight=weight[s])
            for one, s in zip(scores, seen, strict=True)
        ]
        means.append(np.mean(areas))
    got = bootstrap_auroc(scores, labels, resamples=50, seed=7)
    assert got == pytest.approx(np.array(means), abs=1e-6)
    assert percentile_interval(got) == pytest.approx(np.quantile(means, [0.025, 0.975]), abs=1e-6)
    assert bootstrap_auroc(scores, np.ones(30, np.bool_)) is None
    assert percentile_interval(None) is None
    assert percentile_interval(np.array([np.nan, 0.2, 0.4])) == pytest.approx([0.205, 0.395])


def test_what_is_lost_has_a_paired_interval() -> None:
    """Scores that lose a little everywhere: each figure is uncertain, their difference hardly."""
    rng = np.random.default_rng(3)
    labels = rng.uniform(size=60) < 0.6
    whole = (rng.normal(size=60) + labels).astype(np.float32)
    worse = (whole + rng.normal(0, 0.02, 60)).astype(np.float32)
    found = missing_intervals({0: [whole], 1: [worse, worse]}, labels)
    assert found[0]["loss_ci"] == [0, 0]
    width = {key: np.diff(found[1][key] or [0, 0])[0] for key in ("s_auroc_ci", "loss_ci")}
    assert 0 < width["loss_ci"] < 0.2 * width["s_auroc_ci"]
    apart = bootstrap_auroc([whole], labels)
    other = bootstrap_auroc([worse, worse], labels)
    assert apart is not None
    assert other is not None
    assert found[1]["loss_ci"] == percentile_interval(apart - other)
