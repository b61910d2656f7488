"""The flows of MSFlow: parameter counts, inverses, log-determinants against autograd, permutations."""

import math
import subprocess
import sys
from collections.abc import Callable, Sequence

import pytest
import torch
from torch import Tensor, nn

from idif.methods.msflow.config import MSFlowConfig
from idif.methods.msflow.fusion import FusionFlow
from idif.methods.msflow.layers import Permutation
from idif.methods.msflow.model import MSFlow
from idif.methods.msflow.parallel import ParallelFlow
from idif.methods.msflow.position import position_code

SIZES = ((4, 4, 4), (6, 2, 2))
"""(C,h,w) of two tiny scales."""


def perturbed(module: nn.Module) -> nn.Module:
    """The module in float64 with larger random parameters, so that no log-scale is near zero."""
    generator = torch.Generator().manual_seed(0)
    module = module.double().eval()
    with torch.no_grad():
        for parameter in module.parameters():
            noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
            parameter.add_(0.5 * noise)
    return module


def model(config: MSFlowConfig, sizes: Sequence[tuple[int, int, int]] = SIZES) -> MSFlow:
    torch.manual_seed(0)
    method = perturbed(MSFlow(config, [size[0] for size in sizes], 8))
    assert isinstance(method, MSFlow)
    return method


def inputs(samples: int, sizes: Sequence[tuple[int, int, int]] = SIZES) -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(samples, *size, generator=generator, dtype=torch.float64) for size in sizes]


TWO_SCALES = MSFlowConfig(scales=("p1", "p2"), blocks=(2, 3), position_channels=4)


def test_parameter_counts_at_the_default() -> None:
    with torch.device("meta"):
        method = MSFlow(MSFlowConfig(), (256, 512, 1024), 512)
    parts = [*method.parallel, method.fusion]
    counts = [sum(p.numel() for p in part.parameters() if p.requires_grad) for part in parts]
    assert counts == [1_550_976, 11_993_280, 66_393_600, 19_618_368]
    assert sum(p.numel() for p in method.parameters()) == 99_556_224


def log_det_of_jacobian(function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    jacobian = torch.autograd.functional.jacobian(function, x)
    log_det: Tensor = torch.linalg.slogdet(jacobian).logabsdet
    return log_det


def test_log_determinant_of_a_parallel_flow_is_that_of_its_jacobian() -> None:
    torch.manual_seed(0)
    flow = perturbed(ParallelFlow(4, 3, 4, seed=0, place="p1"))
    x = inputs(2, [(4, 3, 2)])[0]
    log_det = flow(x)[1].detach()
    for row in range(2):
        wanted = log_det_of_jacobian(lambda v: flow(v.view(1, 4, 3, 2))[0].flatten(), x[row].flatten())
        assert abs(float(log_det[row] - wanted)) < 1e-9
        assert abs(float(wanted)) > 0.1


def test_log_determinant_of_the_fusion_flow_is_that_of_its_jacobian() -> None:
    torch.manual_seed(0)
    fusion = perturbed(FusionFlow([size[0] for size in SIZES], seed=0))
    latents = inputs(2)
    log_det = fusion(latents)[1].detach()
    lengths = [math.prod(size) for size in SIZES]

    def flat(v: Tensor) -> Tensor:
        scales = [part.view(1, *size) for part, size in zip(v.split(lengths), SIZES, strict=True)]
        return torch.cat([x.flatten() for x in fusion(scales)[0]])

    for row in range(2):
        wanted = log_det_of_jacobian(flat, torch.cat([x[row].flatten() for x in latents]))
        assert abs(float(log_det[row] - wanted)) < 1e-9
        assert abs(float(wanted)) > 0.1


@pytest.mark.parametrize("scales", [1, 2])
def test_inverse_recovers_the_features(scales: int) -> None:
    names, sizes = ("p1", "p2")[:scales], SIZES[:scales]
    method = model(MSFlowConfig(scales=names, blocks=(2, 3)[:scales], position_channels=4), sizes)
    features = inputs(3, sizes)
    latents, _, _ = method(features)
    for x, z, again in zip(features, latents, method.inverse(latents), strict=True):
        assert not torch.allclose(z, x, atol=0.1)
        torch.testing.assert_close(again, x, rtol=0, atol=1e-9)


def test_a_new_block_scales_by_one() -> None:
    flow = ParallelFlow(4, 1, 4, seed=0, place="p1")
    (block,) = flow.blocks
    torch.testing.assert_close(block._global_scale(), torch.ones(4, 1, 1))  # type: ignore[operator]


def test_position_code_is_sines_and_cosines_of_column_and_row() -> None:
    code = position_code(8, 3, 5, torch.zeros((), dtype=torch.float64))
    assert code.shape == (8, 3, 5)
    frequency = 10000.0 ** (-2 / 4)
    for row in range(3):
        for column in range(5):
            found = [
                f(w * at) for at in (column, row) for w in (1.0, frequency) for f in (math.sin, math.cos)
            ]
            torch.testing.assert_close(code[:, row, column], torch.tensor(found, dtype=torch.float64))


def test_permutations_are_in_the_state_and_restored_from_it() -> None:
    method = model(TWO_SCALES)
    other = model(TWO_SCALES.model_copy(update={"permutation_seed": 1}))
    orders = {name: value for name, value in method.state_dict().items() if name.endswith("order")}
    assert len(orders) == 2 + 3 + 2
    assert any(not torch.equal(value, other.state_dict()[name]) for name, value in orders.items())
    other.load_state_dict(method.state_dict())
    features = inputs(2)
    for one, two in zip(method(features)[0], other(features)[0], strict=True):
        assert torch.equal(one, two)
    order = Permutation(32, 0, "p1.0").order
    assert order.sort().values.tolist() == list(range(32))
    assert not torch.equal(order, Permutation(32, 0, "p1.1").order)


def test_permutations_are_the_same_in_another_process() -> None:
    code = (
        "import numpy, random, torch; numpy.random.seed(5); random.seed(5); torch.manual_seed(5)\n"
        "from idif.methods.msflow.layers import Permutation\n"
        "print(Permutation(16, 3, 'p2.1').order.tolist())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == str(Permutation(16, 3, "p2.1").order.tolist())
