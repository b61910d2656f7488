"""Dropout on a CPU: rate, expectation, gradient, and draws that follow torch's seed."""

import pytest
import torch

from idif.methods.dropout import Dropout


@pytest.mark.parametrize("p", [0.1, 0.4])
def test_zeroes_the_given_share_and_keeps_the_expectation(p: float) -> None:
    torch.manual_seed(0)
    values = torch.full((40, 50, 101), 3.0, requires_grad=True)
    dropped = Dropout(p)(values)
    assert (dropped == 0).float().mean().item() == pytest.approx(p, abs=0.005)
    assert dropped.mean().item() == pytest.approx(3.0, rel=0.01)
    assert torch.allclose(dropped[dropped != 0], torch.tensor(3.0 / (1 - p)), rtol=1e-4)
    dropped.sum().backward()
    assert values.grad is not None
    assert torch.allclose(values.grad * 3, dropped.detach())


def test_elements_are_dropped_independently() -> None:
    torch.manual_seed(1)
    kept = (Dropout(0.5)(torch.ones(2, 100_000)) != 0).float() - 0.5
    neighbors = (kept[:, 1:] * kept[:, :-1]).mean()
    rows = (kept[0] * kept[1]).mean()
    assert abs(neighbors.item()) < 0.005
    assert abs(rows.item()) < 0.005


def test_draws_follow_the_global_seed() -> None:
    values, dropout = torch.ones(1000), Dropout(0.3)
    torch.manual_seed(5)
    first, second = dropout(values), dropout(values)
    torch.manual_seed(5)
    assert torch.equal(dropout(values), first)
    assert not torch.equal(first, second)


def test_evaluation_and_zero_leave_values_alone() -> None:
    values = torch.randn(7)
    assert torch.equal(Dropout(0.5).eval()(values), values)
    assert torch.equal(Dropout(0.0)(values), values)
