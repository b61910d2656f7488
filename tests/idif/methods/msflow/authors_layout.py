"""Checkpoints in the authors' layout, from a model of ours: FrEIA's names, any order of the graph."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from idif.methods.msflow.model import MSFlow
from idif.methods.msflow.parallel import ParallelFlow


def checkpoint(
    model: MSFlow, graph_order: Sequence[int] = (0, 1), *, joined_heads: bool = True
) -> dict[str, Any]:
    """What a trainer would save.

    Args:
        model: gives the weights.
        graph_order: order of the scales' permutations in the graph.
        joined_heads: whether one convolution of a scale gives log-scale and shift, or two.
    """
    own = model.state_dict()
    flows = []
    for number, flow in enumerate(model.parallel):
        assert isinstance(flow, ParallelFlow)
        flows.append(flow_tensors(own, number, len(flow.blocks)))
    return {
        "epoch": 24,
        "parallel_flows": flows,
        "fusion_flow": fusion_tensors(own, graph_order, joined_heads=joined_heads),
        "optimizer": {"state": {0: {"exp_avg": torch.ones(3)}}, "param_groups": [{"lr": 1e-4}]},
    }


def flow_tensors(own: dict[str, Tensor], number: int, blocks: int) -> dict[str, Tensor]:
    """The state dict of one chain of FrEIA's blocks."""
    tensors = {}
    for position in range(blocks):
        ours, theirs = f"parallel.{number}.blocks.{position}", f"module_list.{position}"
        order = own[f"{ours}.permutation.order"]
        matrix = torch.eye(len(order))[order]
        tensors[f"{theirs}.global_scale"] = own[f"{ours}.raw_scale"][None]
        tensors[f"{theirs}.global_offset"] = own[f"{ours}.offset"][None]
        tensors[f"{theirs}.w_perm"] = matrix[:, :, None, None]
        tensors[f"{theirs}.w_perm_inv"] = matrix.t().clone()[:, :, None, None]
        for layer in (0, 1, 3):
            for kind in ("weight", "bias"):
                tensors[f"{theirs}.subnet.{layer}.{kind}"] = own[f"{ours}.subnet.{layer}.{kind}"]
    return tensors


def fusion_tensors(
    own: dict[str, Tensor], graph_order: Sequence[int], *, joined_heads: bool
) -> dict[str, Tensor]:
    """The state dict of the graph: permutations in ``graph_order``, then the coupling."""
    tensors = {}
    for place, scale in enumerate(graph_order):
        order = own[f"fusion.permutations.{scale}.order"]
        tensors[f"module_list.{place}.perm"], tensors[f"module_list.{place}.perm_inv"] = (
            order,
            order.argsort(),
        )
    coupling = f"module_list.{len(graph_order)}"
    for ours, theirs in (("from_first", "subnet1"), ("from_second", "subnet2")):
        for kind in ("weight", "bias"):
            for layer, name in ((0, "mix.0"), (1, "mix.1"), (3, "mix.3")):
                tensors[f"{coupling}.{theirs}.mix.{layer}.{kind}"] = own[f"fusion.{ours}.{name}.{kind}"]
            for scale in range(len(graph_order)):
                head = own[f"fusion.{ours}.heads.{scale}.{kind}"]
                if joined_heads:
                    tensors[f"{coupling}.{theirs}.heads.{scale}.{kind}"] = head
                    continue
                # the shift's come first here, so that only the names tell
                for part, values in zip(("shift", "scale"), reversed(head.chunk(2)), strict=True):
                    tensors[f"{coupling}.{theirs}.{part}_convs.{scale}.{kind}"] = values
    return tensors
