"""Dropout whose random bits are cheap on a CPU, where torch's own take longer than the layers they follow."""

import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

_LEVELS = 2**16


class Dropout(nn.Module):
    """As `torch.nn.Dropout`: zeroes elements with probability ``p`` while training, and scales the others.

    On a CPU an element takes 16 random bits of SFC64, seeded by torch's global generator, so ``p`` is rounded
    to a multiple of 2^-16. Measured: 5 ms for 2.5 million elements where torch's takes 38.
    """

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p

    def forward(self, values: Tensor) -> Tensor:
        """Values of any shape -> the same shape."""
        if not self.training or self.p == 0 or values.device.type != "cpu":
            return F.dropout(values, self.p, self.training)
        below = round(self.p * _LEVELS)
        kept = _random_int16(values.shape) >= below - _LEVELS // 2
        return torch.where(kept, values * (_LEVELS / (_LEVELS - below)), 0.0)


def _random_int16(shape: torch.Size) -> Tensor:
    """Uniform random integers of all 16 bits, on the CPU."""
    seed = int(torch.randint(2**63 - 1, ()))
    count = math.prod(shape)
    bits = np.random.SFC64(seed).random_raw(-(-count // 4))
    return torch.from_numpy(bits.view(np.int16)[:count]).view(shape)
