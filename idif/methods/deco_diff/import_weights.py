"""Reads checkpoints of DeCo-Diff's authors (``last.pt``), and of its variant with gates."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from idif.encoders.weights_file import read_weights_file
from idif.errors import ConfigError, WeightsError
from idif.methods.deco_diff.config import DeCoDiffConfig
from idif.methods.deco_diff.unet import BLOCKS, SIZES, Size, make_gates
from idif.methods.protocol import ImportedWeights, MethodContext

CLASSES = {
    "MVTec AD": (
        *("capsule", "bottle", "grid", "leather", "metal_nut", "tile", "transistor", "zipper", "cable"),
        *("carpet", "hazelnut", "pill", "screw", "toothbrush", "wood"),
    ),
    "VisA": (
        *("candle", "cashew", "fryum", "macaroni2", "pcb2", "pcb4", "capsules", "chewinggum", "macaroni1"),
        *("pcb1", "pcb3", "pipe_fryum"),
    ),
}
"""The authors' classes, in the order of their numbers."""

_EMBEDDING = "cond_stage_model.embedding.weight"
_FIRST = "input_blocks.0.0.weight"
_ANYWHERE = {
    "input_blocks.0.0": "net.conv_in",
    "time_embed.0": "net.time_embedding.linear_1",
    "time_embed.2": "net.time_embedding.linear_2",
    "middle_block.0": "net.mid_block.resnets.0",
    "middle_block.1": "net.mid_block.attentions.0",
    "middle_block.2": "net.mid_block.resnets.1",
    "out.0": "net.conv_norm_out",
    "out.2": "net.conv_out",
}
_RESIDUAL = {
    "in_layers.0": "norm1",
    "in_layers.2": "conv1",
    "emb_layers.1": "time_emb_proj",
    "out_layers.0": "norm2",
    "out_layers.3": "conv2",
    "skip_connection": "conv_shortcut",
}
"""The authors' names of parts -> ours; those inside a transformer are the same."""


def import_weights(
    config: DeCoDiffConfig, size: Size, channels: int, context: MethodContext, path: Path
) -> ImportedWeights:
    """The weights of an authors' checkpoint.

    The rows of the class embedding are those of the context's categories. Weights without gates get open ones
    if the config has gates with ``init: identity``.

    Args:
        config: settings.
        size: widths of the config's network.
        channels: of the latents.
        context: with the categories.
        path: what the authors' trainer wrote, or a file of its tensors.

    Raises:
        ConfigError: a category is none of the authors'.
        WeightsError: the file cannot be read, is no such checkpoint, or is one of another size.
    """
    tensors = read_weights_file(path)
    for name in (_FIRST, _EMBEDDING):
        if name not in tensors:
            found = ", ".join(list(tensors)[:3]) or "nothing"
            raise WeightsError(f"{path}: expected a checkpoint of DeCo-Diff with {name}, found {found}")
    width = tensors[_FIRST].shape[0]
    if width != size.width:
        named = [name for name, known in SIZES.items() if known.width == width]
        raise WeightsError(
            f"{path}: is a network of {width} channels{f', size {named[0]}' if named else ''}; the config's "
            f"method.size gives {size.width}"
        )
    rows = class_numbers(context.categories)
    count = len(tensors[_EMBEDDING])
    for category, row in zip(context.categories, rows, strict=True):
        if row >= count:
            raise WeightsError(f"{path}: has {count} classes, but {category} has the number {row}")
    renamed = {renamed_tensor(name): tensor for name, tensor in tensors.items() if name != _EMBEDDING}
    renamed["classes.weight"] = tensors[_EMBEDDING][torch.tensor(rows)]
    if config.gating.used and not any("gate" in name for name in renamed):
        if config.gating.init != "identity":
            raise WeightsError(
                f"{path}: has no gates; set method.gating.init=identity to add open ones, or "
                "method.gating.used=false"
            )
        renamed |= _open_gates(size, channels)
    return ImportedWeights({f"unet.{name}": tensor for name, tensor in renamed.items()})


def class_numbers(categories: Sequence[str]) -> list[int]:
    """The authors' class number of each category.

    Raises:
        ConfigError: no data set of theirs has all of them.
    """
    for known in CLASSES.values():
        if categories and set(categories) <= set(known):
            return [known.index(category) for category in categories]
    names = "; ".join(f"{name}: {', '.join(sorted(known))}" for name, known in CLASSES.items())
    given = ", ".join(categories) or "none"
    raise ConfigError(
        f"data.categories: expected classes of one of the authors' data sets, got {given}; {names}"
    )


def renamed_tensor(name: str) -> str:
    """Our name of a tensor of the authors' network; unknown ones keep theirs."""
    for theirs, ours in _ANYWHERE.items():
        if name.startswith(f"{theirs}."):
            return ours + _inside(name.removeprefix(theirs))
    if match := re.fullmatch(r"skip_gates\.(\d+)\.gate_conv\.(.+)", name):
        return f"skip_gates.{match[1]}.{match[2]}"
    match = re.fullmatch(r"(input|output)_blocks\.(\d+)\.(\d)(\..+)", name)
    if match is None:
        return name
    side, number, part, rest = match[1], int(match[2]), int(match[3]), match[4]
    # on the way down, the first block is a convolution and each level ends with its halving
    level, block = divmod(number - (side == "input"), BLOCKS + 1)
    here = f"net.{'down' if side == 'input' else 'up'}_blocks.{level}"
    if rest.startswith(".op."):
        return f"{here}.downsamplers.0.conv.{rest.removeprefix('.op.')}"
    if rest.startswith(".conv."):
        return f"{here}.upsamplers.0{rest}"
    return f"{here}.{('resnets', 'attentions')[part]}.{block}{_inside(rest)}"


def _inside(rest: str) -> str:
    """The name of a tensor inside a residual block; that of another is unchanged."""
    for theirs, ours in _RESIDUAL.items():
        if rest.startswith(f".{theirs}."):
            return f".{ours}{rest.removeprefix(f'.{theirs}')}"
    return rest


def _open_gates(size: Size, channels: int) -> Mapping[str, Tensor]:
    head, skips = make_gates(size, channels, "identity")
    return {
        **{f"gate_head.{name}": tensor for name, tensor in head.state_dict().items()},
        **{f"skip_gates.{name}": tensor for name, tensor in skips.state_dict().items()},
    }
