"""Counter-based randomness: exact bits, independence of the batch, and no statistics out of line."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from idif.corruption.streams import Stream
from idif.randomness import Draws, integers, numpy_rng, uniform, view_seeds

MASK = 2**64 - 1


def oracle_bits(seed: int, stream: int, position: int) -> int:
    """splitmix64 in Python's unbounded integers, from its definition."""

    def mix(x: int) -> int:
        x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & MASK
        x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & MASK
        return x ^ (x >> 31)

    golden = 0x9E3779B97F4A7C15
    counter = (stream << 32) + position + 1
    return mix((mix((seed + golden) & MASK) + counter * golden) & MASK)


@given(
    seed=st.integers(-(2**63), 2**63 - 1),
    stream=st.integers(0, 2**31 - 1),
    high=st.integers(1, 2**31),
)
def test_bits_are_splitmix64(seed: int, stream: int, high: int) -> None:
    seeds = torch.tensor([seed])
    bits = [oracle_bits(seed & MASK, stream, i) for i in range(5)]
    assert uniform(seeds, stream, 5)[0].tolist() == [(b >> 40) / 2**24 for b in bits]
    assert integers(seeds, stream, 5, high)[0].tolist() == [(b >> 32) * high >> 32 for b in bits]


def test_golden_values() -> None:
    """A change of any bit changes every run that was recorded: it must not come unnoticed."""
    seeds = view_seeds(7, 3, ["audiojack/OK/S0001", "pcb/NG/HS/S0036"], [1, 5])
    assert seeds.tolist() == [
        [6539561980241064293, -6365338264150491676],
        [-8356346821923351825, 5806013686202125639],
    ]
    assert integers(seeds, Stream.TEXTURE, 2, 1000).flatten().tolist() == [
        675,
        774,
        966,
        28,
        58,
        966,
        773,
        707,
    ]
    assert uniform(torch.tensor([0]), 0, 2).tolist() == [[0.6524484753608704, 0.7012121081352234]]
    assert numpy_rng("order", 7, 3).integers(0, 1000, 4).tolist() == [607, 262, 7, 119]


def test_seeds_do_not_depend_on_the_batch() -> None:
    ids, views = [f"bolt/OK/S{n:04d}" for n in range(12)], [1, 2, 3, 4, 5]
    whole = view_seeds(0, 4, ids, views)
    assert whole.dtype == torch.int64
    assert whole.shape == (12, 5)
    for row, sample_id in enumerate(ids):
        assert view_seeds(0, 4, [sample_id], [5, 2]).tolist() == [[whole[row, 4], whole[row, 1]]]
    draws = uniform(whole, 2, 9)
    assert torch.equal(uniform(whole[3:4, 2:], 2, 9), draws[3:4, 2:])
    assert torch.equal(uniform(whole, 2, 4), draws[..., :4]), "a larger count continues a smaller one"


def test_every_part_of_a_seed_matters() -> None:
    seeds = [
        int(view_seeds(run, epoch, [sample], [view]))
        for run in (0, 1)
        for epoch in (0, 1)
        for sample in ("a", "b", "a', 1")
        for view in (1, 2)
    ]
    assert len(set(seeds)) == len(seeds)
    numpy_seed = int(view_seeds(int(np.int64(1)), np.int64(2), ["a"], [np.int64(3)]))  # type: ignore[list-item, arg-type]
    assert numpy_seed == int(view_seeds(1, 2, ["a"], [3]))


def drawn(seed: int, step: int, rank: int) -> tuple[float, float]:
    """The first number of torch's global generator and of a named one."""
    draws = Draws(seed, 0, step, rank, ("a",), (1,), torch.device("cpu"))
    with torch.random.fork_rng(devices=[]):
        draws.seed_torch()
        return float(torch.rand(())), float(torch.rand((), generator=draws.generator("noise")))


def test_every_step_and_process_of_a_run_draws_its_own_numbers() -> None:
    found = [drawn(seed, step, rank) for seed in (0, 1) for step in (0, 1, 2) for rank in (0, 1)]
    assert len({whole for whole, _ in found}) == len({own for _, own in found}) == 12
    assert drawn(1, 2, 1) == found[-1]


def test_draws_apart_are_others_and_the_same_each_time() -> None:
    draws = Draws(3, 1, 2, 0, ("a", "b"), (1, 2), torch.device("cpu"))
    head, same, other = draws.apart("head"), draws.apart("head"), draws.apart("other")
    assert head == same
    for others in (draws, other):
        assert not (head.view_seeds() == others.view_seeds()).any()
        assert head.generator("noise").initial_seed() != others.generator("noise").initial_seed()


def hashed(count: int) -> torch.Tensor:
    return view_seeds(0, 0, [f"s{n}" for n in range(count)], [1])[:, 0]


def counted(count: int) -> torch.Tensor:
    """The worst that a caller could hand in."""
    return torch.arange(count)


def by_the_increment(count: int) -> torch.Tensor:
    """Seeds one splitmix increment apart, which plain splitmix64 turns into shifted copies."""
    return torch.arange(count) * (0x9E3779B97F4A7C15 - 2**64)


@pytest.mark.parametrize("seeds", [hashed, counted, by_the_increment])
def test_draws_are_uniform_and_independent(seeds: Callable[[int], torch.Tensor]) -> None:
    """Fixed data, so a fixed outcome: p-values far from 0 for uniformity and for pairs of neighbors."""
    draws = {stream: uniform(seeds(2000), stream, 32).numpy().astype(np.float64) for stream in (0, 1)}
    first = draws[0]
    assert first.min() >= 0
    assert first.max() < 1
    for values in draws.values():
        assert stats.chisquare(np.histogram(values, 256, (0, 1))[0]).pvalue > 1e-3
    neighbors = {
        "position": (first[:, :-1], first[:, 1:]),
        "stream": (first, draws[1]),
        "seed": (first[:-1], first[1:]),
        "shifted": (first[:-1, 1:], first[1:, :-1]),
    }
    for what, (a, b) in neighbors.items():
        pairs = np.histogram2d(a.ravel(), b.ravel(), 16, [(0, 1), (0, 1)])[0].ravel()
        assert stats.chisquare(pairs).pvalue > 1e-3, what


def test_integers_are_uniform() -> None:
    values = integers(hashed(3000), 5, 8, 7)
    assert sorted(set(values.flatten().tolist())) == list(range(7))
    assert stats.chisquare(torch.bincount(values.flatten()).numpy()).pvalue > 1e-3
    assert not integers(hashed(10), 5, 8, 1).any()


def test_numpy_rng_depends_on_its_parts() -> None:
    assert numpy_rng("a", 1).random() == numpy_rng("a", np.int64(1)).random()  # type: ignore[arg-type]
    assert (
        len({numpy_rng(*parts).random() for parts in [("a", 1), ("a", 2), ("b", 1), ("a1",), ("a", "1")]})
        == 5
    )
