"""Training in bfloat16 keeps float32 where it matters: distances, KL, statistics, gradients and weights."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from lightning_fabric import Fabric
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from benchmarks.precision import as_bf16_hardware_would
from idif.config.sections import TrainConfig
from idif.data.batch import Batch
from idif.data.features import IMAGES
from idif.methods.idif.feature_distance import distillation_loss
from idif.methods.idif.perturbation import PerturbedBatch
from idif.randomness import Draws
from idif.training.loop import train_step
from idif.training.state import StepInput, StepModule
from tests.idif.methods.idif.test_model import inputs, make


class Operands(TorchDispatchMode):
    """Notes in which type convolutions and matrix products are computed, forward and backward."""

    def __init__(self) -> None:
        super().__init__()
        self.dtypes: set[torch.dtype] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if any(name in func.name() for name in ("convolution", "::mm", "::bmm", "addmm")):
            self.dtypes |= {a.dtype for a in args if isinstance(a, Tensor)}
        return func(*args, **(kwargs or {}))


def to_bf16(x: Tensor) -> Tensor:
    return x.to(torch.bfloat16)


def test_the_distance_of_bfloat16_features_is_that_of_their_values_in_float32() -> None:
    _, features, mask = inputs()
    student = {name: to_bf16(f + 0.1 * torch.randn_like(f)) for name, f in features.items()}
    exact = {name: f.double() for name, f in student.items()}
    wanted = sum(
        (1 - torch.cosine_similarity(f, features[name].double(), dim=2)).mean() for name, f in exact.items()
    )
    with torch.autocast("cpu", torch.bfloat16):
        found = distillation_loss(student, features, mask)
    assert found.dtype == torch.float32
    assert float(found) == pytest.approx(float(wanted), rel=1e-5)  # bfloat16 has 2e-3


def test_a_step_in_bfloat16_takes_losses_statistics_and_norms_in_float32(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    torch.set_num_threads(1)
    images, features, mask = inputs()
    method = make(views=(1, 2, 3, 4, 5)).train()
    bottleneck = method.bottleneck
    assert bottleneck is not None
    seen: dict[str, Tensor] = {}

    def keep(name: str) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], None]:
        def hook(_module: nn.Module, _inputs: tuple[Tensor, ...], output: Tensor) -> None:
            seen[name] = output.detach()

        return hook

    norm = bottleneck.merge[1]
    assert isinstance(norm, nn.BatchNorm2d)
    assert norm.momentum == pytest.approx(0.1)
    bottleneck.merge[0].register_forward_hook(keep("before norm"))
    bottleneck.mean.register_forward_hook(keep("mean"))
    bottleneck.logvar.register_forward_hook(keep("logvar"))
    fabric = Fabric(accelerator="cpu", devices=1, precision="bf16-mixed")
    module, optimizer = fabric.setup(StepModule(method), torch.optim.AdamW(method.parameters(), lr=1e-3))
    defects = torch.zeros(mask.shape + images.shape[-2:], dtype=torch.bool)
    monkeypatch.setattr(method, "perturbation", lambda batch, draws: PerturbedBatch(images, defects, mask))
    rows, ids = torch.arange(len(images)), ("a", "b")
    labels = torch.zeros_like(mask)
    batch = Batch(rows, {IMAGES: (images * 255).byte(), **features}, mask, labels, labels[:, 0], ids)
    inputs_of_step = [StepInput(batch, Draws(0, 0, 0, 0, ids, (1, 2, 3, 4, 5), torch.device("cpu")))]
    told = train_step(TrainConfig(), module, optimizer, fabric, inputs_of_step)

    assert {name: value.dtype for name, value in seen.items()} == dict.fromkeys(seen, torch.bfloat16)
    assert {name: value.dtype for name, value in told.items()} == dict.fromkeys(told, torch.float32)
    mean, logvar = seen["mean"].double(), seen["logvar"].double().clamp(-10, 10)
    kl = 0.5 * (mean**2 + logvar.exp() - logvar - 1).mean()
    assert float(told["kl"]) == pytest.approx(float(kl), rel=1e-5)
    assert norm.running_mean is not None
    statistics = 0.1 * seen["before norm"].double().mean(dim=(0, 2, 3))
    torch.testing.assert_close(norm.running_mean.double(), statistics, rtol=1e-4, atol=1e-6)
    assert {p.dtype for p in method.parameters()} == {torch.float32}


def test_the_benchmark_s_arithmetic_is_bfloat16_s() -> None:
    """Operands rounded, sums in float32, results rounded, forward and backward, as torch's own bfloat16."""
    torch.manual_seed(0)
    conv, linear = nn.Conv2d(8, 8, 3, padding=1), nn.Linear(8, 4)
    x = torch.randn(2, 8, 6, 6)

    def both() -> tuple[list[Tensor], set[torch.dtype]]:
        conv.zero_grad()
        linear.zero_grad()
        with Operands() as operands:
            with torch.autocast("cpu", torch.bfloat16):
                out = linear(conv(x).flatten(2).transpose(1, 2))
            assert out.dtype == torch.bfloat16
            (out.float() ** 2).sum().backward()
        gradients = [p.grad.clone() for m in (conv, linear) for p in m.parameters() if p.grad is not None]
        return [out.detach(), *gradients], operands.dtypes

    native, dtypes = both()
    assert dtypes == {torch.bfloat16}
    with as_bf16_hardware_would():
        emulated, dtypes = both()
    assert dtypes == {torch.float32}
    full = linear(conv(x).flatten(2).transpose(1, 2))
    assert len(emulated) == 5
    for one, other in zip(native, emulated, strict=True):
        assert one.dtype == other.dtype
        # two units in the last place of the largest: sums are taken in another order
        limit = 2 * 2**-8 * float(one.abs().max())
        torch.testing.assert_close(one.float(), other.float(), rtol=0, atol=limit)
    assert not torch.equal(emulated[0].float(), full)
