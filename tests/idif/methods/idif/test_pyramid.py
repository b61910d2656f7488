"""The spatial pyramid: the positions that each branch reads, and the same result with every call."""

import pytest
import torch
from torch import nn

from idif.methods.idif.pyramid import SpatialPyramid

RATES = (2, 3)
SIZE = 13
CENTER = SIZE // 2


def pyramid() -> SpatialPyramid:
    torch.manual_seed(0)
    model = SpatialPyramid(4, RATES).double().eval()
    with torch.no_grad():
        for weight in model.parameters():
            weight.abs_()  # no branch is cut off by a rectifier
    return model


def keep_only(model: SpatialPyramid, branch: int) -> None:
    """Disconnect the other branches from the output; 0 is the pooled one."""
    convolution = model.fuse[0]
    assert isinstance(convolution, nn.Conv2d)
    with torch.no_grad():
        for number, weight in enumerate(convolution.weight.split(4, dim=1)):
            weight.mul_(float(number == branch))


def positions_read(model: SpatialPyramid) -> set[tuple[int, int]]:
    """The offsets (rows, columns) of input positions that act on the output's center."""
    images = torch.rand(1, 4, SIZE, SIZE, dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(model(images)[0, :, CENTER, CENTER].sum(), images)
    rows, columns = gradient[0].abs().sum(dim=0).nonzero(as_tuple=True)
    return {(int(y) - CENTER, int(x) - CENTER) for y, x in zip(rows, columns, strict=True)}


@pytest.mark.parametrize("branch", range(len(RATES)))
def test_a_dilated_branch_reads_nine_positions_of_its_rate_and_is_fused_by_3x3(branch: int) -> None:
    model = pyramid()
    keep_only(model, 1 + branch)
    steps = (-RATES[branch], 0, RATES[branch])
    near = range(-1, 2)
    expected = {(y + dy, x + dx) for y in steps for x in steps for dy in near for dx in near}
    assert positions_read(model) == expected


def test_the_pooled_branch_reads_the_whole_image() -> None:
    model = pyramid()
    keep_only(model, 0)
    assert len(positions_read(model)) == SIZE**2


def test_training_drops_nothing_at_random() -> None:
    model, images = pyramid().train(), torch.rand(2, 4, SIZE, SIZE, dtype=torch.float64)
    assert torch.equal(model(images), model(images))
