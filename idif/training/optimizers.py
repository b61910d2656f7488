"""Creates the optimizer that ``train.optimizer`` names."""

from collections.abc import Iterable

import torch
from torch import nn

from idif.config.sections import TrainConfig


def make_optimizer(train: TrainConfig, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
    """The optimizer at its peak learning rate, in the fused implementation."""
    chosen, lr, decay = train.optimizer, train.lr, train.weight_decay
    if chosen.name == "adamw":
        return torch.optim.AdamW(parameters, lr=lr, betas=chosen.betas, weight_decay=decay, fused=True)
    if chosen.name == "adam":
        return torch.optim.Adam(parameters, lr=lr, betas=chosen.betas, weight_decay=decay, fused=True)
    return torch.optim.SGD(parameters, lr=lr, momentum=chosen.momentum, weight_decay=decay, fused=True)
