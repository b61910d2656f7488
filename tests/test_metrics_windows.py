"""Counting by address: against exact counts, on the host, in threads, on a device, in bounded memory."""

import pickle
import tracemalloc
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

from idif.metrics import PixelMetrics, lanes, maps
from idif.metrics.counts import count_scores, fuse
from idif.metrics.windows import place_window, sample_ranks
from tests.test_metrics_pixel import LIMITS, deviations, noise

SMALL = {"max_distinct": 2000, "buffer_pixels": 3000}


def stream(scores: np.ndarray, masks: np.ndarray, step: int = 2, **options: int) -> PixelMetrics:
    pixel = PixelMetrics(LIMITS, **(SMALL | options))
    for i in range(0, len(scores), step):
        with torch.inference_mode(i % 4 == 0):
            pixel.update(scores[i : i + step], masks[i : i + step])
    return pixel


def shapes_of_scores() -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """What score distributions can do to windows; all float32, all distinct but where zeros are many."""
    scores, masks = noise(24, 32)
    rng = np.random.default_rng(5)
    zeros = np.where(rng.random(scores.shape) < 0.4, 0, scores)
    far = np.where(rng.random(scores.shape) < 0.3, scores * 1e-20, scores)
    return {
        name: (values.astype(np.float32), masks)
        for name, values in {
            "one hump": scores,
            "negative": -1 / scores,
            "across zero": np.log(scores),
            "many zeros": zeros,
            "two humps": far,
            "drift": scores * np.exp2(np.arange(24) / 4)[:, None, None],
            "a sliver": 1 + scores * 1e-3,
            "wide": np.exp(6 * np.log(scores)),
            "minus zero": np.where(zeros == 0, -0.0, -zeros),
        }.items()
    }


@pytest.mark.parametrize("name", shapes_of_scores())
def test_bounds_hold_whatever_the_scores_look_like(name: str) -> None:
    scores, masks = shapes_of_scores()[name]
    pixel = stream(scores, masks)
    counts = pixel.counts()
    assert pixel._single._windows, "the scores are too many for the table"
    assert len(counts) <= 2000
    assert (counts.high[:-1] < counts.low[1:]).all(), "disjoint"
    assert counts.normal.sum() + counts.anomalous.sum() == scores.size
    assert counts.anomalous.sum() == masks.sum()
    covered = fuse([counts, count_scores(scores.ravel(), scores[masks])])
    assert len(covered) == len(counts), "every score lies in an entry"
    for metric, (deviation, bound) in deviations(pixel, scores, masks).items():
        assert deviation <= bound + 1e-12, metric
        assert bound < 0.05, metric


def test_default_memory_is_exact_to_1e_5_where_scores_are_too_many_to_keep() -> None:
    scores, masks = noise(90, 256)
    pixel = PixelMetrics(LIMITS)
    for i in range(0, 90, 30):
        pixel.update(scores[i : i + 30], masks[i : i + 30])
    assert pixel._single._windows
    for metric, (deviation, bound) in deviations(pixel, scores, masks).items():
        # with this few anomalous pixels one step of the F1 curve alone is 3e-4
        assert deviation < (1e-5 if metric != "p_f1_max" else 1e-4), metric
        assert deviation <= bound + 1e-12


@pytest.mark.parametrize("name", ["one hump", "negative", "many zeros", "minus zero"])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_a_device_gives_the_same_answer(name: str, dtype: type, monkeypatch: pytest.MonkeyPatch) -> None:
    """The path of an accelerator, run on the CPU's tensors."""
    scores, masks = shapes_of_scores()[name]
    scores = scores.astype(dtype)
    expected = stream(scores, masks)
    monkeypatch.setattr(maps, "on_host", lambda _: False)
    pixel = PixelMetrics(LIMITS, **SMALL)
    for i in range(0, 24, 2):
        with torch.inference_mode(i < 12):
            pixel.update(torch.from_numpy(scores[i : i + 2]), torch.from_numpy(masks[i : i + 2]))
    assert pixel.compute() == expected.compute(), "bit for bit"
    mixed = PixelMetrics(LIMITS, **SMALL)
    for i in range(0, 24, 2):
        part = scores[i : i + 2]
        mixed.update(torch.from_numpy(part) if i % 4 else part, masks[i : i + 2])
    assert mixed.compute() == expected.compute()
    bad = torch.full((1, 32, 32), torch.inf, dtype=torch.from_numpy(scores).dtype)
    with pytest.raises(ValueError, match="1024 of 1024"):
        pixel.update(bad, masks[:1])
    with pytest.raises(ValueError, match="real numbers"):
        pixel.update(torch.zeros(1, 32, 32, dtype=torch.complex64), masks[:1])


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_threads_leave_no_trace(dtype: type, monkeypatch: pytest.MonkeyPatch) -> None:
    scores, masks = noise(24, 32)
    scores = scores.astype(dtype)
    expected = stream(scores, masks, 6).compute()
    monkeypatch.setattr(lanes, "_WORTH_A_THREAD", 100)
    used = []

    class Counted(ThreadPoolExecutor):
        def __init__(self, threads: int) -> None:
            used.append(threads)
            super().__init__(threads)

    monkeypatch.setattr(lanes, "ThreadPoolExecutor", Counted)
    pixel = stream(scores, masks, 6, threads=3)
    assert pixel.compute() == expected
    assert used.count(3) > 4, "maps, regions and windows"


def test_a_count_can_be_sent_to_another_process_and_merged() -> None:
    scores, masks = noise(24, 32)
    parts = [stream(scores[rows], masks[rows]) for rows in (slice(0, 10), slice(10, 24))]
    sent = pickle.loads(pickle.dumps(parts[1]))
    assert sent.compute() == parts[1].compute()
    parts[0].merge(sent)
    empty = PixelMetrics(LIMITS, **SMALL)
    empty.merge(parts[0])
    for whole in (parts[0], empty):
        assert whole.normal_pixels + whole.anomalous_pixels == scores.size
        assert len(whole.counts()) <= 2000
        outside = (whole._single._table.normal + whole._single._table.anomalous).sum()
        assert outside < 0.1 * scores.size, "what comes goes into the windows that are there"
        for metric, (deviation, bound) in deviations(whole, scores, masks).items():
            assert deviation <= bound + 1e-12, metric
            assert bound < 0.05, metric


def test_a_count_from_a_process_with_fewer_threads_goes_on_here(monkeypatch: pytest.MonkeyPatch) -> None:
    scores, masks = noise(24, 32)
    other = stream(scores[:12], masks[:12])
    monkeypatch.setattr(lanes, "_WORTH_A_THREAD", 100)
    here = PixelMetrics(LIMITS, threads=3, **SMALL)
    here.merge(other)
    here.update(scores[12:], masks[12:])
    assert here.normal_pixels + here.anomalous_pixels == scores.size
    for metric, (deviation, bound) in deviations(here, scores, masks).items():
        assert deviation <= bound + 1e-12, metric


def test_windows_stay_on_their_side_of_zero() -> None:
    tiny = np.float32(2**-149)
    for sign in (1, -1):
        values = np.sort(sign * tiny * np.arange(1, 40, dtype=np.float32))
        window = place_window(values[sample_ranks(39)], 64, 10)
        assert window is not None
        outside = window.count(np.array([-0.0, -sign * tiny], np.float32), 1)
        assert outside.size == 2, "minus zero is left to the table, which knows that it is zero"
        assert window.count(values, 1).size == 0
        assert np.array_equal(window.table().low, values)
        assert window.table().exact
    top = np.full(5, np.finfo(np.float32).max, np.float32)
    window = place_window(top[sample_ranks(5)], 64, 10)
    assert window is not None
    assert window.count(top, 1).size == 0
    assert np.isfinite(window.table().high).all()


def test_memory_stays_bounded_however_many_pixels_come() -> None:
    peaks = []
    for rounds in (240, 480):
        tracemalloc.start()
        pixel = PixelMetrics(LIMITS, max_distinct=1 << 14, buffer_pixels=1 << 15)
        rng = np.random.default_rng(0)
        mask = np.zeros((4, 128, 128), bool)
        mask[0, 5:30, 40:60] = True
        for _ in range(rounds):
            pixel.update(np.exp(rng.standard_normal(mask.shape, np.float32) + mask), mask)
        pixel.compute()
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.05 * peaks[0]
    assert peaks[1] < 8e6, "all the scores are 63 MB"
