"""View dropout, subsets and epoch order."""

from itertools import chain

import torch

from idif.methods.view_dropout import drop_views
from idif.randomness import view_seeds
from idif.training.sampling import epoch_order, split_holdout


def seeds(samples: int, views: int, epoch: int = 0) -> torch.Tensor:
    return view_seeds(0, epoch, [f"s{n}" for n in range(samples)], range(1, views + 1))


def test_dropout_never_takes_the_last_view_nor_adds_one() -> None:
    torch.manual_seed(0)
    present = torch.rand(4000, 5) < 0.7
    present[:, 0] |= ~present.any(dim=1)
    for per in ("sample", "step"):
        kept = drop_views(present, seeds(4000, 5), 0.6, per)
        assert (kept & ~present).sum() == 0
        assert kept.any(dim=1).all()


def test_dropout_drops_as_often_as_told() -> None:
    present = torch.ones(20_000, 5, dtype=torch.bool)
    kept = drop_views(present, seeds(20_000, 5), 0.2, "sample")
    # all five drop with 0.2^5, and then one is kept
    expected = 0.8 + 0.2**5 / 5
    assert abs(float(kept.float().mean()) - expected) < 0.005
    assert torch.equal(kept, drop_views(present, seeds(20_000, 5), 0.2, "sample"))
    assert not torch.equal(kept, drop_views(present, seeds(20_000, 5, epoch=1), 0.2, "sample"))
    assert torch.equal(present, drop_views(present, seeds(20_000, 5), 0.0, "sample"))


def test_dropout_per_step_gives_all_samples_one_mask() -> None:
    present = torch.ones(8, 5, dtype=torch.bool)
    masks = [drop_views(present, seeds(8, 5, epoch), 0.4, "step") for epoch in range(50)]
    assert all((mask == mask[:1]).all() for mask in masks)
    assert len({tuple(mask[0].tolist()) for mask in masks}) > 5


def test_dropout_does_not_depend_on_the_batch() -> None:
    present = torch.ones(6, 5, dtype=torch.bool)
    whole = drop_views(present, seeds(6, 5), 0.5, "sample")
    parts = [drop_views(present[i : i + 2], seeds(6, 5)[i : i + 2], 0.5, "sample") for i in (0, 2, 4)]
    assert torch.equal(whole, torch.cat(parts))


def test_an_epoch_visits_every_row_once_and_differs_from_the_next() -> None:
    rows = list(range(100, 137))
    first = epoch_order(rows, seed=0, epoch=0)
    assert sorted(first) == rows
    assert first == epoch_order(rows, seed=0, epoch=0)
    assert first != epoch_order(rows, seed=0, epoch=1)
    assert first != epoch_order(rows, seed=1, epoch=0)


def test_processes_share_an_epoch_and_make_equally_many_steps() -> None:
    rows = list(range(37))
    parts = [epoch_order(rows, seed=0, epoch=3, rank=rank, world=4) for rank in range(4)]
    assert {len(part) for part in parts} == {10}
    assert set(chain(*parts)) == set(rows)
    whole = epoch_order(rows, seed=0, epoch=3)
    assert parts[1][:3] == [whole[1], whole[5], whole[9]]


def test_holdout_takes_its_share_and_both_sides_get_some() -> None:
    kept, held = split_holdout(list(range(10, 110)), 0.1, seed=0)
    assert len(held) == 10
    assert sorted(kept + held) == list(range(10, 110))
    assert split_holdout(list(range(10, 110)), 0.1, seed=0) == (kept, held)
    assert [len(part) for part in split_holdout([1, 2], 0.99, seed=0)] == [1, 1]
    assert split_holdout([3, 4], 0, seed=0) == ([3, 4], [])
