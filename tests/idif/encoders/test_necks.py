"""Necks against direct computations."""

import torch
from torch import nn
from torch.nn import functional as F

from idif.data.arrays import feature_map
from idif.encoders.necks import NECKS


def test_aligned_is_the_concatenation_at_the_coarsest_grid() -> None:
    maps = {"a": torch.rand(2, 3, 8, 8), "b": torch.rand(2, 5, 4, 4)}
    aligned = NECKS["aligned"].apply(maps)["aligned"]
    assert aligned.shape == (2, 8, 4, 4)
    assert torch.equal(aligned[:, 3:], maps["b"])
    # corner on corner: positions 0, 7/3, 14/3, 7 of the finer map
    assert torch.equal(aligned[:, :3, 0, 0], maps["a"][:, :, 0, 0])
    assert torch.equal(aligned[:, :3, -1, -1], maps["a"][:, :, -1, -1])
    torch.testing.assert_close(aligned[:, :3, 0, 1], maps["a"][:, :, 0, 2:4] @ torch.tensor([2 / 3, 1 / 3]))
    specs = [feature_map("a", 3, 8, "x"), feature_map("b", 5, 4, "x", signed=True)]
    assert NECKS["aligned"].arrays(specs) == (feature_map("aligned", 8, 4, "x", signed=True),)


def test_pools_have_the_shapes_they_declare_for_even_and_odd_sides() -> None:
    for side in (1, 2, 7, 8):
        maps = {"a": torch.rand(1, 2, side, side)}
        for name, layer in (("average-pool", nn.AvgPool2d(3, 2, 1)), ("max-pool", nn.MaxPool2d(3, 2, 1))):
            neck = NECKS[name]  # type: ignore[index]
            out = neck.apply(maps)
            (spec,) = neck.arrays([feature_map("a", 2, side, "x")])
            assert list(out) == [spec.name] == ["p1"]
            assert out["p1"].shape[1:] == spec.shape
            assert torch.equal(out["p1"], layer(maps["a"]))


def test_the_average_counts_the_padding() -> None:
    ones = {"a": torch.ones(1, 1, 4, 4)}
    assert float(NECKS["average-pool"].apply(ones)["p1"][0, 0, 0, 0]) == float(torch.tensor(4 / 9))
    assert F.avg_pool2d(ones["a"], 3, 2, 1, count_include_pad=False)[0, 0, 0, 0] == 1
