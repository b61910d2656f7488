"""The mean over the present views of a batch that several processes may share."""

import torch
import torch.distributed
from torch import Tensor


def mean_over_kept(values: Tensor, view_mask: Tensor) -> Tensor:
    """Mean of ``values`` [B,V] over the views of ``view_mask`` [B,V], a scalar.

    If several processes share a batch, the mean of their results is the mean over the kept views of all: each
    process divides by the average number of kept views. A plain mean of means would give more weight to views
    of processes with few of them.
    """
    kept = view_mask.sum()
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.all_reduce(kept)
        kept = kept / torch.distributed.get_world_size()
    return (values * view_mask).sum() / kept
