"""Winograd's filtering gives the convolution and its gradients, and is used where it should be."""

import json
import shutil
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

import idif.kernels.winograd as winograd
from cli.__main__ import run
from idif.config.sections import TrainConfig
from idif.kernels.winograd import convolve, is_supported, winograd_convolutions
from idif.training.precision import convolution_backend, training_convolutions, winograd_unavailable_reason
from tests.helpers.tiny_run import FAST
from tests.idif.methods.idif.test_model import inputs, make

CPU = torch.device("cpu")


@pytest.fixture
def _threads() -> Iterator[None]:
    """Whatever a test sets, the others find as it was."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def exact(x: Tensor, weight: Tensor, slope: Tensor, groups: int) -> tuple[Tensor, Tensor, Tensor]:
    """The convolution and both its gradients, in float64."""
    x64, w64 = x.double().requires_grad_(), weight.double().requires_grad_()
    y = F.conv2d(x64, w64, padding=1, groups=groups)
    dx, dw = torch.autograd.grad(y, (x64, w64), slope.double())
    return y.detach(), dx, dw


def ours(x: Tensor, weight: Tensor, slope: Tensor, groups: int) -> tuple[Tensor, Tensor, Tensor]:
    x, weight = x.clone().requires_grad_(), weight.clone().requires_grad_()
    y = convolve(x, weight, groups)
    dx, dw = torch.autograd.grad(y, (x, weight), slope)
    return y.detach(), dx, dw


def case(n: int, groups: int, c: int, k: int, h: int, w: int, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, groups * c, h, w, generator=generator)
    weight = torch.randn(groups * k, c, 3, 3, generator=generator)
    return x, weight, torch.randn(n, groups * k, h, w, generator=generator)


def furthest(found: tuple[Tensor, ...], wanted: tuple[Tensor, ...]) -> float:
    """The largest difference, in units of the wanted values' root mean square."""
    return max(
        float((f - w).abs().max() / w.square().mean().sqrt()) for f, w in zip(found, wanted, strict=True)
    )


@settings(max_examples=60, deadline=None)
@given(
    n=st.integers(1, 3),
    groups=st.integers(1, 3),
    c=st.integers(1, 9),
    k=st.integers(1, 9),
    h=st.integers(1, 13),
    w=st.integers(1, 13),
    seed=st.integers(0, 1000),
    channels_last=st.booleans(),
)
def test_output_and_gradients_are_those_of_the_convolution(
    n: int, groups: int, c: int, k: int, h: int, w: int, seed: int, channels_last: bool
) -> None:
    x, weight, slope = case(n, groups, c, k, h, w, seed)
    if channels_last:
        x, weight = (t.contiguous(memory_format=torch.channels_last) for t in (x, weight))
    # a direct float32 convolution is within 1e-5; a wrong coefficient is off by tenths
    assert furthest(ours(x, weight, slope, groups), exact(x, weight, slope, groups)) < 3e-4


@pytest.mark.parametrize(("groups", "channels", "size"), [(1, 64, 64), (1, 256, 16), (5, 64, 30)])
@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.usefixtures("_threads")
def test_the_sizes_of_the_student_in_pieces_and_threads(
    groups: int, channels: int, size: int, threads: int
) -> None:
    torch.set_num_threads(threads)
    x, weight, slope = case(3, groups, channels, channels, size, size)
    found = ours(x, weight, slope, groups)
    wanted = exact(x, weight, slope, groups)
    assert furthest(found, wanted) < 3e-4
    assert max(float((f - w).norm() / w.norm()) for f, w in zip(found, wanted, strict=True)) < 1e-5
    again = ours(x, weight, slope, groups)
    assert all(torch.equal(f, a) for f, a in zip(found, again, strict=True))


@pytest.mark.usefixtures("_threads")
def test_other_threads_compute_with_as_many_cores_as_before() -> None:
    torch.set_num_threads(3)
    x, weight, _ = case(2, 1, 64, 64, 64, 64)
    convolve(x, weight)
    assert torch.get_num_threads() == 3
    seen: list[int] = []
    other = threading.Thread(target=lambda: seen.append(torch.get_num_threads()))
    other.start()
    other.join()
    assert seen == [3]


@pytest.mark.usefixtures("_threads")
def test_a_thread_of_ours_computes_alone_whatever_it_computes() -> None:
    torch.set_num_threads(2)

    def threads(_: int) -> int:
        torch.randn(512, 512).sum()
        torch.randn(64, 64, dtype=torch.float64) @ torch.randn(64, 64, dtype=torch.float64)
        return torch.get_num_threads()

    assert list(winograd._pool(2).map(threads, range(8))) == [1] * 8


def test_a_thread_that_cannot_be_started_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    start, started = threading.Thread.start, []

    def refused(thread: threading.Thread) -> None:
        started.append(thread)
        if len(started) == 2:
            raise RuntimeError("can't start new thread")
        start(thread)

    with monkeypatch.context() as scarce:
        scarce.setattr(threading.Thread, "start", refused)
        with pytest.raises(RuntimeError, match="can't start"):
            winograd._pool(7)
    started[0].join(timeout=20)
    assert not started[0].is_alive()


def test_what_follows_may_change_the_output_in_place() -> None:
    x, weight, slope = case(2, 1, 4, 4, 8, 8)
    weight.requires_grad_()
    F.relu(convolve(x, weight), inplace=True).backward(slope)
    found, weight.grad = weight.grad, None
    F.relu(F.conv2d(x, weight, padding=1)).backward(slope)
    torch.testing.assert_close(found, weight.grad, rtol=1e-3, atol=1e-3)


def test_a_prediction_leaves_nothing_that_training_cannot_use() -> None:
    x, weight, slope = case(2, 1, 4, 4, 8, 8)
    left: list[Tensor] = []

    def work() -> None:  # in a thread of its own, which has kept no memory yet
        with torch.inference_mode():
            convolve(x, weight)
        left.extend(ours(x, weight, slope, 1))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert furthest(tuple(left), exact(x, weight, slope, 1)) < 3e-4


@pytest.mark.parametrize(
    ("x", "weight", "groups"),
    [
        ((2, 128, 32, 32), (64, 64, 3, 3), 1),
        ((2, 32, 32, 32), (64, 64, 3, 3), 1),
        ((2, 128, 32, 32), (65, 64, 3, 3), 2),
        ((0, 64, 32, 32), (64, 64, 3, 3), 1),
        ((2, 64, 32, 32), (64, 64, 5, 5), 1),
    ],
)
def test_shapes_that_do_not_fit(x: tuple[int, ...], weight: tuple[int, ...], groups: int) -> None:
    images, filters = torch.zeros(x), torch.zeros(weight)
    assert not is_supported(images, filters, padding=1, groups=groups)
    with pytest.raises(ValueError, match="expected float32"):
        convolve(images, filters, groups)


class Counted:
    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.calls = 0

        def counting(*args: Any, **kwargs: Any) -> Tensor:
            self.calls += 1
            return convolve(*args, **kwargs)

        monkeypatch.setattr(winograd, "convolve", counting)


def test_inside_a_suitable_convolution_is_taken_over_with_its_bias(monkeypatch: pytest.MonkeyPatch) -> None:
    counted = Counted(monkeypatch)
    x, weight, _ = case(2, 2, 32, 32, 32, 32)
    bias = torch.randn(64)
    with winograd_convolutions():
        found = [
            F.conv2d(x, weight, bias, 1, 1, 1, 2),
            F.conv2d(x, weight, bias, padding=(1, 1), groups=2),
            F.conv2d(input=x, weight=weight, bias=bias, padding=1, groups=2),
        ]
        with pytest.raises(RuntimeError, match="bias"):
            F.conv2d(x, weight, bias[:1], padding=1, groups=2)
    assert counted.calls == 3
    for y in found:
        assert torch.allclose(y, F.conv2d(x, weight, bias, padding=1, groups=2), atol=1e-3)
    F.conv2d(x, weight, bias, padding=1, groups=2)
    assert counted.calls == 3


@pytest.mark.parametrize(
    "changes",
    [
        {"stride": 2},
        {"padding": 0},
        {"padding": "valid"},
        {"dilation": 2},
        {"weight": torch.randn(64, 64, 1, 1)},
        {"weight": torch.randn(16, 64, 3, 3)},
        {"input": torch.randn(2, 64, 8, 8)},
        {"input": torch.randn(2, 64, 32, 32).double(), "weight": torch.randn(64, 64, 3, 3).double()},
        {"input": torch.randn(64, 64, 64)},
    ],
)
def test_any_other_convolution_stays_torchs(changes: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    counted = Counted(monkeypatch)
    usual: dict[str, Any] = {
        "input": torch.randn(2, 64, 32, 32),
        "weight": torch.randn(64, 64, 3, 3),
        "padding": 1,
    }
    assert is_supported(**usual)
    given = usual | changes
    with winograd_convolutions():
        found = F.conv2d(**given)
    assert torch.equal(found, F.conv2d(**given))
    assert counted.calls == 0


def test_under_autocast_it_stays_torchs(monkeypatch: pytest.MonkeyPatch) -> None:
    counted = Counted(monkeypatch)
    x, weight, _ = case(2, 1, 64, 64, 32, 32)
    with winograd_convolutions(), torch.autocast("cpu", torch.bfloat16):
        assert F.conv2d(x, weight, padding=1).dtype == torch.bfloat16
    assert counted.calls == 0


def test_a_training_step_learns_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    counted = Counted(monkeypatch)
    batch = inputs(batch=4, size=64)

    def learned(how: Any) -> tuple[float, Tensor]:
        # batch norm over few numbers makes a hundredth of the gradient out of any rounding, also of 1e-7
        model = make(norm="group").train()
        torch.manual_seed(2)
        with convolution_backend(how):
            loss = model.losses(*batch)["loss"]
            loss.backward()
        return float(loss.detach()), torch.cat(
            [p.grad.flatten() for p in model.parameters() if p.grad is not None]
        )

    direct, fast = learned("direct"), learned("winograd")
    # layer1 and layer2 of the encoder, and the decoders' largest scale; the other maps are too small here
    assert counted.calls == 4 + 3 + 2
    assert fast[0] == pytest.approx(direct[0], rel=1e-4)
    assert float((fast[1] - direct[1]).norm() / direct[1].norm()) < 1e-3


def test_it_is_for_cpus_in_float32_where_numba_is(monkeypatch: pytest.MonkeyPatch) -> None:
    full = TrainConfig(precision="float32")
    assert training_convolutions(full, CPU) == "winograd"
    assert training_convolutions(full, torch.device("cuda")) == "direct"
    assert training_convolutions(TrainConfig(precision="bfloat16"), CPU) == "direct"
    assert training_convolutions(TrainConfig(precision="float32", convolutions="direct"), CPU) == "direct"
    monkeypatch.setattr("idif.training.precision.winograd_unavailable_reason", lambda: "install it")
    assert training_convolutions(full, CPU) == "direct"


@pytest.mark.parametrize(
    ("error", "advice"),
    [
        (None, "install the extra `idif[cpu]`"),
        (ImportError("Numba needs NumPy 2.4 or less"), "mend numba (Numba needs NumPy 2.4 or less)"),
        (OSError("Could not load shared object file"), "mend numba (Could not load shared object file)"),
        (
            RuntimeError("cannot cache function 'input_tiles'"),
            "set NUMBA_CACHE_DIR to a folder that can be written (cannot cache function 'input_tiles')",
        ),
    ],
)
def test_a_machine_that_cannot_is_told_what_to_do(
    error: Exception | None, advice: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Broken:
        def find_spec(self, name: str, *_: object) -> None:
            if name == "idif.kernels.winograd_transforms" and error is not None:
                raise error

    winograd_unavailable_reason.cache_clear()
    monkeypatch.setattr(sys, "meta_path", [Broken(), *sys.meta_path])
    for name in ("idif.kernels.winograd", "idif.kernels.winograd_transforms"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    if error is None:
        monkeypatch.setitem(sys.modules, "numba", None)
    try:
        assert winograd_unavailable_reason() == advice
    finally:
        winograd_unavailable_reason.cache_clear()


@pytest.mark.usefixtures("_threads")
def test_a_run_says_and_records_how_it_convolved(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def train(*more: str) -> str:
        given = [
            f"--config={world / 'c.yaml'}",
            *FAST,
            f"--set=run.dir={tmp_path}",
            "--set=data.categories=[cup]",
        ]
        assert run(["train", *given, "--set=train.precision=float32", *more]) == 0
        return " ".join(capsys.readouterr().err.split())

    def recorded(what: str) -> Any:
        return json.loads((tmp_path / "tiny" / "environment.json").read_text(encoding="utf-8"))[what]

    def unfinish() -> None:
        for checkpoint in (tmp_path / "tiny" / "cup").glob("checkpoint*"):
            shutil.rmtree(checkpoint)

    torch.set_num_threads(1)

    with monkeypatch.context() as lacking:
        lacking.setattr("idif.training.precision.winograd_unavailable_reason", lambda: "install it")
        lacking.setattr("cli.workflow.train.winograd_unavailable_reason", lambda: "install it")
        assert "note: convolutions could be faster on this CPU: install it" in train()
    assert recorded("convolutions") == "direct"
    mixed = "convolutions: direct before it was resumed, winograd after"
    assert mixed not in " ".join(recorded("caveats"))
    unfinish()
    assert mixed in train("--resume")
    assert recorded("convolutions") == "winograd"
    unfinish()
    torch.set_num_threads(2)
    said = train("--resume")
    assert mixed in said, "what was once true of a run stays"
    assert "torch_threads: 1 before it was resumed, 2 after" in said
    assert len(recorded("caveats")) == len(set(recorded("caveats")))
    assert mixed in " ".join(recorded("caveats"))
