"""Selective scan of a state space model (S6), in plain torch or by the package ``mamba_ssm``."""

from functools import cache
from typing import Any

import torch
from torch import Tensor


class LinearRecurrence(torch.autograd.Function):
    """h_t = decay_t * h_{t-1} + inflow_t, with h_{-1} = 0, for tensors float32 [T,...].

    Autograd of the plain loop would record every step as a graph of its own; here each direction is one loop
    over slices that lie one after another in memory.
    """

    @staticmethod
    def forward(ctx: Any, decay: Tensor, inflow: Tensor) -> Tensor:
        """States [T,...] of the recurrence."""
        states = torch.empty_like(inflow)
        states[0] = inflow[0]
        for t in range(1, len(states)):
            torch.addcmul(inflow[t], decay[t], states[t - 1], out=states[t])
        ctx.save_for_backward(decay, states)
        return states

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor]:
        """Gradients of ``decay`` and ``inflow``."""
        decay, states = ctx.saved_tensors
        of_inflow = gradients[0].clone(memory_format=torch.contiguous_format)
        for t in range(len(states) - 2, -1, -1):
            of_inflow[t].addcmul_(decay[t + 1], of_inflow[t + 1])
        of_decay = torch.zeros_like(decay)
        torch.mul(of_inflow[1:], states[:-1], out=of_decay[1:])
        return of_decay, of_inflow


def selective_scan(
    values: Tensor, step: Tensor, rate: Tensor, write: Tensor, read: Tensor, skip: Tensor
) -> Tensor:
    """y_t = <read_t, h_t> + skip * x_t of the state h_t = exp(step_t rate) h_{t-1} + step_t x_t write_t.

    Runs the kernel of ``mamba_ssm`` where that is installed and the tensors are on a GPU.

    Args:
        values: x, float32 [B,T,C].
        step: positive step sizes, float32 [B,T,C].
        rate: negative rates, float32 [C,S].
        write: float32 [B,T,S].
        read: float32 [B,T,S].
        skip: float32 [C].

    Returns:
        float32 [B,T,C].
    """
    kernel = _kernel() if values.is_cuda else None
    if kernel is not None:
        return scan_with_kernel(kernel, values, step, rate, write, read, skip)
    return scan_in_torch(values, step, rate, write, read, skip)


def scan_with_kernel(
    kernel: Any, values: Tensor, step: Tensor, rate: Tensor, write: Tensor, read: Tensor, skip: Tensor
) -> Tensor:
    """`selective_scan` by ``mamba_ssm``'s function, whose series have time last."""
    x, delta, b, c = (series.transpose(1, 2).contiguous() for series in (values, step, write, read))
    scanned: Tensor = kernel(x, delta, rate, b, c, skip).transpose(1, 2)
    return scanned


def scan_in_torch(
    values: Tensor, step: Tensor, rate: Tensor, write: Tensor, read: Tensor, skip: Tensor
) -> Tensor:
    """`selective_scan` on any device."""
    x, delta = values.transpose(0, 1), step.transpose(0, 1)
    decay = torch.exp(delta[..., None] * rate)
    inflow = (delta * x)[..., None] * write.transpose(0, 1)[:, :, None]
    states: Tensor = LinearRecurrence.apply(decay, inflow)
    scanned = torch.einsum("tbcs,tbs->btc", states, read.transpose(0, 1))
    return scanned + skip * values


@cache
def _kernel() -> Any:
    """``mamba_ssm``'s scan; None where it is not installed."""
    try:
        from mamba_ssm.ops.selective_scan_interface import selective_scan_fn
    except ImportError:
        return None
    return selective_scan_fn
