"""Names of an EfficientNet's weights: those of lukemelas' PyTorch port, translated to timm's."""

import re
from collections.abc import Iterable, Mapping

from torch import Tensor

_WHOLE = {
    "_conv_stem": "conv_stem",
    "_bn0": "bn1",
    "_conv_head": "conv_head",
    "_bn1": "bn2",
    "_fc": "classifier",
}
_ALWAYS = {"_depthwise_conv": "conv_dw", "_se_reduce": "se.conv_reduce", "_se_expand": "se.conv_expand"}
_EXPANDED = {
    "_expand_conv": "conv_pw",
    "_bn0": "bn1",
    "_bn1": "bn2",
    "_project_conv": "conv_pwl",
    "_bn2": "bn3",
}
_PLAIN = {"_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}
"""Layers of a block that widens its input first, and of one that does not."""


def is_port(names: Iterable[str]) -> bool:
    """Whether the names are those of lukemelas' port."""
    return any(name.startswith("_conv_stem.") for name in names)


def timm_names(weights: Mapping[str, Tensor], wanted: Iterable[str]) -> dict[str, Tensor]:
    """The weights under timm's names; weights that timm's network has no place for are left out.

    Args:
        weights: by the names of lukemelas' port, which numbers the blocks from first to last.
        wanted: timm's names, which number the stages and the blocks of each.
    """
    known = set(wanted)
    blocks = sorted(
        {(int(m[1]), int(m[2])) for name in known if (m := re.match(r"blocks\.(\d+)\.(\d+)\.", name))}
    )
    translated = {}
    for name, tensor in weights.items():
        match = re.fullmatch(r"_blocks\.(\d+)\.(\w+)\.(\w+)", name)
        if match is None:
            layer, _, rest = name.partition(".")
            translated[f"{_WHOLE.get(layer, layer)}.{rest}"] = tensor
        elif int(match[1]) < len(blocks):
            number, layer, rest = int(match[1]), match[2], match[3]
            expanded = f"_blocks.{number}._expand_conv.weight" in weights
            own = _ALWAYS | (_EXPANDED if expanded else _PLAIN)
            stage, place = blocks[number]
            translated[f"blocks.{stage}.{place}.{own.get(layer, layer)}.{rest}"] = tensor
    return {name: tensor for name, tensor in translated.items() if name in known}
