"""float32 scores by cell: against exact values, on the host, in threads, on a device, in bounded memory."""

import pickle
import tracemalloc
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from idif.metrics import PixelMetrics, map_inputs, threads
from idif.metrics.map_inputs import HostMaps, Magnitudes, float32_cells
from idif.metrics.score_counts import count_scores, merge_counts
from tests.idif.metrics.test_pixel import LIMITS, deviations, noise

CELLS = 2048
SMALL: dict[str, Any] = {"exact_pixels": 3000, "cells": CELLS}


def stream(scores: np.ndarray, masks: np.ndarray, step: int = 2, **options: int) -> PixelMetrics:
    pixel = PixelMetrics(LIMITS, **(SMALL | options))
    for i in range(0, len(scores), step):
        with torch.inference_mode(i % 4 == 0):
            pixel.update(scores[i : i + step], masks[i : i + step])
    return pixel


def score_distributions() -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Maps whose scores lie where cells could be too few; all distinct but where zeros are many."""
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


@pytest.mark.parametrize("name", score_distributions())
def test_bounds_hold_whatever_the_scores_look_like(name: str) -> None:
    scores, masks = score_distributions()[name]
    pixel = stream(scores, masks)
    counts = pixel.counts()
    assert len(counts) <= CELLS
    assert (counts.high[:-1] < counts.low[1:]).all(), "disjoint"
    assert counts.normal.sum() + counts.anomalous.sum() == scores.size
    assert counts.anomalous.sum() == masks.sum()
    covered = merge_counts([counts, count_scores(scores.ravel(), scores[masks])])
    assert len(covered) == len(counts), "every score lies in an entry"
    for metric, (deviation, bound) in deviations(pixel, scores, masks).items():
        assert deviation <= bound + 1e-12, metric
        assert bound < 0.05, metric


@st.composite
def updates(draw: st.DrawFn) -> list[tuple[np.ndarray, np.ndarray]]:
    """Updates of a few pixels each with scores of every kind, narrow ranges, ties, zeros of both signs."""
    kinds = (
        st.floats(-(2.0**127), 2.0**127, width=32),
        st.floats(0.5, 0.5 + 2**-13, width=32),
        st.floats(-(2.0**-140), 2.0**-140, width=32),
        st.sampled_from([-3.0, -0.0, 0.0, 1e-38, 0.1, 0.5, 7.0, 1e30]),
        st.integers(0, 255).map(float),
    )
    parts = []
    for _ in range(draw(st.integers(1, 4))):
        shape = draw(st.integers(1, 3)), 1, draw(st.integers(2, 12))
        elements = kinds[draw(st.integers(0, len(kinds) - 1))]
        parts.append((draw(hnp.arrays(np.float32, shape, elements=elements)), draw(hnp.arrays(bool, shape))))
    widest = max(maps.shape[2] for maps, _ in parts)
    return [(np.resize(a, (len(a), 1, widest)), np.resize(b, (len(b), 1, widest))) for a, b in parts]


@settings(max_examples=100, deadline=None, derandomize=True)
@given(updates(), st.sampled_from([4, 16, 64]), st.sampled_from([0, 20]), st.data())
def test_counts_depend_on_the_scores_alone_and_bounds_hold(parts, cells, exact, data) -> None:  # type: ignore[no-untyped-def]
    maps, masks = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))

    def empty() -> PixelMetrics:
        return PixelMetrics(LIMITS, exact_pixels=exact, cells=cells)

    whole = empty()
    whole.update(maps, masks)
    expected, counts = whole.compute(), whole.counts()
    assert len(counts) <= cells or maps.size <= exact
    assert (counts.low <= counts.high).all()
    assert (counts.high[:-1] < counts.low[1:]).all()
    covered = merge_counts([counts, count_scores(maps.ravel(), maps[masks])])
    assert len(covered) == len(counts), "every score lies in an entry"
    if expected["p_auroc"] is not None:
        for metric, (deviation, bound) in deviations(whole, maps, masks).items():
            assert deviation <= bound + 1e-9, metric
    order = data.draw(st.permutations(range(len(parts))))
    merged = [empty(), empty()]
    for place in order:
        merged[place % 2].update(*parts[place])
    other = merged[1].compute()
    merged[0].merge(merged[1])
    assert merged[0].compute() == expected, "bit for bit"
    assert merged[1].compute() == other, "merging leaves the other as it was"


@settings(max_examples=200, deadline=None, derandomize=True)
@given(
    hnp.arrays(np.float32, st.integers(1, 30), elements=st.floats(-(2.0**127), 2.0**127, width=32)),
    st.integers(0, 30),
)
def test_cells_ascend_with_the_score(scores: np.ndarray, shift: int) -> None:
    scores = np.sort(np.append(scores, np.float32(-0.0)))
    offset = HostMaps(scores, 1).magnitudes().offset(shift)
    cells = float32_cells(scores.view(np.int32), shift, offset)
    assert (np.diff(cells) >= 0).all()
    assert np.array_equal(np.sign(cells), np.sign(scores)), "zero has a cell for itself"
    assert np.array_equal(float32_cells(torch.from_numpy(scores).view(torch.int32), shift, offset), cells)


def test_default_memory_is_exact_to_1e_5() -> None:
    scores, masks = noise(66, 256)
    zeros = np.where(scores < 0.02, 0, scores)
    for maps in (zeros, np.where(scores == scores.min(), -1e-7, scores).astype(np.float32)):
        pixel = PixelMetrics(LIMITS)
        for i in range(0, 66, 22):
            pixel.update(maps[i : i + 22], masks[i : i + 22])
        assert not pixel.exact
        for metric, (deviation, bound) in deviations(pixel, maps, masks).items():
            # with this few anomalous pixels one step of the F1 curve alone is 3e-4
            assert deviation < (1e-5 if metric != "p_f1_max" else 1e-4), metric
            assert deviation <= bound + 1e-12
            assert bound < 5e-4


def test_narrow_and_coarse_scores_stay_exact_however_many_pixels_come() -> None:
    scores, masks = noise(6, 64)
    for maps in (
        0.5 + scores * 1e-6,
        -0.5 - scores * 1e-6,
        scores.astype(np.float16),
        np.log(scores).astype(np.float16),
        torch.from_numpy(np.log(scores)).bfloat16().float().numpy(),
        np.clip(scores * 30, 0, 255).astype(np.uint8),
        np.zeros_like(scores),
    ):
        maps = np.asarray(maps, np.float32)
        pixel = PixelMetrics(LIMITS, exact_pixels=0)
        for i in range(6):
            pixel.update(maps[i : i + 1], masks[i : i + 1])
        exact = PixelMetrics(LIMITS)
        exact.update(maps, masks)
        assert pixel.exact
        assert pixel.compute() == exact.compute()


def test_scores_that_no_cell_can_tell_apart_have_a_bound_that_says_so() -> None:
    scores, masks = noise(6, 64)
    pixel = PixelMetrics(LIMITS, exact_pixels=0, cells=4)
    pixel.update(scores, masks)
    bound = pixel.compute()["error_bound"]
    assert bound is not None
    assert bound > 0.05
    for metric, (deviation, limit) in deviations(pixel, scores, masks).items():
        assert deviation <= limit, metric


@pytest.mark.parametrize("name", score_distributions())
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_a_device_gives_the_same_answer(name: str, dtype: type, monkeypatch: pytest.MonkeyPatch) -> None:
    """The path of an accelerator, run on the CPU's tensors."""
    scores, masks = score_distributions()[name]
    scores = np.clip(scores, -6e4, 6e4).astype(dtype)
    expected = stream(scores, masks)
    monkeypatch.setattr(map_inputs, "on_host", lambda _: False)
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
    monkeypatch.setattr(threads, "_WORTH_A_THREAD", 100)
    used = []

    class Counted(ThreadPoolExecutor):
        def __init__(self, threads: int) -> None:
            used.append(threads)
            super().__init__(threads)

    monkeypatch.setattr(threads, "ThreadPoolExecutor", Counted)
    pixel = stream(scores, masks, 6, threads=3)
    assert pixel.compute() == expected
    assert used.count(3) > 4, "maps and regions"


def test_a_count_can_be_sent_to_another_process_and_merged() -> None:
    scores, masks = noise(24, 32)
    expected = stream(scores, masks).compute()
    parts = [stream(scores[rows], masks[rows]) for rows in (slice(0, 2), slice(2, 12), slice(12, 24))]
    sent = [pickle.loads(pickle.dumps(part)) for part in parts]
    for part, other in zip(parts, sent, strict=True):
        assert other.compute() == part.compute()
    whole = PixelMetrics(LIMITS, **SMALL)
    for part in sent[::-1]:
        whole.merge(part)
    assert whole.compute() == expected
    for part in sent[1:]:
        sent[0].merge(part)
    assert sent[0].compute() == expected
    for count in (whole, sent[0]):
        count.update(scores[:2] + 1, masks[:2])
    assert whole.compute() == sent[0].compute(), "it goes on there"


def test_counts_of_finer_and_of_coarser_cells_merge() -> None:
    scores, masks = noise(24, 32)
    for here, there in ((CELLS, 256), (256, CELLS)):
        whole = stream(scores[:12], masks[:12], cells=here)
        whole.merge(stream(scores[12:], masks[12:], cells=there))
        assert len(whole.counts()) <= here
        for metric, (deviation, bound) in deviations(whole, scores, masks).items():
            assert deviation <= bound + 1e-12, metric


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_maps_on_a_device_are_never_fetched(dtype: type, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only counts and the scores of anomalous pixels leave the tensors."""
    side, images = 128, 40
    scores, masks = noise(images, side)
    given = torch.from_numpy(scores.astype(dtype))
    fetched = []

    def watched(name: str) -> Callable[..., object]:
        real = getattr(torch.Tensor, name)

        def call(self: torch.Tensor, *args: object, **named: object) -> object:
            if self.dtype.is_floating_point:
                fetched.append(self.numel())
            return real(self, *args, **named)

        return call

    for name in ("numpy", "tolist", "__array__"):
        monkeypatch.setattr(torch.Tensor, name, watched(name))
    monkeypatch.setattr(map_inputs, "on_host", lambda _: False)
    options: dict[str, Any] = {"exact_pixels": 1 << 16, "cells": 1 << 13}
    pixel = PixelMetrics(LIMITS, **options)
    pixel.update(given, masks)
    values = pixel.compute()
    monkeypatch.undo()
    assert fetched, "the scores of anomalous pixels"
    assert sum(fetched) <= masks.sum() + 2
    host = PixelMetrics(LIMITS, **options)
    host.update(given.numpy(), masks)
    assert host.exact == (dtype == np.float16)
    assert values == host.compute()


def test_magnitudes_of_no_score_but_zero() -> None:
    zeros = np.array([0.0, -0.0], np.float32)
    assert HostMaps(zeros, 1).magnitudes() == Magnitudes()
    assert map_inputs.DeviceMaps(torch.from_numpy(zeros)).magnitudes() == Magnitudes()
    assert Magnitudes().reach(0) == (0, 0)


def test_numbers_of_cells_that_cannot_be_are_refused() -> None:
    for wrong in (0, 2, 3, 1000):
        with pytest.raises(ValueError, match="power of two"):
            PixelMetrics(cells=wrong)
    with pytest.raises(ValueError, match="exact_pixels"):
        PixelMetrics(exact_pixels=-1)


def test_memory_stays_bounded_however_many_pixels_come() -> None:
    peaks = []
    for rounds in (240, 480):
        tracemalloc.start()
        pixel = PixelMetrics(LIMITS, exact_pixels=1 << 15, cells=1 << 14)
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
