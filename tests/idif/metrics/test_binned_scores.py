"""Counting by address: against exact counts, on the host, in threads, on a device, in bounded memory."""

import pickle
import tracemalloc
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

from idif.metrics import PixelMetrics, map_inputs, threads
from idif.metrics.binned_scores import Window, place_window, sample_ranks
from idif.metrics.curves import Estimate, best_f1, cumulate, precision_area, roc_area
from idif.metrics.float32_counts import draw, too_many
from idif.metrics.pixel import metric_name
from idif.metrics.score_counts import count_scores, fuse
from tests.idif.metrics.test_pixel import LIMITS, deviations, noise

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
    assert used.count(3) > 4, "maps, regions and windows"


def test_a_count_can_be_sent_to_another_process_and_merged() -> None:
    scores, masks = noise(24, 32)
    parts = [stream(scores[rows], masks[rows]) for rows in (slice(0, 10), slice(10, 24))]
    sent = pickle.loads(pickle.dumps(parts[1]))
    assert sent.compute() == parts[1].compute()
    for count in (sent, parts[1]):
        count.update(scores[:2] + 1, masks[:2])
    assert sent.compute() == parts[1].compute(), "it goes on there"
    sent = pickle.loads(pickle.dumps(stream(scores[10:], masks[10:])))
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
    monkeypatch.setattr(threads, "_WORTH_A_THREAD", 100)
    here = PixelMetrics(LIMITS, threads=3, **SMALL)
    here.merge(other)
    here.update(scores[12:], masks[12:])
    assert here.normal_pixels + here.anomalous_pixels == scores.size
    for metric, (deviation, bound) in deviations(here, scores, masks).items():
        assert deviation <= bound + 1e-12, metric


def estimates_of_all_cells(pixel: PixelMetrics) -> dict[str, Estimate]:
    """What `PixelMetrics.estimates` gives, from a table in which no cells are joined."""
    single = pixel._single
    single._flush()
    counts = fuse([pixel._half.table(), single._table, *(window.table() for window in single._windows)])
    whole = cumulate(counts)
    return {
        "p_auroc": roc_area(whole),
        "p_ap": precision_area(whole),
        "p_f1_max": best_f1(whole)[0],
        **{metric_name(limit): roc_area(whole, whole.region, limit) for limit in LIMITS},
    }


@pytest.mark.parametrize("name", shapes_of_scores())
def test_joining_cells_of_normal_pixels_changes_nothing(name: str) -> None:
    scores, masks = shapes_of_scores()[name]
    pixel = stream(scores, masks)
    assert len(pixel.counts()) < sum(len(window.table()) for window in pixel._single._windows)
    # Scores of another type between the cells, and windows that overlap.
    pixel.update(np.clip(scores[:4] * 1.01, -6e4, 6e4).astype(np.float16), masks[:4])
    first = pixel._single._windows[0]
    coarse = Window((first._bottom >> 16) + 1, 16, 16, 100)
    coarse.count(scores[4:8].ravel(), 1)
    coarse.mark(scores[4:8].ravel()[::300], np.full(14, 1 << 30))
    pixel._single._windows.append(coarse)
    found, expected = pixel.estimates(), estimates_of_all_cells(pixel)
    for metric, estimate in expected.items():
        assert found[metric].value == pytest.approx(estimate.value, abs=1e-12), metric
        assert found[metric].error == pytest.approx(estimate.error, abs=1e-12), metric


@pytest.mark.parametrize(("values", "expected"), [(1 << 12, False), (1 << 14, False), (1 << 16, True)])
def test_scores_are_too_many_only_where_that_is_certain(values: int, expected: bool) -> None:
    rng = np.random.default_rng(3)
    scores = rng.permutation(np.resize(np.arange(values, dtype=np.float32), 1 << 16))
    assert too_many(draw(scores), 1 << 14) == expected
    assert np.array_equal(draw(scores), draw(torch.from_numpy(scores)))


def test_as_many_distinct_scores_as_are_kept_stay_exact() -> None:
    """Also where they come unevenly: the draw must not take what it sees for more than there is."""
    limit = 1 << 12
    rng = np.random.default_rng(4)
    ranks = np.concatenate([np.arange(limit), rng.geometric(1e-3, 7 * limit) % limit])
    scores = np.exp(rng.permutation(ranks).astype(np.float32) / 1000).reshape(8, 64, 64)
    pixel = PixelMetrics(max_distinct=limit, buffer_pixels=8 * limit)
    pixel.update(scores, np.eye(64, dtype=bool)[None].repeat(8, 0))
    assert len(pixel.counts()) == np.unique(scores).size
    assert pixel.exact


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_maps_on_a_device_are_never_fetched(dtype: type, monkeypatch: pytest.MonkeyPatch) -> None:
    """What leaves the tensors is a small part of the scores: counts, a sample, those of anomalous pixels."""
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
    pixel = PixelMetrics(LIMITS, max_distinct=1 << 13, buffer_pixels=1 << 16)
    for i in range(0, images, 4):
        pixel.update(given[i : i + 4], masks[i : i + 4])
    values = pixel.compute()
    monkeypatch.undo()
    assert fetched, "the scores of anomalous pixels"
    assert sum(fetched) < 0.1 * scores.size
    assert max(fetched) < given[:4].numel() / 4
    host = PixelMetrics(LIMITS, max_distinct=1 << 13, buffer_pixels=1 << 16)
    for i in range(0, images, 4):
        host.update(given[i : i + 4].numpy(), masks[i : i + 4])
    assert dtype == np.float16 or host._single._windows
    assert values == host.compute()


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
