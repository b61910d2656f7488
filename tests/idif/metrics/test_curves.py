"""AUROC, AP and F1max against scikit-learn, under ties and every adversarial score we could think of."""

from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from sklearn.metrics import average_precision_score, precision_recall_curve, roc_auc_score

from idif.metrics import auroc, average_precision, f1_max
from idif.metrics.curves import one_class_reason
from idif.metrics.threshold import (
    f1_max_threshold,
    false_positive_threshold,
    fixed_threshold,
    youden_threshold,
)

FEW = st.sampled_from([-3.0, -1e-38, -0.0, 0.0, 1e-38, 0.1, 0.5, 1.0, 7.0, 1e30])
ANY = st.floats(-(2.0**127), 2.0**127, width=32)


@st.composite
def ranked(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    """Scores and labels with both classes, from few values (heavy ties) or any float32."""
    size = draw(st.integers(2, 60))
    scores = draw(hnp.arrays(np.float32, size, elements=draw(st.sampled_from([FEW, ANY]))))
    labels = draw(hnp.arrays(bool, size))
    labels[draw(st.integers(0, size - 1))] ^= labels.all() or not labels.any()
    return scores, labels


def sklearn_f1_max(labels: np.ndarray, scores: np.ndarray) -> float:
    precision, recall, _ = precision_recall_curve(labels, scores)
    total = precision + recall
    return float(np.max(np.divide(2 * precision * recall, total, out=np.zeros_like(total), where=total > 0)))


@settings(max_examples=150, deadline=None, derandomize=True)
@given(ranked())
def test_equal_to_scikit_learn(data: tuple[np.ndarray, np.ndarray]) -> None:
    scores, labels = data
    assert auroc(scores, labels) == pytest.approx(roc_auc_score(labels, scores), abs=1e-12)
    assert average_precision(scores, labels) == pytest.approx(
        average_precision_score(labels, scores), abs=1e-12
    )
    assert f1_max(scores, labels) == pytest.approx(sklearn_f1_max(labels, scores), abs=1e-12)


@settings(max_examples=100, deadline=None, derandomize=True)
@given(ranked(), st.randoms())
def test_invariant_under_permutation_and_monotone_maps(data, random) -> None:  # type: ignore[no-untyped-def]
    scores, labels = data
    order = random.sample(range(scores.size), scores.size)
    ranks = np.unique(scores, return_inverse=True)[1]
    for metric in (auroc, average_precision, f1_max):
        expected = metric(scores, labels)
        assert metric(scores[order], labels[order]) == expected
        assert metric(ranks * 3 - 7, labels) == expected, "a monotone map to whole numbers"
        assert metric(ranks.astype(np.float16), labels) == expected


@pytest.mark.parametrize("dtype", [np.int64, np.uint8, np.float16, np.float32, np.float64])
def test_number_types_shapes_and_torch(dtype: type) -> None:
    rng = np.random.default_rng(0)
    scores: npt.NDArray[Any] = rng.integers(0, 9, (4, 5, 6)).astype(dtype)
    labels = rng.random((4, 5, 6)) < 0.3
    expected = roc_auc_score(labels.ravel(), scores.ravel())
    assert auroc(scores, labels) == pytest.approx(expected)
    assert auroc(torch.from_numpy(scores), torch.from_numpy(labels)) == pytest.approx(expected)
    assert auroc(scores, labels.astype(np.int64)) == pytest.approx(expected)
    if dtype == np.float32:
        assert auroc(torch.from_numpy(scores).bfloat16(), labels) == pytest.approx(expected)


def test_float64_scores_closer_than_float32_can_tell_are_not_ties() -> None:
    scores, labels = np.array([1.0, 1.0 + 1e-12]), np.array([False, True])
    assert auroc(scores, labels) == 1.0


def test_constant_scores_are_exactly_a_half() -> None:
    for size in (2, 3, 7, 1001):
        labels = np.arange(size) % 3 == 0
        assert auroc(np.full(size, 0.1), labels) == 0.5


def test_perfect_and_reversed_are_exactly_one_and_zero() -> None:
    scores = np.random.default_rng(0).random(999)
    labels = scores > 0.7
    assert auroc(scores, labels) == average_precision(scores, labels) == f1_max(scores, labels) == 1.0
    assert auroc(-scores, labels) == 0.0


@pytest.mark.parametrize("labels", [[0, 0, 0], [1, 1, 1]])
def test_one_class_is_undefined_never_a_number(labels: list[int]) -> None:
    for metric in (auroc, average_precision, f1_max):
        assert metric(np.arange(3.0), np.array(labels)) is None
        assert metric(np.empty(0), np.empty(0, bool)) is None


def test_mistakes_are_named() -> None:
    for metric in (auroc, average_precision, f1_max):
        for bad in (np.nan, np.inf, -np.inf):
            with pytest.raises(ValueError, match="finite; 1 of 2"):
                metric(np.array([0.0, bad]), np.array([0, 1]))
        with pytest.raises(ValueError, match="differ in shape"):
            metric(np.zeros(3), np.array([0, 1]))
        with pytest.raises(ValueError, match="0 and 1"):
            metric(np.zeros(2), np.array([0, 255]))
        with pytest.raises(ValueError, match="real numbers"):
            metric(np.array([1j, 2]), np.array([0, 1]))


def test_reasons() -> None:
    assert one_class_reason(3, 2, "samples") is None
    assert one_class_reason(3, 0, "samples") == "one class only: all 3 samples are normal"
    assert one_class_reason(0, 2, "views") == "one class only: all 2 views are anomalous"
    assert one_class_reason(0, 0, "views") == "there are no views"


@settings(max_examples=100, deadline=None, derandomize=True)
@given(ranked())
def test_f1_threshold_reaches_the_greatest_f1(data: tuple[np.ndarray, np.ndarray]) -> None:
    scores, labels = data
    flagged = f1_max_threshold(scores, labels).flags(scores)
    tp = (flagged & labels).sum()
    assert 2 * tp / (flagged.sum() + labels.sum()) == pytest.approx(f1_max(scores, labels), abs=1e-12)


def test_of_thresholds_with_the_same_f1_the_highest_is_chosen() -> None:
    # flagging one gives precision 1 and recall 1/2, flagging all precision 1/2 and recall 1
    scores, labels = np.array([4.0, 3.0, 2.0, 1.0]), np.array([True, False, False, True])
    assert f1_max_threshold(scores, labels).flags(scores).tolist() == [True, False, False, False]


@settings(max_examples=200, deadline=None, derandomize=True)
@given(ranked())
def test_youden_threshold_is_the_highest_of_all_cuts_with_the_greatest_difference_of_rates(
    data: tuple[np.ndarray, np.ndarray],
) -> None:
    scores, labels = data
    cuts = np.unique(scores)
    differences = [
        Fraction(int((scores[labels] >= cut).sum()), int(labels.sum()))
        - Fraction(int((scores[~labels] >= cut).sum()), int((~labels).sum()))
        for cut in cuts
    ]
    best = max(at for at, difference in enumerate(differences) if difference == max(differences))
    found = youden_threshold(scores, labels)
    assert found.flags(scores).tolist() == (scores >= cuts[best]).tolist()
    assert (found.rule, found.items) == ("youden", scores.size)
    below, lowest = cuts[max(best - 1, 0)], cuts[best]
    between = np.float32((float(below) + float(lowest)) / 2)
    assert np.float32(found.value) == (between if below < between else lowest), "midway"


def test_youden_does_not_depend_on_how_many_are_anomalous() -> None:
    """Classes as of the split val of welds: F1 gains by calling nearly all anomalous, TPR - FPR does not."""
    normal, anomalous = np.linspace(0, 1, 122), np.linspace(0.4, 2, 1610)
    scores, labels = np.concatenate([normal, anomalous]), np.arange(1732) >= 122
    few = np.concatenate([normal, anomalous[::50]])
    assert (normal >= f1_max_threshold(scores, labels).value).mean() > 0.5
    for value in (youden_threshold(scores, labels), youden_threshold(few, labels[: few.size])):
        assert (normal >= value.value).mean() < 0.05


@settings(max_examples=200, deadline=None, derandomize=True)
@given(hnp.arrays(np.float32, st.integers(1, 40), elements=FEW | ANY), st.floats(0, 0.99))
def test_false_positive_threshold_is_the_lowest_that_keeps_the_rate(scores: np.ndarray, rate: float) -> None:
    threshold = false_positive_threshold(scores, rate)
    flagged = threshold.flags(scores)
    assert flagged.mean() <= rate + 1e-9
    highest = scores[~flagged].max()
    assert (scores >= highest).mean() > rate - 1e-9, "a lower one that makes a difference breaks the rate"
    assert highest < threshold.value
    if flagged.any():
        lowest = scores[flagged].min()
        between = np.float32((float(highest) + float(lowest)) / 2)
        assert np.float32(threshold.value) == (between if highest < between else lowest), "midway"


def test_false_positive_threshold_counts_whole_items() -> None:
    scores = np.arange(100.0)
    assert false_positive_threshold(scores, 0.29).flags(scores).sum() == 29
    assert false_positive_threshold(scores, 0).flags(scores).sum() == 0


def test_thresholds_refuse_what_they_cannot_choose_from() -> None:
    with pytest.raises(ValueError, match="all 3 scores are normal"):
        f1_max_threshold(np.arange(3.0), np.zeros(3, bool))
    with pytest.raises(ValueError, match=r"greatest TPR - FPR needs .* all 3 scores are anomalous"):
        youden_threshold(np.arange(3.0), np.ones(3, bool))
    with pytest.raises(ValueError, match="differ in shape"):
        youden_threshold(np.arange(3.0), np.array([True, False]))
    with pytest.raises(ValueError, match="there are none"):
        false_positive_threshold(np.empty(0), 0.1)
    with pytest.raises(ValueError, match=r"\[0, 1\)"):
        false_positive_threshold(np.zeros(3), 1.0)
    with pytest.raises(ValueError, match="finite"):
        fixed_threshold(float("nan"))
    assert fixed_threshold(0.5).flags(np.array([0.4, 0.5])).tolist() == [False, True]
